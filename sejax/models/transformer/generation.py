"""Forward passes of the decoder, in which G continuations share the prefix of each prompt.

`prefill` computes the keys and values of prompts, `extend` runs tokens of G continuations of each
prompt, and `forward` does both in one pass for training; `decode` runs one more token of each
continuation. Continuations attend to the keys of their prompt where they are.

Axes: B prompts, G continuations of each prompt, P prompt tokens, T new tokens, L layers, N query
heads, K key-value heads, H head size, D hidden size, V vocabulary, s image features; in decoding as
in `state`. GT stands for the tokens of all continuations of a prompt, one continuation after the
other. Prompts are padded on the right.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from sejax.models.transformer import decoder, paged_attention
from sejax.models.transformer.attention import Causal, KeySet, Lengths, attend, group_keys
from sejax.models.transformer.config import ModelConfig
from sejax.models.transformer.params import Params
from sejax.models.transformer.rope import text_angles
from sejax.models.transformer.state import (
  BatchTable,
  DeepstackFeatures,
  Pages,
  Prefix,
  Prompt,
  Recent,
)

Features = Float[Array, "B s D"] | DeepstackFeatures


def prefill(
  params: Params, config: ModelConfig, prompt: Prompt, features: Features | None = None
) -> tuple[Prefix, Float[Array, "B V"]]:
  """Prefills prompts: computes the keys and values that continuations attend to.

  Args:
    features: image features from `encode`; None without images.

  Returns:
    The prefix to continue from, and fp32 logits of the first token after each prompt.
  """
  x, deepstack = embed_prompt(params, config, prompt, features)

  def attention(queries, keys, values, _):
    return _attend_prompt(config, queries, keys, values)

  angles = text_angles(config.text, prompt.positions)
  hidden, kept = decoder.run_layers(
    params["decoder"], config, x, angles, attention, deepstack=deepstack
  )
  keys, values = _by_kind(kept)
  last = select_last(hidden, prompt.lengths)
  prefix = Prefix(
    keys=keys,
    values=values,
    lengths=prompt.lengths,
    next_position=next_position(prompt),
    last_hidden=last,
  )
  return prefix, logits(params, last)


def extend(
  params: Params,
  config: ModelConfig,
  prefix: Prefix,
  tokens: Int[Array, "B G T"],
  prompts: Int[Array, "N U"] | None = None,
) -> tuple[Float[Array, "B G T D"], Pages]:
  """Extends the G continuations of each prompt by their first T tokens.

  A token attends to its prompt and to the tokens before it. Gradients flow through the prefix.

  Args:
    params: parameter tree; with layers in a list if the prefix is a tuple of layers.
    prefix: from `prefill`, of the same B prompts.
    tokens: first tokens, padded on the right. Hidden states of padding mean nothing.
    prompts: prompts of the B = N x U rows among those of the prefix, indexed within each of N row
      shards; None if these are the same. The prompt's keys are copied for each row, layer by layer.

  Returns:
    Hidden states after the final norm, and the tokens' keys and values, `[L,B,K,G,T,H]` or a tuple
    of layers.
  """
  batch, members, _ = tokens.shape

  def of_rows(x):
    return x if prompts is None else _take_in_shards(x, prompts)

  lengths = of_rows(prefix.lengths)

  def attention(queries, keys, values, layer_prefix):
    return _attend_continuations(
      config,
      queries,
      keys,
      values,
      members=members,
      prompt=tuple(map(of_rows, layer_prefix)),
      prompt_lengths=lengths,
    )

  is_layered = isinstance(prefix.keys, tuple)
  extra = (prefix.keys, prefix.values)
  hidden, kept = decoder.run_layers(
    params["decoder"],
    config,
    embed(params, tokens.reshape(batch, -1)),
    _continuation_angles(config, of_rows(prefix.next_position)[:, None], tokens.shape),
    attention,
    extra=list(zip(*extra, strict=True)) if is_layered else extra,
  )
  return hidden.reshape(*tokens.shape, -1), Pages(*_by_kind(kept))


def decode(
  params: Params,
  config: ModelConfig,
  tokens: Int[Array, " NR"],
  *,
  prefix: Prefix,
  pages: Pages,
  recent: Recent,
  table: BatchTable,
  shards: int,
) -> tuple[Float[Array, "NR D"], Recent]:
  """Runs the next token of each row of a batch, which attends to all before it.

  Args:
    params: parameter tree in the form for decoding, see `ModelConfig.layered_cache`.
    prefix: prompts of the rows, in the form for decoding, as are pages and recent tokens.
    recent: tokens of this decode run so far; there must be room for one more.
    table: what each row attends to.
    shards: row shards, N.

  Returns:
    Hidden states after the final norm, and the recent tokens with the new ones added.
  """

  def attention(queries, keys, values, layer):
    new = keys[:, 0], values[:, 0]
    out = paged_attention.attend(
      queries[:, 0],
      paged_attention.LayerKeys(*layer, *new),
      table,
      prefix.lengths,
      recent.count,
      shards=shards,
    )
    return out[:, None], new

  start = _take_in_shards(prefix.next_position, table.prompt.reshape(shards, -1))
  extra = tuple(x for kind in (prefix, pages, recent) for x in (kind.keys, kind.values))
  hidden, kept = decoder.run_layers(
    params["decoder"],
    config,
    embed(params, tokens[:, None]),
    _continuation_angles(
      config, (start + table.lengths + recent.count)[:, None], (*tokens.shape, 1, 1)
    ),
    attention,
    extra=list(zip(*extra, strict=True)) if isinstance(pages.keys, tuple) else extra,
  )
  new_keys, new_values = _by_kind(kept)

  def write(x, new):
    return jax.lax.dynamic_update_slice_in_dim(x, new[..., None, :], recent.count, axis=x.ndim - 2)

  added = Recent(
    keys=jax.tree.map(write, recent.keys, new_keys),
    values=jax.tree.map(write, recent.values, new_values),
    count=recent.count + 1,
  )
  return hidden[:, 0], added


def forward(
  params: Params,
  config: ModelConfig,
  prompt: Prompt,
  features: Features | None,
  tokens: Int[Array, "B G T"],
) -> tuple[Float[Array, "B D"], Float[Array, "B G T D"]]:
  """Runs prompts and their continuations in one pass, for training.

  Computes the same as `prefill` followed by `extend`, but in a single scan over layers. A prompt's
  keys then never leave their layer, which needs less memory in the backward pass, and the matrix
  products are larger.

  Args:
    features: image features from `encode`; None without images.
    tokens: continuations, padded on the right.

  Returns:
    Hidden states after the final norm: of each prompt's last token, and of all new tokens.
  """
  batch, members, _ = tokens.shape
  length = prompt.ids.shape[1]

  def attention(queries, keys, values, _):
    prompt_queries, new_queries = queries[:, :length], queries[:, length:]
    prompt_keys, new_keys = keys[:, :length], keys[:, length:]
    prompt_values, new_values = values[:, :length], values[:, length:]
    prompt_out, prompt_prefix = _attend_prompt(config, prompt_queries, prompt_keys, prompt_values)
    out, _ = _attend_continuations(
      config,
      new_queries,
      new_keys,
      new_values,
      members=members,
      prompt=prompt_prefix,
      prompt_lengths=prompt.lengths,
    )
    return jnp.concatenate([prompt_out, out], axis=1), None

  x, deepstack = embed_prompt(params, config, prompt, features)
  x = jnp.concatenate([x, embed(params, tokens.reshape(batch, -1))], axis=1)
  angles = jnp.concatenate(
    [
      text_angles(config.text, prompt.positions),
      _continuation_angles(config, next_position(prompt)[:, None], tokens.shape),
    ],
    axis=1,
  )
  hidden, _ = decoder.run_layers(
    params["decoder"], config, x, angles, attention, deepstack=deepstack
  )
  last = select_last(hidden[:, :length], prompt.lengths)
  return last, hidden[:, length:].reshape(*tokens.shape, -1)


def select_last(hidden: Float[Array, "*b T D"], lengths: Int[Array, "*b"]) -> Float[Array, "*b D"]:
  """Returns the hidden state of each row's last token before padding.

  Args:
    lengths: number of tokens without padding; for 0 the first hidden state is returned.
  """
  index = jnp.maximum(lengths - 1, 0)[..., None, None]
  return jnp.take_along_axis(hidden, index, axis=-2)[..., 0, :]


def logits(params: Params, hidden: Float[Array, "*b D"]) -> Float[Array, "*b V"]:
  """Computes fp32 logits of the next token, with the output head or the tied embedding."""
  if "lm_head" in params:
    return jnp.matmul(hidden, params["lm_head"]["kernel"], preferred_element_type=jnp.float32)
  embedding = params["decoder"]["embed"]["embedding"]
  # The embedding comes first because XLA:CPU would transpose the second operand at every call.
  out = jnp.einsum("vd,...d->v...", embedding, hidden, preferred_element_type=jnp.float32)
  return jnp.moveaxis(out, 0, -1)


def embed(params: Params, ids: Int[Array, "B S"]) -> Float[Array, "B S D"]:
  """Embeds tokens."""
  return params["decoder"]["embed"]["embedding"][ids]


def embed_prompt(
  params: Params, config: ModelConfig, prompt: Prompt, features: Features | None
) -> tuple[Float[Array, "B P D"], tuple[Float[Array, "B P D"], ...]]:
  """Embeds prompts; the n-th image token of a row becomes the row's n-th image feature.

  Returns:
    The embeddings, and for each level of deepstack features what is added to the hidden states.
  """
  x = embed(params, prompt.ids)
  if features is None:
    return x, ()
  levels: tuple[Array, ...] = ()
  if isinstance(features, DeepstackFeatures):
    features, levels = features
  # Padding may hold any id, image tokens too; these must not take up features.
  real = jnp.arange(prompt.ids.shape[1]) < prompt.lengths[:, None]
  is_image = (real & (prompt.ids == config.image_token_id))[..., None]
  rank = jnp.clip(jnp.cumsum(is_image, axis=1) - 1, 0, features.shape[1] - 1)

  def at_tokens(rows: Float[Array, "B s D"]) -> Float[Array, "B P D"]:
    return jnp.take_along_axis(rows.astype(x.dtype), rank, axis=1)

  deepstack = tuple(jnp.where(is_image, at_tokens(level), 0) for level in levels)
  return jnp.where(is_image, at_tokens(features), x), deepstack


def next_position(prompt: Prompt) -> Int[Array, " B"]:
  """Returns one past the largest position of each row, as HF's `rope_deltas` does."""
  real = jnp.arange(prompt.ids.shape[1]) < prompt.lengths[:, None]
  return jnp.where(real, prompt.positions, -1).max(axis=(0, 2)) + 1


