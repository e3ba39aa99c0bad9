"""Sums over the tokens of a micro-batch, divided by counts of the whole optimizer batch."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sejax.method.numerics import as_bool

AGGREGATIONS = (
  "token-mean",
  "seq-mean-token-sum",
  "seq-mean-token-mean",
  "seq-mean-token-sum-norm",
)


class Denominators(NamedTuple):
  """Counts of an optimizer batch by which the sums over tokens in a loss are divided.

  Attributes:
    tokens: number of unmasked tokens.
    sequences: number of sequences with an unmasked token, that is, without padding rows.
    max_tokens: the configured longest response, not the padded length of the batch.
  """

  tokens: Int[Array, ""]
  sequences: Int[Array, ""]
  max_tokens: int


def denominators(mask: Bool[Array, "*N R"], max_tokens: int) -> Denominators:
  """Counts the tokens and sequences of an optimizer batch.

  Args:
    mask: response tokens of the whole batch, of all micro-batches and shards. The counts of its
      parts may be added up instead.
    max_tokens: the configured longest response.

  Returns:
    The denominators for `policy_loss` of each micro-batch.
  """
  mask = as_bool(mask)
  return Denominators(
    tokens=jnp.sum(mask, dtype=jnp.int32),
    sequences=jnp.sum(jnp.any(mask, axis=-1), dtype=jnp.int32),
    max_tokens=max_tokens,
  )


def token_weights(
  mask: Bool[Array, "*N R"], aggregation: str, batch_counts: Denominators | None
) -> Float[Array, "*N R"]:
  """Returns the weight of each token in an aggregate, 0 where masked.

  Args:
    aggregation: one of `AGGREGATIONS`.
    batch_counts: of the whole optimizer batch; None if the mask is all of it.
  """
  counts = denominators(mask, mask.shape[-1]) if batch_counts is None else batch_counts
  sequences = jnp.asarray(counts.sequences, jnp.float32)
  match aggregation:
    case "token-mean":
      total = jnp.asarray(counts.tokens, jnp.float32)
    case "seq-mean-token-sum":
      total = sequences
    case "seq-mean-token-mean":
      total = sequences * jnp.sum(mask, axis=-1, keepdims=True)
    case "seq-mean-token-sum-norm":
      total = counts.max_tokens * (1.0 if batch_counts is None else sequences)
  return mask / jnp.maximum(total, 1.0)
