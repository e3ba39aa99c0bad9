"""GMPO (arXiv:2507.20673): the geometric mean of a sequence's clipped ratios."""

import jax.numpy as jnp

from sejax.method.numerics import OVERFLOW, clip, exp_clipped, sequence_mean
from sejax.method.objectives.surrogate import Surrogate, Tokens


def gmpo(tokens: Tokens, *, clip_low: float, clip_high: float) -> Surrogate:
  """Returns the loss of each sequence at each of its tokens, so that a mean over them restores it.

  In log space, with d = logp - old_logp and s = sign(A):

      y = s min(s d, s clip(d, -clip_low, clip_high))
      L = -A exp(mean of y over the sequence)

  A clipped token has no gradient, but scales those of its neighbours. This is verl's `geo_mean`,
  with the mean over sequences that have a token; verl and TRL count empty ones too. As in verl,
  `clipped` is where d is above or below its bounds and A > 0, `clipped_lower` the same with A < 0;
  an importance weight enters by its geometric mean.
  """
  d, A = tokens.logp - tokens.old_logp, tokens.advantage
  sign = jnp.sign(A)
  bounded = sign * jnp.minimum(sign * d, sign * clip(d, -clip_low, clip_high))
  ratio = exp_clipped(sequence_mean(tokens.mask, bounded), OVERFLOW)
  weight = jnp.exp(sequence_mean(tokens.mask, jnp.log(tokens.weight + 1e-10)))
  outside = (d < -clip_low) | (d > clip_high)
  return Surrogate(
    loss=-weight * A * ratio,
    ratio=jnp.broadcast_to(ratio, d.shape),
    clipped=outside & (A > 0),
    clipped_lower=outside & (A < 0),
    drift=-d,
  )
