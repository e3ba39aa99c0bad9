"""Generates the figure problem of an index: samples family, level and content, and draws it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sejax.data.figures import charts, clocks, counting, numbers, rectangles, triangles
from sejax.data.figures.board import SIZES, TINTS, Board
from sejax.data.figures.family import LEVELS, Claims, Family, Problem, Wrong, solution
from sejax.data.figures.rng import Rng, fingerprint
from sejax.errors import quoted

_MODULES = (counting, charts, clocks, numbers, rectangles, triangles)
FAMILIES: Mapping[str, Family] = {
  family.name: family for module in _MODULES for family in module.FAMILIES
}
LEARNABLE = ("dots", "colours", "bars", "clock")
SPLITS = ("train", "heldout")

_HELD_OUT_OF = 8  # one content in 8 belongs to the held-out split
_TRIALS = 2000  # samples until a content belongs to the wanted split


@dataclasses.dataclass(frozen=True)
class Mixture:
  """Distribution of the problems over families and levels.

  Attributes:
    families: relative weight of each family by name; None weighs all families equally.
    levels: levels of difficulty, equally likely.

  Raises:
    ValueError: a family or level does not exist, or no weight is positive.
  """

  families: Mapping[str, float] | None = None
  levels: tuple[int, ...] = LEVELS

  def __post_init__(self):
    weights = dict.fromkeys(FAMILIES, 1.0) if self.families is None else dict(self.families)
    object.__setattr__(self, "families", weights)
    object.__setattr__(self, "levels", tuple(self.levels))
    for name, weight in weights.items():
      if name not in FAMILIES:
        raise ValueError(
          f"no family of figures is named {quoted(name)}; there are {', '.join(FAMILIES)}"
        )
      if not 0 <= weight < float("inf"):
        raise ValueError(
          f"the weight {weight} of the family {quoted(name)} must be finite, at least 0"
        )
    if not sum(weights.values()) > 0:
      raise ValueError(f"the weights of families {weights} must have one above 0")
    if not self.levels or not set(self.levels) <= set(LEVELS):
      raise ValueError(f"levels {self.levels} must be some of {LEVELS}")


def problem(
  index: int, split: str, *, mixture: Mixture | None = None, size: int = 56, seed: int = 0
) -> Problem:
  """Generates the problem of an index, deterministically and identically on every machine.

  Args:
    index: any integer from 0.
    split: one of `SPLITS`. The hash of its content decides which split a problem belongs to, so the
      splits share no problem, for any index, level or seed.
    mixture: distribution of the problems; by default all families and levels.
    size: side of the image in pixels, one of `SIZES`.
    seed: seed of the whole sequence of problems.

  Raises:
    ValueError: `index` is negative, or `split` or `size` does not exist.
  """
  if index < 0:
    raise ValueError(f"index {index} of a figure must be at least 0")
  check(split, size)
  rng = problem_rng(index, split, seed)
  family, level, content = sample_content(rng, split, mixture or Mixture())
  board = Board(rng.below(len(TINTS)))
  family.draw(board, content, rng)
  facts = family.facts(content)
  return Problem(
    family=family.name,
    level=level,
    image=board.image(size),
    question=rng.choice(family.questions(content)),
    answer=str(facts["answer"]),
    solution=write_solution(family, content, facts, rng),
    facts=facts,
    wrong=_wrong(family, content, facts, rng),
    content=repr((family.name, content)),
  )


def problem_rng(index: int, split: str, seed: int) -> Rng:
  """Returns the generator of a problem's random choices; the first go to `sample_content`."""
  return Rng("figures", int(seed), split, int(index))


def check(split: str, size: int) -> None:
  """Validates a split and an image size.

  Raises:
    ValueError: one of them does not exist.
  """
  if split not in SPLITS:
    raise ValueError(f"figures have no split {quoted(split)}, only {', '.join(SPLITS)}")
  if size not in SIZES:
    raise ValueError(f"figures have no size {quoted(size)}, only {', '.join(map(str, SIZES))}")


def sample_content(rng: Rng, split: str, mixture: Mixture) -> tuple[Family, int, tuple]:
  """Samples a family, a level, and a problem's content, from those of the split.

  A content is the parameters that determine a problem.

  Raises:
    RuntimeError: no content of the split was found, as it has none or too few.
  """
  weights = mixture.families
  family = FAMILIES[tuple(weights)[rng.weighted(tuple(weights.values()))]]
  level = rng.choice(mixture.levels)
  for _ in range(_TRIALS):
    content = family.content(rng, level)
    if split_of(family.name, content) == split:
      return family, level, content
  raise RuntimeError(f"no {family.name} of level {level} belongs to the split {split}")


def split_of(family: str, content: tuple) -> str:
  """Returns the split that a content belongs to."""
  return SPLITS[fingerprint(family, content) % _HELD_OUT_OF == 0]


def write_solution(family: Family, content: Any, claims: Claims, rng: Rng) -> str:
  """Writes a solution that makes the claims, in a random wording."""
  return solution(rng.choice(family.phrasings(content, claims)), claims["answer"])


def _wrong(family: Family, content: Any, facts: Claims, rng: Rng) -> tuple[Wrong, ...]:
  """Returns a solution for each mistake that leads to a wrong answer."""
  return tuple(
    Wrong(write_solution(family, content, claims, rng), str(claims["answer"]), slip, claims)
    for slip, claims in family.slips(content, rng)
    if claims["answer"] != facts["answer"]
  )
