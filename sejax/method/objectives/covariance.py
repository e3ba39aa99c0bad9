"""Clip-Cov and KL-Cov (arXiv:2505.22617): restrain the tokens that lower the entropy most.

These are the tokens with a large covariance of log-prob and advantage,

    cov = (A - mean A) (logp - mean logp)

whose means, and the number of tokens that are chosen, are those of a micro-batch, as in verl. The
losses are then divided by counts of the whole optimizer batch. So these two objectives, alone of
all, depend on how a batch is cut into micro-batches.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from sejax.method.numerics import OVERFLOW, clip, exp_clipped, keep
from sejax.method.objectives.surrogate import Surrogate, Tokens


def clip_cov(
  tokens: Tokens,
  dropped: Bool[Array, "*N R"],
  *,
  clip_low: float,
  clip_high: float,
) -> Surrogate:
  """Returns the clipped loss, times 0 for the dropped tokens, which stay in the denominators.

  Args:
    dropped: from `draw` among `candidates`; these are what counts as clipped.
  """
  unclipped, clipped, ratio = _clipped_loss(tokens, clip_low, clip_high)
  loss = jnp.where(dropped, 0.0, jnp.maximum(unclipped, clipped))
  return Surrogate(
    loss=tokens.weight * loss,
    ratio=ratio,
    clipped=dropped,
    clipped_lower=jnp.zeros_like(tokens.mask),
    drift=tokens.old_logp - tokens.logp,
  )


def candidates(
  tokens: Tokens, *, clip_low: float, clip_high: float, lowest: float, highest: float
) -> Bool[Array, "*N R"]:
  """Returns the tokens that Clip-Cov may drop: lowest < cov < highest, and not clipped already."""
  unclipped, clipped, _ = _clipped_loss(tokens, clip_low, clip_high)
  cov = covariances(tokens)
  return tokens.mask & (cov > lowest) & (cov < highest) & ~(clipped > unclipped)


def draw(
  key: Key[Array, ""], among: Bool[Array, "*N R"], count: Int[Array, ""]
) -> Bool[Array, "*N R"]:
  """Returns so many of the given tokens, drawn at random without replacement; all if fewer."""
  order = jnp.where(among, jax.random.uniform(key, among.shape), jnp.inf)
  return among & (_ranks(order) < count)


def kl_cov(tokens: Tokens, penalized: Bool[Array, "*N R"], *, coef: float) -> Surrogate:
  """Returns -A r without a clip, plus coef |logp - old_logp| for the penalized tokens.

  Args:
    penalized: from `largest`.
    coef: weight of the penalty. verl's configuration has 0.1; the text of its function says 1.
  """
  d = tokens.logp - tokens.old_logp
  ratio = exp_clipped(d, OVERFLOW)
  # The gradient of jnp.abs is 1 at 0, where every token is before the first update; torch's is 0.
  distance = d * jax.lax.stop_gradient(jnp.sign(d))
  nowhere = jnp.zeros_like(tokens.mask)
  return Surrogate(
    loss=tokens.weight * (-tokens.advantage * ratio + jnp.where(penalized, coef * distance, 0.0)),
    ratio=ratio,
    clipped=nowhere,
    clipped_lower=nowhere,
    drift=distance,
  )


def largest(tokens: Tokens, count: Int[Array, ""]) -> Bool[Array, "*N R"]:
  """Returns so many tokens of the largest covariance, the first ones where it is equal."""
  descending = jnp.where(tokens.mask, -covariances(tokens), jnp.inf)
  return tokens.mask & (_ranks(descending) < count)


def covariances(tokens: Tokens) -> Float[Array, "*N R"]:
  """Returns the token's share in the covariance of A and logp, without gradient."""
  count = jnp.maximum(jnp.sum(tokens.mask), 1)

  def centred(values: Float[Array, "*N R"]) -> Float[Array, "*N R"]:
    return values - jnp.sum(keep(tokens.mask, values)) / count

  return centred(tokens.advantage) * centred(jax.lax.stop_gradient(tokens.logp))


def number(mask: Bool[Array, "*N R"], ratio: float) -> Int[Array, ""]:
  """Returns the number of tokens that are a share of the unmasked ones, at least one."""
  return jnp.maximum(jnp.floor(ratio * jnp.sum(mask)).astype(jnp.int32), 1)


def _clipped_loss(
  tokens: Tokens, clip_low: float, clip_high: float
) -> tuple[Float[Array, "*N R"], Float[Array, "*N R"], Float[Array, "*N R"]]:
  """Returns the loss without and with a clip of the ratio, and the ratio."""
  ratio = exp_clipped(tokens.logp - tokens.old_logp, OVERFLOW)
  unclipped = -tokens.advantage * ratio
  return unclipped, -tokens.advantage * clip(ratio, 1.0 - clip_low, 1.0 + clip_high), ratio


def _ranks(values: Float[Array, "*N R"]) -> Int[Array, "*N R"]:
  """Returns each value's place among all of them in ascending order; the first of equal ones."""
  order = jnp.argsort(values.ravel(), stable=True)
  ranks = jnp.zeros_like(order).at[order].set(jnp.arange(order.size, dtype=order.dtype))
  return ranks.reshape(values.shape)
