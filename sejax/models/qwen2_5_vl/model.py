"""The model as pure functions: a prompt is read once, its G continuations branch off it.

`encode` turns images into features, `prefill` reads prompts, `extend` continues each prompt by G
trajectories, and `forward` does the last two in one pass for training. A trajectory attends to its
prompt's keys in place: they are never copied for it. `logp` scores tokens from hidden states.

Axes: B prompts, G trajectories, P prompt tokens, T new tokens, S cache slots, L layers, K key-value
heads, H head size, D width, V vocabulary. Prompts are padded on the right.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from sejax.models.qwen2_5_vl import decoder, fused_attention
from sejax.models.qwen2_5_vl.attention import Keys, attend
from sejax.models.qwen2_5_vl.config import Config
from sejax.models.qwen2_5_vl.images import Images
from sejax.models.qwen2_5_vl.params import Params
from sejax.models.qwen2_5_vl.rope import text_angles
from sejax.models.qwen2_5_vl.vision import encode_images


class Prompt(NamedTuple):
  """Tokenized prompts.

  Attributes:
    ids: tokens, image placeholders expanded to one per feature.
    lengths: real tokens of each row, at least 1.
    positions: by time, height and width, from `rope.prompt_positions`.
  """

  ids: Int[Array, "B P"]
  lengths: Int[Array, " B"]
  positions: Int[Array, "3 B P"]


class Prefix(NamedTuple):
  """What is left of prompts that have been read.

  Attributes:
    keys: rotated keys of every layer, in the layout in which attention consumes them; or a tuple of
      layers, see `by_layer`.
    values: values, likewise.
    lengths: real tokens of each row.
    next_position: position of the first token after the prompt, in all three of M-RoPE's axes.
    last_hidden: hidden state of the prompt's last token, after the final norm.
  """

  keys: Float[Array, "L B K P H"] | tuple[Float[Array, "B K P H"], ...]
  values: Float[Array, "L B K P H"] | tuple[Float[Array, "B K P H"], ...]
  lengths: Int[Array, " B"]
  next_position: Int[Array, " B"]
  last_hidden: Float[Array, "B D"]


class Cache(NamedTuple):
  """Continuations of a prefix so far. Slots are shared by all trajectories, positions are not.

  Attributes:
    keys: rotated keys of every layer; or a tuple of layers, see `by_layer`.
    values: values, likewise.
    valid: slots that hold a real token of the trajectory.
    lengths: real tokens of each trajectory.
    used: slots written so far; the next tokens go to the slots after these.
  """

  keys: Float[Array, "L B K G S H"] | tuple[Float[Array, "B K G S H"], ...]
  values: Float[Array, "L B K G S H"] | tuple[Float[Array, "B K G S H"], ...]
  valid: Bool[Array, "B G S"]
  lengths: Int[Array, "B G"]
  used: Int[Array, ""]


_PrefixOrCache = TypeVar("_PrefixOrCache", Prefix, Cache)


def empty_cache(config: Config, prompts: int, members: int, slots: int, dtype: DTypeLike) -> Cache:
  """Returns a cache of B prompts x G members with S free slots."""
  text = config.text
  shape = (
    text.num_hidden_layers,
    prompts,
    text.num_key_value_heads,
    members,
    slots,
    text.head_size,
  )
  return Cache(
    keys=jnp.zeros(shape, dtype),
    values=jnp.zeros(shape, dtype),
    valid=jnp.zeros((prompts, members, slots), bool),
    lengths=jnp.zeros((prompts, members), jnp.int32),
    used=jnp.zeros((), jnp.int32),
  )


def by_layer(x: _PrefixOrCache) -> _PrefixOrCache:
  """Gives each layer's keys and values an array of their own, see `Config.layered_cache`."""
  return x._replace(keys=tuple(x.keys), values=tuple(x.values))


