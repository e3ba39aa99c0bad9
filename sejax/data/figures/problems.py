"""Problems by index: the mixture of families and levels, the split, and the making of one."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sejax.data.figures import charts, clocks, counting, numbers, rectangles, triangles
from sejax.data.figures.bits import Bits, fingerprint
from sejax.data.figures.board import SIZES, TINTS, Board
from sejax.data.figures.family import LEVELS, Claims, Family, Problem, Wrong, solution
from sejax.errors import quoted

_ROOMS = (counting, charts, clocks, numbers, rectangles, triangles)
FAMILIES: Mapping[str, Family] = {
  family.name: family for room in _ROOMS for family in room.FAMILIES
}
LEARNABLE = ("dots", "colours", "bars", "clock")
SPLITS = ("train", "heldout")

_HELD_OUT_OF = 8  # one content in 8 is held out
_TRIALS = 2000


@dataclasses.dataclass(frozen=True)
class Mixture:
  """Which problems are drawn.

  Attributes:
    families: the relative weight of each family by its name; all alike where it is None.
    levels: the levels of difficulty, drawn alike.

  Raises:
    ValueError: a family or level that does not exist, weights that give no distribution.
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
  """Returns the problem with an index: the same at any time, on any machine, in any order.

  Args:
    index: any integer from 0.
    split: one of `SPLITS`. A content belongs to one of them by its hash alone, so no problem of
      the one occurs in the other, whatever index, level or seed.
    mixture: what to draw from; all families and levels by default.
    size: pixels a side of the picture, one of `SIZES`.
    seed: names the sequence of problems.

  Raises:
    ValueError: a negative index, an unknown split or size.
  """
  if index < 0:
    raise ValueError(f"index {index} of a figure must be at least 0")
  check(split, size)
  bits = bits_of(index, split, seed)
  family, level, content = pick(bits, split, mixture or Mixture())
  board = Board(bits.below(len(TINTS)))
  family.draw(board, content, bits)
  facts = family.facts(content)
  return Problem(
    family=family.name,
    level=level,
    image=board.image(size),
    question=bits.choice(family.questions(content)),
    answer=str(facts["answer"]),
    solution=tell(family, content, facts, bits),
    facts=facts,
    wrong=_wrong(family, content, facts, bits),
    content=repr((family.name, content)),
  )


def bits_of(index: int, split: str, seed: int) -> Bits:
  """Returns the random bits of the problem with an index, of which `pick` takes the first."""
  return Bits("figures", int(seed), split, int(index))


def check(split: str, size: int) -> None:
  """Refuses a split or size that does not exist.

  Raises:
    ValueError: naming it and those that do.
  """
  if split not in SPLITS:
    raise ValueError(f"figures have no split {quoted(split)}, only {', '.join(SPLITS)}")
  if size not in SIZES:
    raise ValueError(f"figures have no size {quoted(size)}, only {', '.join(map(str, SIZES))}")


def pick(bits: Bits, split: str, mixture: Mixture) -> tuple[Family, int, tuple]:
  """Returns a random family and level of the mixture, and a content that belongs to the split.

  Raises:
    RuntimeError: of many contents none did, so the family has too few.
  """
  weights = mixture.families
  family = FAMILIES[tuple(weights)[bits.weighted(tuple(weights.values()))]]
  level = bits.choice(mixture.levels)
  for _ in range(_TRIALS):
    content = family.content(bits, level)
    if split_of(family.name, content) == split:
      return family, level, content
  raise RuntimeError(f"no {family.name} of level {level} belongs to the split {split}")


def split_of(family: str, content: tuple) -> str:
  """Returns the split that a content belongs to."""
  return SPLITS[fingerprint(family, content) % _HELD_OUT_OF == 0]


def tell(family: Family, content: Any, claims: Claims, bits: Bits) -> str:
  """Returns a solution that makes the claims, in one of the ways to tell them."""
  return solution(bits.choice(family.tellings(content, claims)), claims["answer"])


def _wrong(family: Family, content: Any, facts: Claims, bits: Bits) -> tuple[Wrong, ...]:
  """The slips that matter, each written out."""
  return tuple(
    Wrong(tell(family, content, claims, bits), str(claims["answer"]), slip, claims)
    for slip, claims in family.slips(content, bits)
    if claims["answer"] != facts["answer"]
  )
