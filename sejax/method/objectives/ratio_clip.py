"""GRPO (arXiv:2402.03300): the clipped ratio of each token, with the dual clip."""

import jax.numpy as jnp

from sejax.method.numerics import MAX_LOG_RATIO, clip
from sejax.method.objectives.surrogate import Surrogate, Tokens


def grpo(tokens: Tokens, *, clip_low: float, clip_high: float, dual_clip: float) -> Surrogate:
  """Returns PPO's clipped loss with the dual clip of arXiv:1912.09729, as verl and EasyR1 do.

  With r = exp(clip(logp - old_logp, -20, 20)):

      L = max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high))
      L = min(L, -A dual_clip)                         where A < 0

  TRL has no dual clip; `dual_clip=inf` disables it.
  """
  log_ratio = clip(tokens.logp - tokens.old_logp, -MAX_LOG_RATIO, MAX_LOG_RATIO)
  ratio, A = jnp.exp(log_ratio), tokens.advantage
  unclipped = -A * ratio
  clipped = -A * clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
  pessimistic = jnp.maximum(unclipped, clipped)
  bound = dual_clip * jnp.where(A < 0, -A, jnp.inf)
  return Surrogate(
    loss=tokens.weight * jnp.minimum(pessimistic, bound),
    ratio=ratio,
    clipped=clipped > unclipped,
    clipped_lower=pessimistic > bound,
    drift=-log_ratio,
  )