def layers_apart(params: Params) -> Params:
  """Cuts the decoder's layers out of their stack, once for all tokens of a layered cache."""
  stack = params["decoder"]["layers"]
  count = len(jax.tree.leaves(stack)[0])
  layers = [jax.tree.map(lambda x, n=n: x[n], stack) for n in range(count)]
  return params | {"decoder": params["decoder"] | {"layers": layers}}


def encode(params: Params, config: Config, images: Images) -> Float[Array, "B s D"]:
  """Returns the features of each row's images, one after the other, padding at the end."""
  return encode_images(params["vision"], config, images)


def prefill(
  params: Params, config: Config, prompt: Prompt, features: Float[Array, "B s D"] | None = None
) -> tuple[Prefix, Float[Array, "B V"]]:
  """Reads prompts.

  Args:
    params: the parameter tree.
    config: the model.
    prompt: B prompts of up to P tokens.
    features: from `encode`; None where no row has an image.

  Returns:
    The prefix to continue from, and fp32 logits of the first token after each prompt.
  """
  x = _embed_prompt(params, config, prompt, features)

  def attention(queries, keys, values, _):
    return _attend_prompt(config, queries, keys, values)

  angles = text_angles(config.text, prompt.positions)
  hidden, (keys, values) = decoder.run_layers(params["decoder"], config, x, angles, attention)
  last = select_last(hidden, prompt.lengths)
  prefix = Prefix(keys, values, prompt.lengths, _next_position(prompt), last)
  return prefix, logits(params, last)


def extend(
  params: Params,
  config: Config,
  prefix: Prefix,
  tokens: Int[Array, "B G T"],
  cache: Cache | None = None,
  lengths: Int[Array, "B G"] | None = None,
  filled: int | None = None,
) -> tuple[Float[Array, "B G T D"], Cache | None]:
  """Continues each prompt by T tokens of G trajectories.

  A token attends to its prompt, to the trajectory's valid cache slots and to the tokens before it.
  Hidden states of padding tokens mean nothing. Gradients flow through the prefix.

  Args:
    params: the parameter tree; for a layered cache from `layers_apart`.
    config: the model.
    prefix: from `prefill`, of the same B prompts; by layer with such a cache.
    tokens: the next tokens, padded on the right.
    cache: earlier tokens of these trajectories; the caller sees to it that T slots are free.
    lengths: real tokens among the T; all, if None. Only a cache needs it.
    filled: cache slots attended to, static; at least `cache.used`. All, if None.

  Returns:
    Hidden states after the final norm, and the cache with the tokens added (None without one).
  """
  batch, members, _ = tokens.shape
  start = prefix.next_position[:, None] + (0 if cache is None else cache.lengths)

  def attention(queries, keys, values, extra):
    of_prefix, cached = extra
    earlier = None
    if cache is not None and filled != 0:
      valid = cache.valid[:, :, None, :filled]
      earlier = Keys(*(x[..., :filled, :] for x in cached), lambda _: valid)
    out, own = _attend_continuations(
      config, queries, keys, values, members, of_prefix, prefix.lengths, earlier
    )
    return out, None if cache is None else own

  extra = ((prefix.keys, prefix.values), None if cache is None else (cache.keys, cache.values))
  is_layered = isinstance(prefix.keys, tuple)
  if is_layered:
    of_prefix, cached = (zip(*pair, strict=True) for pair in extra)
    extra = list(zip(of_prefix, cached, strict=True))
  hidden, kept = decoder.run_layers(
    params["decoder"],
    config,
    _embed(params, tokens.reshape(batch, -1)),
    _continuation_angles(config, start, tokens.shape),
    attention,
    extra=extra,
  )
  hidden = hidden.reshape(*tokens.shape, -1)
  if cache is None:
    return hidden, None
  return hidden, _append(cache, *(zip(*kept, strict=True) if is_layered else kept), lengths)


