"""Softmax attention over several sets of keys, computed in chunks of queries by XLA.

The queries of G continuations attend to the keys of their shared prompt and to their own. Each set
keeps its own layout, so shared keys are never copied: scores are computed set by set and combined
in one softmax, with a common maximum and a common sum (equal to merging by log-sum-exp). Query
heads are grouped by the key-value head that they use (r = N / K), so keys are not repeated either.

Scores and softmax are fp32. A masked score is a large finite number instead of minus infinity, so
that a query without any key (only padding has none) gets a finite output and gradient.

Axes as in `attention`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

MASKED = -1e30


class MaskedKeys(NamedTuple):
  """A set of S keys and values, shared by the G members of a row or one for each.

  Attributes:
    keys: `[B,K,S,H]` if shared, `[B,K,G,S,H]` if not.
    values: shaped like `keys`.
    visible: mask as a function of query indices, see `attention.Visible`.
  """

  keys: Float[Array, "B K ... S H"]
  values: Float[Array, "B K ... S H"]
  visible: Callable[[Int[Array, " C"]], Bool[Array, "#B #G #C S"]]


def attend(
  queries: Float[Array, "B K G r T H"], key_sets: Sequence[MaskedKeys], chunk: int
) -> Float[Array, "B K G r T H"]:
  """Computes attention to all key sets, for `chunk` queries of a row at a time.

  Chunks run one after the other and are recomputed in the backward pass, so that the scores of only
  one chunk exist at once.

  Args:
    chunk: number of queries of a row, out of G x T, that are computed at once.
  """
  members, length = queries.shape[2], queries.shape[4]
  chunks = -(-members * length // chunk)
  if chunks <= 1:
    return _attend(queries, jnp.arange(length), key_sets)
  size = -(-length // chunks)
  chunks = -(-length // size)
  padded = jnp.pad(queries, [(0, 0)] * 4 + [(0, chunks * size - length), (0, 0)])
  split = jnp.moveaxis(padded.reshape(*queries.shape[:4], chunks, size, -1), 4, 0)
  # Padding queries get the mask of the last query, so that their outputs stay finite.
  indexes = jnp.minimum(jnp.arange(chunks * size), length - 1).reshape(chunks, size)
  # Keys and values enter the loop in fp32 and are cast inside, so that their gradients are summed
  # over chunks in fp32.
  fp32_sets = [
    s._replace(keys=s.keys.astype(jnp.float32), values=s.values.astype(jnp.float32))
    for s in key_sets
  ]

  @jax.checkpoint
  def attend_chunk(inputs):
    chunk_queries, chunk_indexes = inputs
    dtype = queries.dtype
    cast = [s._replace(keys=s.keys.astype(dtype), values=s.values.astype(dtype)) for s in fp32_sets]
    return _attend(chunk_queries, chunk_indexes, cast)

  out = jnp.moveaxis(jax.lax.map(attend_chunk, (split, indexes)), 0, 4)
  return out.reshape(padded.shape)[..., :length, :]


def _attend(
  queries: Float[Array, "B K G r C H"], indexes: Int[Array, " C"], key_sets: Sequence[MaskedKeys]
) -> Float[Array, "B K G r C H"]:
  """Computes attention of one chunk of queries to all key sets."""
  scores = [_scores(queries, indexes, key_set) for key_set in key_sets]
  # The maximum cancels out of the result, so it needs no gradient.
  top = jax.lax.stop_gradient(
    functools.reduce(jnp.maximum, [s.max(axis=-1, keepdims=True) for s in scores])
  )
  weights = [jnp.exp(s - top) for s in scores]
  total = sum(w.sum(axis=-1, keepdims=True) for w in weights)
  out = sum(
    jnp.einsum(
      "bkgrts,bkgsh->bkgrth" if key_set.values.ndim == 5 else "bkgrts,bksh->bkgrth",
      w.astype(key_set.values.dtype),
      key_set.values,
      preferred_element_type=jnp.float32,
    )
    for w, key_set in zip(weights, key_sets, strict=True)
  )
  return (out / total).astype(queries.dtype)


def _scores(
  queries: Float[Array, "B K G r C H"], indexes: Int[Array, " C"], key_set: MaskedKeys
) -> Float[Array, "B K G r C S"]:
  """Returns the scaled and masked scores of one chunk of queries for one key set."""
  scores = jnp.einsum(
    "bkgrth,bkgsh->bkgrts" if key_set.keys.ndim == 5 else "bkgrth,bksh->bkgrts",
    queries,
    key_set.keys,
    preferred_element_type=jnp.float32,
  )
  visible = key_set.visible(indexes)[:, None, :, None]
  return jnp.where(visible, scores * queries.shape[-1] ** -0.5, MASKED)
