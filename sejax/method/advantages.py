"""The distribution of a group over its trajectories, and the advantages read off it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sejax.method import inputs

ADVANTAGES = ("log_q", "centered", "standardized")

_STD_EPSILON = 1e-6  # The released code's, and that of GRPO.


def log_q_and_advantage(
  rewards: Float[Array, "B G"], *, beta: float, clip_adv: float | None, advantage: str
) -> tuple[Float[Array, "B G"], Float[Array, "B G"]]:
  """Log-probabilities log q of a group's energy distribution, and advantages A (arXiv:2603.21289).

  log q_k = beta R_k - logsumexp_j(beta R_j), clipped to [-clip_adv, clip_adv] if given, and

  - `log_q`: A = log q, as the paper's text has it.
  - `centered`: A = log q - mean(log q). The released run. Without clipping the log-sum-exp cancels,
    and it is computed as beta (R - mean R).
  - `standardized`: the centred advantage over (std + 1e-6), std with G - 1 in the denominator.

  A group whose log q are all equal has A exactly 0 under `centered` and `standardized`; so has a
  group of one.

  Args:
    rewards: R; any finite values, one group per row.
    beta: inverse temperature of the distribution, above 0.
    clip_adv: bound on |log q|, above 0, or None.
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
  if clip_adv is not None:
    log_q = jnp.clip(log_q, -clip_adv, clip_adv)
  if advantage == "log_q":
    return log_q, log_q
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