def forward(
  params: Params,
  config: Config,
  prompt: Prompt,
  features: Float[Array, "B s D"] | None,
  tokens: Int[Array, "B G T"],
) -> tuple[Float[Array, "B D"], Float[Array, "B G T D"]]:
  """Reads prompts and their continuations in one pass, for training.

  The same as `prefill` then `extend`, but one scan over layers carries both, so that a prompt's
  keys never leave their layer: less memory for the backward pass and larger matrix products.

  Returns:
    Hidden states after the final norm: of each prompt's last token, and of all new tokens.
  """
  batch, members, _ = tokens.shape
  length = prompt.ids.shape[1]

  def attention(queries, keys, values, _):
    of_prompt, of_tokens = zip(
      *((x[:, :length], x[:, length:]) for x in (queries, keys, values)), strict=True
    )
    prompt_out, prompt_keys = _attend_prompt(config, *of_prompt)
    out, _ = _attend_continuations(config, *of_tokens, members, prompt_keys, prompt.lengths)
    return jnp.concatenate([prompt_out, out], axis=1), None

  x = _embed_prompt(params, config, prompt, features)
  x = jnp.concatenate([x, _embed(params, tokens.reshape(batch, -1))], axis=1)
  angles = jnp.concatenate(
    [
      text_angles(config.text, prompt.positions),
      _continuation_angles(config, _next_position(prompt)[:, None], tokens.shape),
    ],
    axis=1,
  )
  hidden, _ = decoder.run_layers(params["decoder"], config, x, angles, attention)
  last = select_last(hidden[:, :length], prompt.lengths)
  return last, hidden[:, length:].reshape(*tokens.shape, -1)


def select_last(hidden: Float[Array, "*b T D"], lengths: Int[Array, "*b"]) -> Float[Array, "*b D"]:
  """Returns the hidden state of each sequence's last real token (of its first, if it has none)."""
  index = jnp.maximum(lengths - 1, 0)[..., None, None]
  return jnp.take_along_axis(hidden, index, axis=-2)[..., 0, :]


def logits(params: Params, hidden: Float[Array, "*b D"]) -> Float[Array, "*b V"]:
  """Returns fp32 logits of the next token; the head may be the embedding, transposed."""
  if "lm_head" in params:
    return jnp.matmul(hidden, params["lm_head"]["kernel"], preferred_element_type=jnp.float32)
  embedding = params["decoder"]["embed"]["embedding"]
  # The embedding first: XLA:CPU would transpose it for each call, were it the second operand.
  out = jnp.einsum("vd,...d->v...", embedding, hidden, preferred_element_type=jnp.float32)
  return jnp.moveaxis(out, 0, -1)


def _embed(params: Params, ids: Int[Array, "B S"]) -> Float[Array, "B S D"]:
  return params["decoder"]["embed"]["embedding"][ids]


def _embed_prompt(
  params: Params, config: Config, prompt: Prompt, features: Float[Array, "B s D"] | None
) -> Float[Array, "B P D"]:
  """Embeds a prompt; its n-th image token becomes the row's n-th feature."""
  x = _embed(params, prompt.ids)
  if features is None:
    return x
  # Padding may hold any token: only real ones take a feature, or a row could run out of them.
  real = jnp.arange(prompt.ids.shape[1]) < prompt.lengths[:, None]
  is_image = real & (prompt.ids == config.image_token_id)
  rank = jnp.clip(jnp.cumsum(is_image, axis=1) - 1, 0, features.shape[1] - 1)
  placed = jnp.take_along_axis(features.astype(x.dtype), rank[..., None], axis=1)
  return jnp.where(is_image[..., None], placed, x)


def _next_position(prompt: Prompt) -> Int[Array, " B"]:
  """One past each row's largest position, as HF's `rope_deltas` has it."""
  real = jnp.arange(prompt.ids.shape[1]) < prompt.lengths[:, None]
  return jnp.where(real, prompt.positions, -1).max(axis=(0, 2)) + 1


def _continuation_angles(
  config: Config, start: Int[Array, "B _"], shape: tuple[int, int, int]
) -> Float[Array, "B GT H/2"]:
  batch, members, length = shape
  positions = jnp.broadcast_to(start[..., None] + jnp.arange(length), shape)
  stream = positions.reshape(batch, members * length)
  return text_angles(config.text, jnp.broadcast_to(stream, (3, *stream.shape)))


