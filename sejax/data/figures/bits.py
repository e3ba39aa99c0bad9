"""Random choices in integer arithmetic: the same on any machine, with any version of numpy."""

import hashlib
import math
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")
_MASK = (1 << 64) - 1


def fingerprint(*parts: object) -> int:
  """Returns 64 bits that depend on the parts' `repr` alone: strings, ints and tuples of them."""
  digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
  return int.from_bytes(digest, "little")


class Bits:
  """A stream of choices (splitmix64; Steele, Lea and Flood 2014).

  Args:
    parts: what names the stream; equal names give equal streams.
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
    """Returns an integer in [0, bound); the bias, below bound / 2**64, is of no account."""
    return (self.draw() * bound) >> 64

  def between(self, low: int, high: int) -> int:
    """Returns an integer in [low, high], both included."""
    return low + self.below(high - low + 1)

  def choice(self, options: Sequence[_T]) -> _T:
    """Returns one of the options."""
    return options[self.below(len(options))]

  def sample(self, options: Sequence[_T], count: int) -> tuple[_T, ...]:
    """Returns `count` different options in random order."""
    pool = list(options)
    return tuple(pool.pop(self.below(len(pool))) for _ in range(count))

  def weighted(self, weights: Sequence[float]) -> int:
    """Returns an index with a probability that is proportional to its weight."""
    left = self.draw() / 2**64 * math.fsum(weights)
    for index, weight in enumerate(weights):
      if left < weight:
        return index
      left -= weight
    # Rounding may leave a residue behind the last weight.
    return max(index for index, weight in enumerate(weights) if weight > 0)
