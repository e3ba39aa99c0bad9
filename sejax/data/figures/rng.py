"""Portable random numbers: integer arithmetic alone, so equal on any machine and numpy version."""

import hashlib
import math
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")
_MASK = (1 << 64) - 1


def fingerprint(*parts: object) -> int:
  """Hashes the `repr` of strings, ints and tuples of these to 64 bits."""
  digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
  return int.from_bytes(digest, "little")


class Rng:
  """Random number generator (splitmix64; Steele, Lea and Flood, 2014).

  Args:
    parts: the seed: strings, ints and tuples of these.
  """

  def __init__(self, *parts: object):
    self._state = fingerprint(*parts)

  def draw(self) -> int:
    """Returns the next 64 bits."""
    self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
    z = self._state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)

  def below(self, bound: int) -> int:
    """Returns an integer in [0, bound); its bias, less than bound / 2**64, is negligible."""
    return (self.draw() * bound) >> 64

  def between(self, low: int, high: int) -> int:
    """Returns an integer in [low, high], including both ends."""
    return low + self.below(high - low + 1)

  def choice(self, options: Sequence[_T]) -> _T:
    """Returns one of the options."""
    return options[self.below(len(options))]

  def sample(self, options: Sequence[_T], count: int) -> tuple[_T, ...]:
    """Returns `count` different options in random order."""
    pool = list(options)
    return tuple(pool.pop(self.below(len(pool))) for _ in range(count))

  def weighted(self, weights: Sequence[float]) -> int:
    """Returns an index with probability proportional to its weight."""
    left = self.draw() / 2**64 * math.fsum(weights)
    for index, weight in enumerate(weights):
      if left < weight:
        return index
      left -= weight
    # Rounding errors may leave a remainder after the last weight.
    return max(index for index, weight in enumerate(weights) if weight > 0)
