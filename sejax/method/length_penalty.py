"""DAPO's soft punishment of overlong trajectories (arXiv:2503.14476)."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sejax.method.numerics import clip


def soft_overlong(
  lengths: Int[Array, "B G"], *, max_tokens: int, overlong_buffer: int, overlong_factor: float
) -> Float[Array, "B G"]:
  """Returns what is added to the reward of a trajectory of n tokens.

  It is 0 up to max_tokens - overlong_buffer, falls linearly to -overlong_factor at max_tokens, and
  stays there: the rule of the paper, TRL and EasyR1. verl lets it fall on, but no trajectory that
  is sampled here exceeds max_tokens.

  Args:
    lengths: n.
    max_tokens: the longest response, in tokens.
    overlong_buffer: tokens before the maximum over which the punishment grows, from 1 on.
    overlong_factor: the largest punishment, at least 0.
  """
  missing = max_tokens - overlong_buffer - jnp.asarray(lengths, jnp.float32)
  return overlong_factor * clip(missing / overlong_buffer, -1.0, 0.0)
