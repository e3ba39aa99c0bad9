"""Softmax attention over several sets of keys at once.

Queries of G continuations attend to keys they share (their prompt's) and to keys of their own. Each
set keeps its own layout, so shared keys are never copied; the partial softmaxes are merged exactly,
with one maximum and one sum over all sets (equal to merging by their log-sum-exps). Query heads are
grouped by the key head they use (r = N / K), so keys are not repeated either.

Scores and softmax are fp32. A masked score is a large finite number: a query that sees nothing, as
only padding does, gets a finite average, in the gradient too.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

MASKED = -1e30


class Keys(NamedTuple):
  """A set of S keys and values, shared by the G members of a group or with one set for each.

  Attributes:
    keys: `[B,K,S,H]` if shared, `[B,K,G,S,H]` if not.
    values: shaped like `keys`.
    visible: given indexes of C queries, says which keys each sees: `[B,G,C,S]`, or broadcastable to
      it. A function, so that a mask over all queries never exists.
  """

  keys: Float[Array, "B K ... S H"]
  values: Float[Array, "B K ... S H"]
  visible: Callable[[Int[Array, " C"]], Bool[Array, "#B #G #C S"]]


def attend(
  queries: Float[Array, "B K G r T H"], key_sets: Sequence[Keys], chunk: int
) -> Float[Array, "B K G r T H"]:
  """Attends to all key sets together, `chunk` queries of a row at a time.

  Several chunks run one after the other and are computed again in the backward pass, so that scores
  of one chunk are all that exists at once.

  Args:
    queries: G members of T queries for each of K key heads, r query heads to a key head.
    key_sets: what they attend to.
    chunk: queries of one row (G x T of them) that are computed at once.
  """
  members, length = queries.shape[2], queries.shape[4]
  chunks = -(-members * length // chunk)
  if chunks <= 1:
    return _attend(queries, jnp.arange(length), key_sets)
  size = -(-length // chunks)
  chunks = -(-length // size)
  padded = jnp.pad(queries, [(0, 0)] * 4 + [(0, chunks * size - length), (0, 0)])
  split = jnp.moveaxis(padded.reshape(*queries.shape[:4], chunks, size, -1), 4, 0)
  # Padding queries see what the last query sees, so that they stay finite.
  indexes = jnp.minimum(jnp.arange(chunks * size), length - 1).reshape(chunks, size)
  # Narrowed inside the loop, so that the gradients of keys are summed over chunks in fp32.
  wide = [
    s._replace(keys=s.keys.astype(jnp.float32), values=s.values.astype(jnp.float32))
    for s in key_sets
  ]

  @jax.checkpoint
  def body(xs):
    dtype = queries.dtype
    narrow = [s._replace(keys=s.keys.astype(dtype), values=s.values.astype(dtype)) for s in wide]
    return _attend(*xs, narrow)

  out = jnp.moveaxis(jax.lax.map(body, (split, indexes)), 0, 4)
  return out.reshape(padded.shape)[..., :length, :]


def _attend(
  queries: Float[Array, "B K G r C H"], indexes: Int[Array, " C"], key_sets: Sequence[Keys]
) -> Float[Array, "B K G r C H"]:
  scores = [_scores(queries, indexes, key_set) for key_set in key_sets]
  # The maximum cancels from the result, so it needs no gradient.
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
  queries: Float[Array, "B K G r C H"], indexes: Int[Array, " C"], key_set: Keys
) -> Float[Array, "B K G r C S"]:
  scores = jnp.einsum(
    "bkgrth,bkgsh->bkgrts" if key_set.keys.ndim == 5 else "bkgrth,bksh->bkgrts",
    queries,
    key_set.keys,
    preferred_element_type=jnp.float32,
  )
  visible = key_set.visible(indexes)[:, None, :, None]
  return jnp.where(visible, scores * queries.shape[-1] ** -0.5, MASKED)
