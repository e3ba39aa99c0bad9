"""The reward of a trajectory: self-consistency times the Judge's factor plus the format penalty."""

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
  """Returns the reward R = clip(r g + penalty, 0, 1) of each trajectory (arXiv:2603.21289).

  Args:
    self_consistency: r in [0, 1].
    factor: g, from `sejax.method.modulation.modulation_factor`.
    format_ok: whether the trajectory keeps the output format.
    format_penalty: added to the reward of a trajectory that breaks it; at most 0.

  Returns:
    R in [0, 1].

  Raises:
    ValueError: the penalty is above 0.
  """
  inputs.between("format_penalty", format_penalty, -inputs.LARGEST, 0.0)
  penalty = jnp.where(format_ok, 0.0, format_penalty)
  return jnp.clip(self_consistency * factor + penalty, 0.0, 1.0)
