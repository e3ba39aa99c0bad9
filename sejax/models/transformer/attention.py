"""Attention over several sets of keys; chooses between cuDNN's kernel and chunked XLA attention.

The queries of G continuations attend to several sets of keys at once: those of their shared prompt
and their own. Masks are described by a type (`Causal`, `Lengths`, `Segments` or a function), so
that `attend` can recognise what cuDNN's kernel supports. All others use `chunked_attention`.

Axes: B rows, G members (continuations of a prompt), T queries of a member, S keys, I segments of a
row, C queries of a chunk, N query heads, K key-value heads, r = N / K, H head size.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sejax.models.transformer import chunked_attention, cudnn_attention
from sejax.models.transformer.config import ModelConfig


class Causal:
  """Mask: query t attends to keys 0 to t of its own member."""


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Mask: every query of row b attends to the first `lengths[b]` keys."""

  lengths: Int[Array, " B"]


@dataclasses.dataclass(frozen=True)
class Segments:
  """Mask: queries and keys of a row are cut into the same segments, and attend within these.

  Segments follow each other from the start of a row. What comes after the last is padding: its
  outputs are finite, and nothing else.
  """

  lengths: Int[Array, "B I"]

  def of_tokens(self, size: int) -> Int[Array, "B S"]:
    """Returns the index of each token's segment; that of padding is I."""
    ends = jnp.cumsum(self.lengths, axis=1)
    return (jnp.arange(size)[:, None] >= ends[:, None]).sum(axis=-1)


# Mask as a function: given the indices of C queries, returns which keys each attends to, as
# `[B,G,C,S]` or an array that broadcasts to it. The mask over all queries never exists at once.
Visible = Callable[[Int[Array, " C"]], Bool[Array, "#B #G #C S"]]
Mask = Causal | Lengths | Segments | Visible


class KeySet(NamedTuple):
  """A set of S keys and values with a mask, shared by the G members of a row or one for each.

  Attributes:
    keys: `[B,K,S,H]` if shared, `[B,K,G,S,H]` if not.
    values: shaped like `keys`.
    mask: which keys each query attends to.
  """

  keys: Float[Array, "B K ... S H"]
  values: Float[Array, "B K ... S H"]
  mask: Mask


def attend(
  config: ModelConfig,
  queries: Float[Array, "B G T N H"],
  key_sets: Sequence[KeySet],
  chunk: int | None = None,
) -> Float[Array, "B G T N H"]:
  """Computes attention with one softmax over all key sets.

  Args:
    config: `fused_attention`, `query_chunk` and `rows` are used.
    queries: N must be a multiple of K.
    chunk: queries of a row that are computed at once; None is `config.query_chunk`.
  """
  if cudnn_attention.usable(config, queries.dtype, queries.shape[2], queries.shape[4]):
    match key_sets:
      case [KeySet(keys, values, Segments(lengths))] if (
        queries.shape[1] == 1 and lengths.shape[1] <= cudnn_attention.MAX_SEGMENTS
      ):
        return cudnn_attention.attend_segments(
          config, queries[:, 0], keys.swapaxes(1, 2), values.swapaxes(1, 2), lengths
        )[:, None]
      case [KeySet(keys, values, Causal())] if keys.ndim == 5:
        return cudnn_attention.attend_prompts(config, queries, keys, values)
      case [
        KeySet(prompt_keys, prompt_values, Lengths(lengths)),
        KeySet(keys, values, Causal()),
      ] if (prompt_keys.ndim, keys.ndim) == (4, 5):
        return cudnn_attention.attend_continuations(
          config,
          queries,
          keys,
          values,
          prompt_keys=prompt_keys,
          prompt_values=prompt_values,
          prompt_lengths=lengths,
        )
  sets = [chunked_attention.MaskedKeys(keys.keys, keys.values, _visible(keys)) for keys in key_sets]
  grouped = group_queries(queries, key_sets[0].keys.shape[1])
  return ungroup(chunked_attention.attend(grouped, sets, chunk or config.query_chunk))


def _visible(key_set: KeySet) -> Visible:
  """Converts a mask to its function form."""
  size = key_set.keys.shape[-2]
  match key_set.mask:
    case Causal():
      return lambda index: (jnp.arange(size) <= index[:, None])[None, None]
    case Lengths(lengths):
      return lambda _: (jnp.arange(size) < lengths[:, None])[:, None, None]
    case Segments() as segments:
      of_keys = segments.of_tokens(size)
      return lambda index: of_keys[:, None, index, None] == of_keys[:, None, None]
    case visible:
      return visible


def group_queries(queries: Float[Array, "B G T N H"], kv_heads: int) -> Float[Array, "B K G r T H"]:
  """Groups query heads by the key-value head that they use."""
  batch, members, length, heads, width = queries.shape
  shape = (batch, members, length, kv_heads, heads // kv_heads, width)
  return jnp.transpose(queries.reshape(shape), (0, 3, 1, 4, 2, 5))


def ungroup(out: Float[Array, "B K G r T H"]) -> Float[Array, "B G T N H"]:
  """Inverts `group_queries`."""
  batch, kv_heads, members, ratio, length, width = out.shape
  order = jnp.transpose(out, (0, 2, 4, 1, 3, 5))
  return order.reshape(batch, members, length, kv_heads * ratio, width)


def group_keys(keys: Float[Array, "B S K H"], members: int) -> Float[Array, "B K G T H"]:
  """Converts keys or values to the layout of a `KeySet`.

  Args:
    keys: keys or values of G members with T tokens each, one member after the other; S = G x T.
    members: G.
  """
  batch, size, kv_heads, width = keys.shape
  shape = (batch, members, size // members, kv_heads, width)
  return jnp.transpose(keys.reshape(shape), (0, 3, 1, 2, 4))