def _attend_prompt(
  config: Config,
  queries: Float[Array, "B P N H"],
  keys: Float[Array, "B P K H"],
  values: Float[Array, "B P K H"],
) -> tuple[Float[Array, "B P N H"], tuple[Float[Array, "B K P H"], Float[Array, "B K P H"]]]:
  """Prompts attend to themselves; returns their keys and values as a prefix has them, too."""
  kept = tuple(decoder.group_keys(x, 1)[:, :, 0] for x in (keys, values))
  if fused_attention.usable(config, queries.dtype, queries.shape[1]):
    return fused_attention.attend_prompts(config, queries, keys, values), kept
  queries = decoder.group_queries(queries, 1, config.text.num_key_value_heads)
  own = Keys(*kept, _causal(keys.shape[1]))
  return decoder.ungroup(attend(queries, [own], config.query_chunk)), kept


def _attend_continuations(
  config: Config,
  queries: Float[Array, "B GT N H"],
  keys: Float[Array, "B GT K H"],
  values: Float[Array, "B GT K H"],
  members: int,
  prompt: tuple[Float[Array, "B K P H"], Float[Array, "B K P H"]],
  lengths: Int[Array, " B"],
  earlier: Keys | None = None,
) -> tuple[Float[Array, "B GT N H"], tuple[Float[Array, "B K G T H"], Float[Array, "B K G T H"]]]:
  """Continuations attend to prompts, to what is earlier and to themselves.

  Their keys and values come along.
  """
  kept = tuple(decoder.group_keys(x, members) for x in (keys, values))
  tokens = queries.shape[1] // members
  if earlier is None and fused_attention.usable(config, queries.dtype, tokens):
    own = (x.reshape(len(x), members, -1, *x.shape[2:]) for x in (queries, keys, values))
    of_prompt = (x.swapaxes(1, 2) for x in prompt)
    out = fused_attention.attend_continuations(config, *own, *of_prompt, lengths)
    return out.reshape(queries.shape), kept
  grouped = decoder.group_queries(queries, members, config.text.num_key_value_heads)
  key_sets = [Keys(*prompt, _real(lengths, prompt[0].shape[2]))]
  if earlier is not None:
    key_sets.append(earlier)
  key_sets.append(Keys(*kept, _causal(kept[0].shape[3])))
  return decoder.ungroup(attend(grouped, key_sets, config.query_chunk)), kept


def _causal(length: int) -> Callable[[Int[Array, " C"]], Bool[Array, "1 1 C T"]]:
  """Sees itself and what came before."""
  return lambda index: (jnp.arange(length) <= index[:, None])[None, None]


def _real(lengths: Int[Array, " B"], size: int) -> Callable[[Array], Bool[Array, "B 1 1 P"]]:
  """Sees the real ones of a prompt's `size` tokens."""
  return lambda _: (jnp.arange(size) < lengths[:, None])[:, None, None]


def _append(
  cache: Cache,
  keys: Float[Array, "L B K G T H"] | tuple[Float[Array, "B K G T H"], ...],
  values: Float[Array, "L B K G T H"] | tuple[Float[Array, "B K G T H"], ...],
  lengths: Int[Array, "B G"] | None,
) -> Cache:
  """Writes T tokens to the slots after the used ones."""
  length = keys[0].shape[-2]

  def write(x, new):
    return jax.lax.dynamic_update_slice_in_dim(x, new, cache.used, axis=x.ndim - 2)

  if lengths is None:
    lengths = jnp.full(cache.lengths.shape, length, jnp.int32)
  return Cache(
    keys=jax.tree.map(write, cache.keys, keys),
    values=jax.tree.map(write, cache.values, values),
    valid=jax.lax.dynamic_update_slice_in_dim(
      cache.valid, jnp.arange(length) < lengths[..., None], cache.used, axis=2
    ),
    lengths=cache.lengths + lengths,
    used=cache.used + length,
  )
