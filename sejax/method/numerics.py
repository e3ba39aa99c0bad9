"""Elementary functions with the conventions of the published implementations, which use torch."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Bound of log ratios in verl and in the paper's released code: exp of it stays finite in float32.
MAX_LOG_RATIO = 20.0
# Bound of log ratios that the published code does not bound: beyond it, exp overflows in float32.
OVERFLOW = 80.0


def clip(x: Float[Array, "*n"], low: float, high: float) -> Float[Array, "*n"]:
  """Clips to [low, high], and passes the whole gradient on the borders, as `torch.clamp` does.

  `jnp.clip` passes half of it at each border that x equals. In `max(-A r, -A clip(r))` both
  branches are equal there, and the sum of their halves must be the gradient of the unclipped one.
  """
  return jnp.where(x < low, low, jnp.where(x > high, high, x))


def exp_clipped(log_ratio: Float[Array, "*n"], bound: float = MAX_LOG_RATIO) -> Float[Array, "*n"]:
  """Returns the exponential of a log ratio that is clipped to [-bound, bound]."""
  return jnp.exp(clip(log_ratio, -bound, bound))


def as_bool(mask: Bool[Array, "*N R"]) -> Bool[Array, "*N R"]:
  """Returns a mask of booleans, or of 0 and 1, as booleans."""
  return jnp.asarray(mask) != 0


def keep(mask: Bool[Array, "*N R"], values: Float[Array, "*N #R"]) -> Float[Array, "*N R"]:
  """Returns values in float32 with 0 where masked, also in place of NaN."""
  return jnp.where(mask, jnp.asarray(values, jnp.float32), 0.0)


def sequence_sum(mask: Bool[Array, "*N R"], values: Float[Array, "*N R"]) -> Float[Array, "*N 1"]:
  """Returns the sum over the unmasked tokens of each sequence."""
  return jnp.sum(keep(mask, values), axis=-1, keepdims=True)


def sequence_mean(mask: Bool[Array, "*N R"], values: Float[Array, "*N R"]) -> Float[Array, "*N 1"]:
  """Returns the mean over the unmasked tokens of each sequence, 0 if there are none."""
  return sequence_sum(mask, values) / jnp.maximum(jnp.sum(mask, axis=-1, keepdims=True), 1)
