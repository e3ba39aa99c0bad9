"""The built-in figures as a source of records: nothing is downloaded, nothing is stored."""

import functools
from collections.abc import Mapping, Sequence

from sejax.data import records
from sejax.data.figures import problems
from sejax.data.figures.board import bmp
from sejax.data.figures.family import Problem


class Figures:
  """Drawn problems by index, as `records.Source`.

  Attributes:
    name: of the set.
    split: `train` or `heldout`.

  Args:
    split: `train` or `heldout`; they share no problem.
    size: pixels a side: 56, 112 or 224.
    mixture: families with their weights, and levels; all alike by default.
    length: the number of problems.
    seed: names the sequence of problems.

  Raises:
    ValueError: a split, size or length that does not exist.
  """

  name = "figures"

  def __init__(
    self,
    split: str = "train",
    size: int = 56,
    mixture: problems.Mixture | None = None,
    length: int = 100_000,
    seed: int = 0,
  ):
    problems.check(split, size)
    if length < 1:
      raise ValueError(f"the length {length} of a set of figures must be at least 1")
    self._length = length
    self.split = split
    self._mixture = mixture or problems.Mixture()
    self._seed = seed
    self._make = functools.partial(
      problems.problem,
      split=split,
      size=size,
      mixture=self._mixture,
      seed=seed,
    )

  def __len__(self) -> int:
    """Returns the number of problems."""
    return self._length

  def __getitem__(self, index: int) -> records.Record:
    """Returns a problem's question and picture, a BMP file."""
    problem = self.problem(index)
    return records.Record(f"figures/{self.split}/{index}", problem.question, (bmp(problem.image),))

  def gold(self, index: int) -> str:
    """Returns the answer for metrics."""
    return self.problem(index).answer

  def alike(self) -> Sequence[records.Record]:
    """Returns records to which all are alike: each has the text of one, and a picture of its size.

    They are few, as the pictures differ and the questions repeat; nothing is drawn to find them.
    """
    asked = set()
    for index in range(self._length):
      bits = problems.bits_of(index, self.split, self._seed)
      family, _, content = problems.pick(bits, self.split, self._mixture)
      asked.update(family.questions(content))
    picture = self[0].images
    return [records.Record(question, question, picture) for question in sorted(asked)]

  def problem(self, index: int) -> Problem:
    """Returns all there is to know about a problem, the picture as an array.

    Raises:
      IndexError: there are not so many.
    """
    if not 0 <= index < self._length:
      raise IndexError(f"figure {index} of {self._length}")
    return self._make(index)


def source(
  split: str = "train",
  size: int = 56,
  families: Mapping[str, float] | None = None,
  levels: tuple[int, ...] = problems.LEVELS,
  length: int = 100_000,
  seed: int = 0,
) -> Figures:
  """Returns a source from plain values, as a configuration holds them; see `Figures`."""
  return Figures(split, size, problems.Mixture(families, tuple(levels)), length, seed)
