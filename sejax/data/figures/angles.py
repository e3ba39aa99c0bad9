"""Integer sines and cosines; those of a math library may differ between machines."""

ONE = 10_000

# Sines of 0, 2.5, 5, ... 90 degrees, times `ONE`.
_SINES = (
  *(0, 436, 872, 1305, 1736, 2164, 2588, 3007, 3420, 3827),
  *(4226, 4617, 5000, 5373, 5736, 6088, 6428, 6756, 7071, 7373),
  *(7660, 7934, 8192, 8434, 8660, 8870, 9063, 9239, 9397, 9537),
  *(9659, 9763, 9848, 9914, 9962, 9990, 10000),
)


def sine(steps: int) -> int:
  """Returns `ONE` times the sine of an angle, given in steps of 2.5 degrees."""
  steps %= 144
  if steps >= 72:
    return -sine(steps - 72)
  return _SINES[min(steps, 72 - steps)]


def cosine(steps: int) -> int:
  """Returns `ONE` times the cosine of an angle, given in steps of 2.5 degrees."""
  return sine(steps + 36)


def scaled(length: int, ratio: int) -> int:
  """Returns length * ratio / `ONE`, rounded to the nearest integer."""
  return (2 * length * ratio + ONE) // (2 * ONE)
