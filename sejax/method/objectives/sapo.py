"""SAPO (arXiv:2511.20347): a smooth gate in place of the clip."""

import jax
import jax.numpy as jnp

from sejax.method.numerics import MAX_LOG_RATIO, clip
from sejax.method.objectives.surrogate import Surrogate, Tokens


def sapo(tokens: Tokens, *, tau_pos: float, tau_neg: float) -> Surrogate:
  """Returns -A (4 / tau) sigmoid(tau (r - 1)), as verl does; tau depends on the sign of A.

  At r = 1 the gradient is -A, as without a gate. Log ratios are clipped to [-20, 20], which TRL
  does not. Nothing counts as clipped.

  Args:
    tau_pos: sharpness of the gate where A > 0.
    tau_neg: elsewhere; larger, as such tokens are the less stable ones.
  """
  log_ratio = clip(tokens.logp - tokens.old_logp, -MAX_LOG_RATIO, MAX_LOG_RATIO)
  ratio, A = jnp.exp(log_ratio), tokens.advantage
  tau = jnp.where(A > 0, tau_pos, tau_neg)
  nowhere = jnp.zeros_like(tokens.mask)
  return Surrogate(
    loss=-tokens.weight * A * (4.0 / tau) * jax.nn.sigmoid(tau * (ratio - 1.0)),
    ratio=ratio,
    clipped=nowhere,
    clipped_lower=nowhere,
    drift=-log_ratio,
  )
