"""The energy distribution of a group over its trajectories, and advantages derived from it."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sejax.method import inputs

ADVANTAGES = ("log_q", "centered", "standardized", "log_mean_exp")

_STD_EPSILON = 1e-6  # as in the paper's released code and in verl's GRPO


def log_q_and_advantage(
  rewards: Float[Array, "B G"], *, beta: float, clip_adv: float | None, advantage: str
) -> tuple[Float[Array, "B G"], Float[Array, "B G"]]:
  """Returns log-probabilities log q of the groups' energy distributions, and advantages A.

  As in arXiv:2603.21289, log q_k = beta R_k - logsumexp_j(beta R_j), clipped to
  [-clip_adv, clip_adv] if `clip_adv` is given. The advantage is

  - `centered`: A = log q - mean(log q), the released run. Its code uses the log-softmax of the
    rewards as reward and subtracts the mean of the group, as GRPO does. Without clipping the
    log-sum-exp cancels, and A is computed as beta (R - mean R).
  - `log_q`: A = log q, the formula in the paper's text, which the released run does not use. It is
    never positive, and -log G in a group of equal rewards.
  - `log_mean_exp`: A = log q + log G, that is, beta R minus the log of the mean of exp(beta R),
    not of the sum. It is positive for q above 1/G. `clip_adv` bounds A itself, so that it is 0 in a
    group of equal rewards.
  - `standardized`: the centered advantage over (std + 1e-6); std has G - 1 in the denominator.

  A is exactly 0 in a group of equal log q, also in a group of one, under `centered` and
  `standardized`; and in a group of equal R under `log_mean_exp`.

  Args:
    rewards: R; any finite values, one group per row.
    beta: inverse temperature of the distribution, above 0.
    clip_adv: bound on |log q|, or on |A| under `log_mean_exp`; above 0, or None for no bound.
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
  above_uniform = jnp.where(_is_constant(log_q), 0.0, log_q + math.log(log_q.shape[1]))
  if clip_adv is not None:
    log_q = jnp.clip(log_q, -clip_adv, clip_adv)
    above_uniform = jnp.clip(above_uniform, -clip_adv, clip_adv)
  if advantage == "log_q":
    return log_q, log_q
  if advantage == "log_mean_exp":
    return log_q, above_uniform
  logits = scaled if clip_adv is None else log_q
  centered = logits - jnp.mean(logits, axis=1, keepdims=True)
  centered = jnp.where(_is_constant(log_q), 0.0, centered)
  if advantage == "centered":
    return log_q, centered
  degrees_of_freedom = max(log_q.shape[1] - 1, 1)
  std = jnp.sqrt(jnp.sum(jnp.square(centered), axis=1, keepdims=True) / degrees_of_freedom)
  return log_q, centered / (std + _STD_EPSILON)


def _is_constant(log_q: Float[Array, "B G"]) -> Bool[Array, "B 1"]:
  """Whether the log q of a group are equal up to float32 rounding.

  Equal rewards can give log q that differ by about two units in the last place, since vector lanes
  may round differently. The std of such a group is a rounding error, and dividing by it would give
  advantages of order one. The bound of 2 eps is 2 to 4 units in the last place; a larger one would
  hide real differences.
  """
  highest = jnp.max(log_q, axis=1, keepdims=True)
  lowest = jnp.min(log_q, axis=1, keepdims=True)
  rounding = 2.0 * jnp.finfo(log_q.dtype).eps * jnp.abs(lowest)
  return highest - lowest <= rounding
