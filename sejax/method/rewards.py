"""The reward of a trajectory: self-consistency, modulated by the Judge, less the format penalty."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sejax.method import inputs


def reward(
  self_consistency: Float[Array, "B G"],
  factor: Float[Array, "B G"],
  format_ok: Bool[Array, "B G"],
  *,
  format_penalty: float,
) -> Float[Array, "B G"]:
  """Reward R = clip(r g + penalty, 0, 1) of every trajectory (arXiv:2603.21289).

  Args:
    self_consistency: r.
    factor: g.
    format_ok: whether the trajectory keeps the output format.
    format_penalty: added where it does not; at most 0.

  Returns:
    R in [0, 1].

  Raises:
    ValueError: the penalty is above 0.
  """
  inputs.between("format_penalty", format_penalty, -inputs.LARGEST, 0.0)
  penalty = jnp.where(format_ok, 0.0, format_penalty)
  return jnp.clip(self_consistency * factor + penalty, 0.0, 1.0)
