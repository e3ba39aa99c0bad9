"""The built-in figures as a `records.Source`, generated on access."""

import functools
from collections.abc import Mapping, Sequence

from sejax.data import records
from sejax.data.figures import problems
from sejax.data.figures.board import bmp
from sejax.data.figures.family import Problem


class Figures:
  """Source of generated problems.

  Attributes:
    name: name of the data set.

  Args:
    split: `train` or `heldout`, which share no problem.
    size: side of the images in pixels: 56, 112 or 224.
    mixture: distribution of the problems; by default all families and levels equally.
    seed: seed of the whole sequence of problems.

  Raises:
    ValueError: `split`, `size` or `length` is invalid.
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
    """Returns a problem's question and its image as a BMP file."""
    problem = self.problem(index)
    return records.Record(f"figures/{self.split}/{index}", problem.question, (bmp(problem.image),))

  def gold(self, index: int) -> str:
    """Returns the gold answer of a problem."""
    return self.problem(index).answer

  def representatives(self) -> Sequence[records.Record]:
    """Returns a few records that have the same prompt lengths as all others.

    There is one per distinct question, since all images have the same size. Finding them needs no
    drawing, so that `counting` need not prepare every problem.
    """
    questions = set()
    for index in range(self._length):
      rng = problems.problem_rng(index, self.split, self._seed)
      family, _, content = problems.sample_content(rng, self.split, self._mixture)
      questions.update(family.questions(content))
    images = self[0].images
    return [records.Record(question, question, images) for question in sorted(questions)]

  def problem(self, index: int) -> Problem:
    """Generates a problem with its image, solutions and facts.

    Raises:
      IndexError: the index is not below the length.
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
  """Creates a source from plain values, as in `config.data.figures`; see `Figures`."""
  mixture = problems.Mixture(families, tuple(levels))
  return Figures(split=split, size=size, mixture=mixture, length=length, seed=seed)
