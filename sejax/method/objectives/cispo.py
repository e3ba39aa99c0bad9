"""CISPO (MiniMax-M1, arXiv:2506.13585): the ratio is a clipped weight without gradient."""

import jax
import jax.numpy as jnp

from sejax.method.numerics import MAX_LOG_RATIO, clip
from sejax.method.objectives.surrogate import Surrogate, Tokens


def cispo(tokens: Tokens, *, clip_low: float, clip_high: float) -> Surrogate:
  """Returns -stop_gradient(clip(r, 1 - clip_low, 1 + clip_high)) A logp, as verl does.

  Every token keeps a gradient, clipped or not. The value of the loss means nothing, only its
  gradient does. `clip_low=1` leaves the upper bound alone, as in the paper. TRL's bound is the
  weight itself, here `clip_high` + 1. `clipped` is where the weight was changed, whatever the sign
  of A.
  """
  log_ratio = clip(tokens.logp - tokens.old_logp, -MAX_LOG_RATIO, MAX_LOG_RATIO)
  ratio = jnp.exp(log_ratio)
  weight = jax.lax.stop_gradient(clip(ratio, 1.0 - clip_low, 1.0 + clip_high))
  return Surrogate(
    loss=-tokens.weight * weight * tokens.advantage * tokens.logp,
    ratio=ratio,
    clipped=ratio != weight,
    clipped_lower=jnp.zeros_like(tokens.mask),
    drift=-log_ratio,
  )
