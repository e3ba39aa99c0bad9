"""GSPO (arXiv:2507.18071): one ratio for a whole sequence, the geometric mean of its tokens'."""

import jax
import jax.numpy as jnp

from sejax.method.numerics import clip, sequence_mean
from sejax.method.objectives.surrogate import Surrogate, Tokens

_MAX_LOG_RATIO = 10.0  # as in verl, from above only


def gspo(tokens: Tokens, *, clip_low: float, clip_high: float) -> Surrogate:
  """Returns the clipped loss of sequences' ratios, in verl's form (GSPO-token).

  s = mean of logp - old_logp over the tokens of a sequence, without gradient. A token's ratio is
  exp(s + logp - stop_gradient(logp)): its value is that of the sequence, and its gradient goes to
  the token alone. With one advantage for a sequence the gradient is that of GSPO, also in TRL's
  form, which differentiates s. There is no dual clip.
  """
  log_ratio, A = tokens.logp - tokens.old_logp, tokens.advantage
  s = jax.lax.stop_gradient(sequence_mean(tokens.mask, log_ratio))
  # The difference first: it is exactly 0, and s the same number at each token.
  log_ratio_of_token = s + (tokens.logp - jax.lax.stop_gradient(tokens.logp))
  ratio = jnp.exp(clip(log_ratio_of_token, -jnp.inf, _MAX_LOG_RATIO))
  unclipped = -A * ratio
  clipped = -A * clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
  return Surrogate(
    loss=tokens.weight * jnp.maximum(unclipped, clipped),
    ratio=ratio,
    clipped=clipped > unclipped,
    clipped_lower=jnp.zeros_like(tokens.mask),
    drift=-log_ratio,
  )
