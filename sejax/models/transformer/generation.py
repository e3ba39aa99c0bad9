"""Reading and generating with a decoder: a prompt is read once, its G continuations branch off it.

`prefill` reads prompts, `extend` continues each prompt by G trajectories, and `forward` does both
in one pass for training. A trajectory attends to its
prompt's keys in place: they are never copied for it. `logp` scores tokens from hidden states.

Axes: B prompts, G trajectories, P prompt tokens, T new tokens, S cache slots, L layers, K key-value
heads, H head size, D width, V vocabulary. Prompts are padded on the right.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sejax.models.transformer import decoder
from sejax.models.transformer.attention import Causal, KeySet, Lengths, attend, group_keys
from sejax.models.transformer.config import ModelConfig
from sejax.models.transformer.params import Params
from sejax.models.transformer.rope import text_angles
from sejax.models.transformer.state import Cache, Prefix, Prompt


def prefill(
  params: Params, config: ModelConfig, prompt: Prompt, features: Float[Array, "B s D"] | None = None
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
  config: ModelConfig,
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
      earlier = KeySet(*(x[..., :filled, :] for x in cached), lambda _: valid)
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
  config: ModelConfig,
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
  params: Params, config: ModelConfig, prompt: Prompt, features: Float[Array, "B s D"] | None
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
  config: ModelConfig, start: Int[Array, "B _"], shape: tuple[int, int, int]
) -> Float[Array, "B GT H/2"]:
  batch, members, length = shape
  positions = jnp.broadcast_to(start[..., None] + jnp.arange(length), shape)
  stream = positions.reshape(batch, members * length)
  return text_angles(config.text, jnp.broadcast_to(stream, (3, *stream.shape)))


def _attend_prompt(
  config: ModelConfig,
  queries: Float[Array, "B P N H"],
  keys: Float[Array, "B P K H"],
  values: Float[Array, "B P K H"],
) -> tuple[Float[Array, "B P N H"], tuple[Float[Array, "B K P H"], Float[Array, "B K P H"]]]:
  """Causal attention within prompts; returns the keys and values of a prefix, too."""
  own = KeySet(group_keys(keys, 1), group_keys(values, 1), Causal())
  out = attend(config, queries[:, None], [own])[:, 0]
  return out, (own.keys[:, :, 0], own.values[:, :, 0])


def _attend_continuations(
  config: ModelConfig,
  queries: Float[Array, "B GT N H"],
  keys: Float[Array, "B GT K H"],
  values: Float[Array, "B GT K H"],
  members: int,
  prompt: tuple[Float[Array, "B K P H"], Float[Array, "B K P H"]],
  lengths: Int[Array, " B"],
  earlier: KeySet | None = None,
) -> tuple[Float[Array, "B GT N H"], tuple[Float[Array, "B K G T H"], Float[Array, "B K G T H"]]]:
  """Attention of continuations to their prompts, to earlier tokens and causally to themselves.

  Returns their keys and values, too.
  """
  own = KeySet(group_keys(keys, members), group_keys(values, members), Causal())
  key_sets = [KeySet(*prompt, Lengths(lengths)), own]
  if earlier is not None:
    key_sets.insert(1, earlier)
  by_member = queries.reshape(len(queries), members, -1, *queries.shape[2:])
  return attend(config, by_member, key_sets).reshape(queries.shape), (own.keys, own.values)


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
