"""Argument checks of the jitted functions; errors name the argument, its value and what would work.

Of arrays only shape and dtype are checked, so that traced and sharded arrays need no transfer.
Options are Python values and are checked before anything is compiled.
"""

import numbers
import reprlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

HostOrDevice = jax.Array | np.ndarray

# Options beyond these could overflow or vanish in float32 arithmetic and give NaN.
LEAST, LARGEST = 1e-6, 1e6

# The same as `sejax.errors.quoted`, since this package imports nothing else of sejax.
_QUOTES = reprlib.Repr()
_QUOTES.maxstring = _QUOTES.maxother = 120
quoted = _QUOTES.repr


class OptionError(ValueError):
  """Raised for an option value out of range.

  `sejax.config.validation` turns it into `sejax.errors.OptionError`, which names the section.

  Attributes:
    name: name of the keyword.
    value: the value as given.
    wanted: follows "must be" in the message.
  """

  def __init__(self, name: str, value: object, wanted: str):
    super().__init__(f"{name}={quoted(value)} must be {wanted}")
    self.name, self.value, self.wanted = name, value, wanted


def one_of(name: str, value: object, allowed: Sequence[str]) -> None:
  """Raises OptionError unless option `name` has one of the `allowed` values."""
  if value not in allowed:
    raise OptionError(name, value, f"one of {', '.join(allowed)}")


def between(name: str, value: object, low: float, high: float) -> None:
  """Raises OptionError unless option `name` is a real number in `[low, high]`; NaN never is."""
  if not (isinstance(value, numbers.Real) and low <= value <= high):
    raise OptionError(name, value, f"a number in [{low:g}, {high:g}]")


def positive(name: str, value: object) -> None:
  """Raises OptionError unless option `name` is in [`LEAST`, `LARGEST`]."""
  between(name, value, LEAST, LARGEST)


def finite(name: str, value: object) -> None:
  """Raises OptionError unless the absolute value of option `name` is at most `LARGEST`."""
  between(name, value, -LARGEST, LARGEST)


def python_values(**options: object) -> None:
  """Raises OptionError unless all options are Python numbers, strings, tuples or None."""
  for name, value in options.items():
    if not isinstance(value, str | tuple | numbers.Real | None):
      raise OptionError(name, value, "a Python number or string")


def integers(name: str, values: ArrayLike) -> HostOrDevice:
  """Returns an array of integers; raises ValueError for other types and beyond int32."""
  array = _array(values)
  if not jnp.issubdtype(array.dtype, jnp.integer):
    raise ValueError(f"{name} must hold integers, not {array.dtype}")
  # jax would drop the upper half of 64-bit integers, and different ones could become equal.
  if isinstance(array, np.ndarray) and not np.can_cast(array.dtype, np.int32):
    cast = array.astype(np.int32)
    if not np.array_equal(array, cast):
      raise ValueError(f"{name} holds {array[array != cast][0]}, which is not an int32")
    return cast
  return array


def flags(name: str, values: ArrayLike) -> HostOrDevice:
  """Returns an array of booleans, from booleans or integers; raises ValueError for other types."""
  array = _array(values)
  if not (array.dtype == bool or jnp.issubdtype(array.dtype, jnp.integer)):
    raise ValueError(f"{name} must hold booleans, not {array.dtype}")
  return array.astype(bool)


def reals(name: str, values: ArrayLike) -> HostOrDevice:
  """Returns an array of floats or integers; raises ValueError for others, as None in a list."""
  array = _array(values)
  if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
    raise ValueError(f"{name} must hold numbers, not {array.dtype}")
  return array


def verdicts(
  judge_scores: ArrayLike | None, judge_valid: ArrayLike | None
) -> dict[str, HostOrDevice]:
  """Returns the Judge's two arrays by name; an empty dict without a Judge.

  Raises:
    ValueError: only one of them is None, or one has the wrong type.
  """
  if (judge_scores is None) != (judge_valid is None):
    raise ValueError("judge_scores and judge_valid go together; one of them is None")
  if judge_scores is None:
    return {}
  return {
    "judge_scores": reals("judge_scores", judge_scores),
    "judge_valid": flags("judge_valid", judge_valid),
  }


def same_group_shape(**arrays: HostOrDevice) -> None:
  """Raises ValueError unless all arrays have the same shape `[B, G]`, G at least 1."""
  (first, reference), *others = arrays.items()
  if reference.ndim != 2 or reference.shape[1] == 0:
    raise ValueError(f"{first} has shape {reference.shape}; it must be [B, G] with G at least 1")
  for name, array in others:
    if array.shape != reference.shape:
      raise ValueError(
        f"{name} has shape {array.shape} but {first} has {reference.shape}; both must be [B, G]"
      )


def _array(values: ArrayLike) -> HostOrDevice:
  # Lists become arrays, since jit would treat each of their numbers as an argument of its own.
  return values if isinstance(values, jax.Array) else np.asarray(values)
