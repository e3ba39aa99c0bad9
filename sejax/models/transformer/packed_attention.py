"""Attention within packed rows: of prompts, and of continuations to their prompt and themselves.

The queries of a block attend to two sets of keys: those of their prompt, and their own block with
as many tokens before it as the longest sequence has, of which those of the same sequence count.
With cuDNN's kernel, each sequence becomes a padded row instead, and only attention is padded.

Axes: as in `packing`; and Q queries of a block, M blocks computed at once, W keys before a block, H
head size. Query heads and key-value heads are called heads and K.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sejax.models.transformer import chunked_attention, cudnn_attention
from sejax.models.transformer.attention import group_keys, group_queries, ungroup
from sejax.models.transformer.config import ModelConfig
from sejax.models.transformer.packing import (
  Packing,
  pack,
  unpack_continuations,
  unpack_prompts,
)


def attend(
  config: ModelConfig,
  queries: Float[Array, "N C heads H"],
  keys: Float[Array, "N C K H"],
  values: Float[Array, "N C K H"],
  *,
  packing: Packing,
  prompt_size: int,
  continuation_size: int,
  block: int,
) -> Float[Array, "N C heads H"]:
  """Computes causal attention within each sequence, and of continuations to their prompt.

  Args:
    config: `fused_attention`, `query_chunk` and `rows` are used.
    queries: rotated, like the keys.
    prompt_size: maximum number of tokens of a prompt, P.
    continuation_size: maximum number of tokens of a continuation, R.
    block: tokens of a block, Q; must divide C.
  """
  if cudnn_attention.usable(config, queries.dtype, continuation_size, queries.shape[3]):
    return _attend_by_sequence(
      config, queries, keys, values, packing, prompt_size, continuation_size
    )
  before = -(-max(prompt_size, continuation_size) // block) * block
  return _attend_by_block(
    config, queries, (keys, values), packing, prompt_size=prompt_size, before=before, block=block
  )


def _attend_by_sequence(
  config: ModelConfig,
  queries: Float[Array, "N C heads H"],
  keys: Float[Array, "N C K H"],
  values: Float[Array, "N C K H"],
  packing: Packing,
  prompt_size: int,
  continuation_size: int,
) -> Float[Array, "N C heads H"]:
  """Computes it with a padded row for each sequence."""
  kinds = (queries, keys, values)
  prompts = [unpack_prompts(packing, x, prompt_size) for x in kinds]
  own = [unpack_continuations(packing, x, continuation_size) for x in kinds]
  prompt_keys, prompt_values = (group_keys(x, 1) for x in prompts[1:])
  own_keys, own_values = (jnp.moveaxis(x, 3, 1) for x in own[1:])
  lengths = packing.lengths.reshape(-1, packing.lengths.shape[2])
  prompt_out = cudnn_attention.attend_prompts(
    config, prompts[0][:, None], prompt_keys, prompt_values, lengths[:, :1]
  )
  out = cudnn_attention.attend_continuations(
    config,
    own[0],
    own_keys,
    own_values,
    prompt_keys=prompt_keys[:, :, 0],
    prompt_values=prompt_values[:, :, 0],
    prompt_lengths=lengths[:, 0],
    lengths=lengths[:, 1:],
  )
  return pack(packing, prompt_out[:, 0], out)


def _attend_by_block(
  config: ModelConfig,
  queries: Float[Array, "N C heads H"],
  keys_and_values: tuple[Float[Array, "N C K H"], Float[Array, "N C K H"]],
  packing: Packing,
  *,
  prompt_size: int,
  before: int,
  block: int,
) -> Float[Array, "N C heads H"]:
  """Computes it for a few blocks at a time; they are recomputed in the backward pass.

  Args:
    before: keys before a block that its queries may attend to, W; a multiple of the block.
  """
  rows, size, heads, width = queries.shape
  kv_heads, dtype = keys_and_values[0].shape[2], queries.dtype
  at_once = min(size // block, max(1, config.query_chunk // block))
  chunks = -(-size // (block * at_once))
  padding = chunks * at_once * block - size
  # Keys and values enter the loop in fp32 and are cast inside, so that their gradients are summed
  # over chunks in fp32.
  wide = [x.astype(jnp.float32) for x in keys_and_values]
  prompts = [jnp.moveaxis(_prompts(x, packing, prompt_size), 3, 2) for x in wide]
  own = [jnp.pad(x, [(0, 0), (before, padding), (0, 0), (0, 0)]) for x in wide]
  own_sequence = jnp.pad(packing.sequence, [(0, 0), (before, padding)], constant_values=-1)

  def split(x):  # [N,C,...] -> [chunks,N,M,Q,...]
    x = jnp.pad(x, [(0, 0), (0, padding)] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(rows, chunks, at_once, block, *x.shape[2:]), 1, 0)

  def by_block(x):  # [N,M,...] -> [NM,...]
    return x.reshape(rows * at_once, *x.shape[2:])

  @jax.checkpoint
  def attend_chunk(inputs):
    number, chunk, sequence, group, is_continuation = jax.lax.optimization_barrier(inputs)
    start, length = number * at_once * block, before + at_once * block

    def windows(x):  # [N,W+C,...] -> [NM,W+Q,...]
      near = jax.lax.dynamic_slice_in_dim(x, start, length, axis=1)
      near = near.reshape(rows, -1, block, *x.shape[2:])
      count = before // block + 1
      shifted = [near[:, first : first + at_once] for first in range(count)]
      return by_block(jnp.concatenate(shifted, axis=2))

    def own_visible(index):
      causal = jnp.arange(before + block) <= before + index[:, None]
      same = windows(own_sequence)[:, None] == by_block(sequence)[..., None]
      return (causal & same)[:, None]

    def prompt_visible(_):
      lengths = by_block(jnp.take_along_axis(packing.lengths[..., 0], group[..., 0], axis=1))
      real = jnp.arange(prompt_size) < lengths[:, None]
      return (real[:, None] & by_block(is_continuation)[..., None])[:, None]

    def of_group(x):  # [N,U,...] -> [NM,...]
      return by_block(jax.vmap(lambda x, index: x[index])(x, group[..., 0])).astype(dtype)

    own_keys, own_values = (jnp.moveaxis(windows(x), 2, 1).astype(dtype) for x in own)
    sets = [
      chunked_attention.MaskedKeys(*map(of_group, prompts), prompt_visible),
      chunked_attention.MaskedKeys(own_keys, own_values, own_visible),
    ]
    out = chunked_attention.attend(group_queries(by_block(chunk)[:, None], kv_heads), sets, block)
    return ungroup(out).reshape(chunk.shape)

  inputs = map(split, (queries, packing.sequence, packing.group, packing.is_continuation))
  out = jax.lax.map(attend_chunk, (jnp.arange(chunks), *inputs))
  return jnp.moveaxis(out, 0, 1).reshape(rows, -1, heads, width)[:, :size]


def _prompts(
  x: Float[Array, "N C K H"], packing: Packing, length: int
) -> Float[Array, "N U P K H"]:
  """Returns what belongs to the prompts; what comes after them in the row at their padding."""
  padded = jnp.pad(x, [(0, 0), (0, length), (0, 0), (0, 0)])

  def cut(row: Float[Array, "C K H"], start: Int[Array, ""]) -> Float[Array, "P K H"]:
    return jax.lax.dynamic_slice_in_dim(row, start, length)

  return jax.vmap(jax.vmap(cut, (None, 0)))(padded, packing.starts[..., 0])
