"""Attention of continuations to shared and own keys: chooses between XLA's and cuDNN's.

Queries of G continuations attend to several sets of keys at once: keys they share (their prompt's)
and keys of their own. What a query sees of a set is said by a `Mask`, so that the choice is made
here: by `cudnn_attention` where the device and the shapes allow it, else by `chunked_attention`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sejax.models.transformer import chunked_attention, cudnn_attention
from sejax.models.transformer.config import ModelConfig


class Causal:
  """Query t sees keys 0 to t of its own sequence."""


@dataclasses.dataclass(frozen=True)
class Lengths:
  """Every query sees the first `lengths[b]` keys of row b."""

  lengths: Int[Array, " B"]


# Given the indexes of C queries, returns which keys each of them sees: `[B,G,C,S]`, or
# broadcastable to it. A function, so that a mask over all queries never exists.
Visible = Callable[[Int[Array, " C"]], Bool[Array, "#B #G #C S"]]
Mask = Causal | Lengths | Visible


class KeySet(NamedTuple):
  """S keys and values, shared by the G members of a group or with one set for each.

  Attributes:
    keys: `[B,K,S,H]` if shared, `[B,K,G,S,H]` if not.
    values: shaped like `keys`.
    mask: what each query sees.
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
  """Attends to all key sets together, with one softmax over all of them.

  Args:
    config: says whether cuDNN may be used, and where rows lie on a mesh.
    queries: G members of T queries each; N is a multiple of K.
    key_sets: what they attend to.
    chunk: queries of a row that are computed at once; by default `config.query_chunk`.
  """
  if cudnn_attention.usable(config, queries.dtype, queries.shape[2]):
    match key_sets:
      case [KeySet(keys, values, Causal())] if keys.ndim == 5:
        return cudnn_attention.attend_prompts(config, queries, keys, values)
      case [
        KeySet(prompt_keys, prompt_values, Lengths(lengths)),
        KeySet(keys, values, Causal()),
      ] if (prompt_keys.ndim, keys.ndim) == (4, 5):
        return cudnn_attention.attend_continuations(
          config, queries, keys, values, prompt_keys, prompt_values, lengths
        )
  sets = [chunked_attention.Keys(keys.keys, keys.values, _visible(keys)) for keys in key_sets]
  grouped = _group_queries(queries, key_sets[0].keys.shape[1])
  return _ungroup(chunked_attention.attend(grouped, sets, chunk or config.query_chunk))


def _visible(key_set: KeySet) -> Visible:
  size = key_set.keys.shape[-2]
  match key_set.mask:
    case Causal():
      return lambda index: (jnp.arange(size) <= index[:, None])[None, None]
    case Lengths(lengths):
      return lambda _: (jnp.arange(size) < lengths[:, None])[:, None, None]
    case visible:
      return visible


def _group_queries(
  queries: Float[Array, "B G T N H"], kv_heads: int
) -> Float[Array, "B K G r T H"]:
  """Groups query heads by the key head they use; r = N / K."""
  batch, members, length, heads, width = queries.shape
  shape = (batch, members, length, kv_heads, heads // kv_heads, width)
  return jnp.transpose(queries.reshape(shape), (0, 3, 1, 4, 2, 5))


def _ungroup(out: Float[Array, "B K G r T H"]) -> Float[Array, "B G T N H"]:
  batch, kv_heads, members, ratio, length, width = out.shape
  order = jnp.transpose(out, (0, 2, 4, 1, 3, 5))
  return order.reshape(batch, members, length, kv_heads * ratio, width)


def group_keys(keys: Float[Array, "B S K H"], members: int) -> Float[Array, "B K G T H"]:
  """Returns keys or values of G members, T each, in the layout that a `KeySet` holds."""
  batch, size, kv_heads, width = keys.shape
  shape = (batch, members, size // members, kv_heads, width)
  return jnp.transpose(keys.reshape(shape), (0, 3, 1, 2, 4))
