"""The distribution of a group over its trajectories, and the advantages read off it."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sejax.method import inputs

ADVANTAGES = ("log_q", "centered", "standardized", "log_mean_exp")

_STD_EPSILON = 1e-6  # The released code's, and that of GRPO.


def log_q_and_advantage(
  rewards: Float[Array, "B G"], *, beta: float, clip_adv: float | None, advantage: str
) -> tuple[Float[Array, "B G"], Float[Array, "B G"]]:
  """Log-probabilities log q of a group's energy distribution, and advantages A (arXiv:2603.21289).

  log q_k = beta R_k - logsumexp_j(beta R_j), clipped to [-clip_adv, clip_adv] if given, and

  - `centered`: A = log q - mean(log q). The paper's run: its code takes the log-softmax of the
    rewards as reward and subtracts the group's mean, as GRPO does. Without clipping the log-sum-exp
    cancels, and it is computed as beta (R - mean R).
  - `log_q`: A = log q, the formula in the paper's text, which its run does not use. It is -log G
    for a constant group and never positive.
  - `log_mean_exp`: A = log q + log G, which is beta R less the log of the mean of exp(beta R), not
    of the sum: above 0 where q is above 1/G. `clip_adv` bounds this sum, so that a group of equal
    rewards stays at 0.
  - `standardized`: the centred advantage over (std + 1e-6), std with G - 1 in the denominator.

  A group whose log q are all equal has A exactly 0 under `centered` and `standardized`, and so has
  a group of one. Under `log_mean_exp` it is exactly 0 where all R are equal.

  Args:
    rewards: R; any finite values, one group per row.
    beta: inverse temperature of the distribution, above 0.
    clip_adv: bound on |log q|, or on |A| under `log_mean_exp`; above 0, or None.
    advantage: one of `ADVANTAGES`.

  Returns:
    log q (clipped) and A.

  Raises:
    ValueError: an option is unknown or out of its range.
  """
  inputs.one_of("advantage", advantage, ADVANTAGES)
  inputs.positive("beta", beta)
  if clip_adv is not None:
    inputs.positive("clip_adv", clip_adv)
  scaled = beta * jnp.asarray(rewards, jnp.float32)
  log_q = jax.nn.log_softmax(scaled, axis=1)
  above_uniform = jnp.where(_constant(log_q), 0.0, log_q + math.log(log_q.shape[1]))
  if clip_adv is not None:
    log_q = jnp.clip(log_q, -clip_adv, clip_adv)
    above_uniform = jnp.clip(above_uniform, -clip_adv, clip_adv)
  if advantage == "log_q":
    return log_q, log_q
  if advantage == "log_mean_exp":
    return log_q, above_uniform
  logits = scaled if clip_adv is None else log_q
  constant = _constant(log_q)
  centered = jnp.where(constant, 0.0, logits - jnp.mean(logits, axis=1, keepdims=True))
  if advantage == "centered":
    return log_q, centered
  freedom = max(log_q.shape[1] - 1, 1)
  std = jnp.sqrt(jnp.sum(jnp.square(centered), axis=1, keepdims=True) / freedom)
  return log_q, centered / (std + _STD_EPSILON)


def _constant(log_q: Float[Array, "B G"]) -> Bool[Array, "B 1"]:
  """Groups whose log q differ by no more than their own rounding.

  A float32 carries a relative error of half an eps; two equal rewards that took different vector
  lanes end up to about two apart. Twice eps (2 to 4 units in the last place) covers that, and no
  larger spread may count as none. Without this, the std of such a group is that residue, and
  dividing by it turns rounding into advantages of order one.
  """
  largest, least = (f(log_q, axis=1, keepdims=True) for f in (jnp.max, jnp.min))
  residue = 2.0 * jnp.finfo(log_q.dtype).eps * jnp.abs(least)
  return largest - least <= residue