def _continuation_angles(
  config: ModelConfig, start: Int[Array, "B _"], shape: tuple[int, int, int]
) -> Float[Array, "B GT H/2"]:
  """Returns the rotation angles of continuations.

  Args:
    start: position of each continuation's first token; one for all of a prompt broadcasts.
    shape: B, G and T.
  """
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
  """Computes causal attention within prompts; also returns keys and values in prefix layout."""
  own = KeySet(group_keys(keys, 1), group_keys(values, 1), Causal())
  out = attend(config, queries[:, None], [own])[:, 0]
  return out, (own.keys[:, :, 0], own.values[:, :, 0])


def _attend_continuations(
  config: ModelConfig,
  queries: Float[Array, "B GT N H"],
  keys: Float[Array, "B GT K H"],
  values: Float[Array, "B GT K H"],
  *,
  members: int,
  prompt: tuple[Float[Array, "B K P H"], Float[Array, "B K P H"]],
  prompt_lengths: Int[Array, " B"],
) -> tuple[Float[Array, "B GT N H"], tuple[Float[Array, "B K G T H"], Float[Array, "B K G T H"]]]:
  """Computes attention of continuations to their prompt and, causally, to themselves.

  Args:
    members: continuations of each prompt, G.
    prompt: keys and values of the prompts.

  Returns:
    The attention, and the continuations' own keys and values in cache layout.
  """
  own = KeySet(group_keys(keys, members), group_keys(values, members), Causal())
  key_sets = [KeySet(*prompt, Lengths(prompt_lengths)), own]
  by_member = queries.reshape(len(queries), members, -1, *queries.shape[2:])
  return attend(config, by_member, key_sets).reshape(queries.shape), (own.keys, own.values)


def _by_kind(kept: Any) -> tuple[Any, Any]:
  """Returns the keys and the values of all layers: stacked, or each a tuple of layers."""
  return tuple(zip(*kept, strict=True)) if isinstance(kept, list) else kept


def _take_in_shards(
  x: Shaped[Array, "NB ..."], index: Int[Array, "N U"]
) -> Shaped[Array, "NU ..."]:
  """Takes entries of an array whose indices count within each of N row shards."""
  by_shard = x.reshape(len(index), -1, *x.shape[1:])
  taken = jax.vmap(lambda x, index: x[index])(by_shard, index)
  return taken.reshape(-1, *x.shape[1:])
