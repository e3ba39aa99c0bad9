"""The reward of a trajectory: self-consistency times the Judge's factor plus the format penalty."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sejax.method import inputs
from sejax.method.length_penalty import soft_overlong


def reward(
  self_consistency: Float[Array, "*K B G"],
  factor: Float[Array, "B G"],
  format_ok: Bool[Array, "B G"],
  lengths: Int[Array, "B G"] | None = None,
  *,
  format_penalty: float,
  is_bounded: bool = True,
  max_tokens: int | None = None,
  overlong_buffer: int = 0,
  overlong_factor: float = 1.0,
) -> Float[Array, "*K B G"]:
  """Returns the reward R = clip(r g + penalty, 0, 1) of each trajectory (arXiv:2603.21289).

  With an overlong buffer, DAPO's punishment of overlong trajectories is then added.

  Args:
    self_consistency: r in [0, 1], or another base reward.
    factor: g, from `sejax.method.modulation.modulation_factor`.
    format_ok: whether the trajectory keeps the output format.
    lengths: tokens of each trajectory; may be None without an overlong buffer, like `max_tokens`.
    format_penalty: added to the reward of a trajectory that breaks it; at most 0.
    is_bounded: False for base rewards that may leave [0, 1]; R is not clipped then.
    max_tokens: as in `sejax.method.length_penalty.soft_overlong`, like the next two.
    overlong_buffer: 0 punishes no length.
    overlong_factor: the largest punishment.

  Returns:
    R in [0, 1], or in [-overlong_factor, 1], if it is bounded.

  Raises:
    ValueError: the penalty is above 0, or an option of the punishment is out of its range.
  """
  inputs.between("format_penalty", format_penalty, -inputs.LARGEST, 0.0)
  longest = inputs.LARGEST if max_tokens is None else max_tokens
  inputs.between("overlong_buffer", overlong_buffer, 0, longest)
  inputs.between("overlong_factor", overlong_factor, 0.0, inputs.LARGEST)
  penalty = jnp.where(format_ok, 0.0, format_penalty)
  R = self_consistency * factor + penalty
  if is_bounded:
    R = jnp.clip(R, 0.0, 1.0)
  if not overlong_buffer:
    return R
  return R + soft_overlong(
    lengths,
    max_tokens=max_tokens,
    overlong_buffer=overlong_buffer,
    overlong_factor=overlong_factor,
  )
