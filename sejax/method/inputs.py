"""Checks at the door of the kernels: one clear line that names the thing, its value and what works.

Arrays are checked by shape and dtype alone, so a traced or sharded array passes without a transfer;
options are Python values, checked before anything is compiled.
"""

import numbers
import reprlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

HostOrDevice = jax.Array | np.ndarray

# Beyond these, float32 arithmetic on an option overflows or vanishes and gives NaN.
LEAST, LARGEST = 1e-6, 1e6

# As `sejax.errors.quoted`; nothing here imports the rest of the package.
_QUOTES = reprlib.Repr()
_QUOTES.maxstring = _QUOTES.maxother = 120
quoted = _QUOTES.repr


def one_of(name: str, value: object, allowed: Sequence[str]) -> None:
  """Raises ValueError unless option `name` has one of the `allowed` values."""
  if value not in allowed:
    raise ValueError(f"{name}={quoted(value)} is unknown; choose one of {', '.join(allowed)}")


def between(name: str, value: object, low: float, high: float) -> None:
  """Raises ValueError unless option `name` is a real number in `[low, high]`; NaN is not."""
  if not (isinstance(value, numbers.Real) and low <= value <= high):
    raise ValueError(f"{name}={quoted(value)} must be a number in [{low:g}, {high:g}]")


def positive(name: str, value: object) -> None:
  """Raises ValueError unless option `name` is above 0 and far from float32's bounds."""
  between(name, value, LEAST, LARGEST)


def finite(name: str, value: object) -> None:
  """Raises ValueError unless option `name` is a number far from float32's bounds."""
  between(name, value, -LARGEST, LARGEST)


def plain(**options: object) -> None:
  """Raises ValueError unless every option is a Python value, as a static argument must be."""
  for name, value in options.items():
    if not isinstance(value, str | numbers.Real | None):
      raise ValueError(f"{name}={quoted(value)} must be a Python number or string")


def integers(name: str, values: ArrayLike) -> HostOrDevice:
  """Labels as they are, or ValueError where they are no integers or do not fit int32."""
  array = _array(values)
  if not jnp.issubdtype(array.dtype, jnp.integer):
    raise ValueError(f"{name} must hold integers, not {array.dtype}")
  # Without this, 64-bit labels would lose their upper half on the way to the device, and two
  # different ones could become the same.
  if isinstance(array, np.ndarray) and not np.can_cast(array.dtype, np.int32):
    narrow = array.astype(np.int32)
    if not np.array_equal(array, narrow):
      raise ValueError(f"{name} holds {array[array != narrow][0]}, which is no int32")
    return narrow
  return array


def flags(name: str, values: ArrayLike) -> HostOrDevice:
  """Booleans as they are, integers as "is not 0"; ValueError for anything else."""
  array = _array(values)
  if not (array.dtype == bool or jnp.issubdtype(array.dtype, jnp.integer)):
    raise ValueError(f"{name} must hold booleans, not {array.dtype}")
  return array.astype(bool)


def reals(name: str, values: ArrayLike) -> HostOrDevice:
  """Real numbers as they are; ValueError for anything else, such as None in a list."""
  array = _array(values)
  if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
    raise ValueError(f"{name} must hold numbers, not {array.dtype}")
  return array


def verdicts(
  judge_scores: ArrayLike | None, judge_valid: ArrayLike | None
) -> dict[str, HostOrDevice]:
  """Returns the Judge's two arrays by name; no array where there is no Judge.

  Raises:
    ValueError: only one of them is None, or they have the wrong type.
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
  """Raises ValueError unless all arrays are `[B, G]` with one and the same B and G >= 1."""
  (first, reference), *others = arrays.items()
  if reference.ndim != 2 or reference.shape[1] == 0:
    raise ValueError(f"{first} has shape {reference.shape}; it must be [B, G] with G at least 1")
  for name, array in others:
    if array.shape != reference.shape:
      raise ValueError(
        f"{name} has shape {array.shape} but {first} has {reference.shape}; both must be [B, G]"
      )


def _array(values: ArrayLike) -> HostOrDevice:
  # A device array stays where it is; lists become host arrays, so that jit sees one argument.
  return values if isinstance(values, jax.Array) else np.asarray(values)
