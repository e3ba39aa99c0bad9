"""Counting dots, all of them or those of one colour; they lie in four rows of four places."""

from collections.abc import Iterator, Sequence

from sejax.data.figures.bits import Bits
from sejax.data.figures.board import BLUE, COLOURS, INK, PURPLE, Board
from sejax.data.figures.family import Claims, Family

ROWS = 4
_CELL = 56
_NAMES = tuple(f"row {row + 1}" for row in range(ROWS))


def scatter(bits: Bits, count: int) -> tuple[tuple[int, int, int], ...]:
  """Returns (place, x, y) of dots, in reading order, that touch neither each other nor the edge."""
  places = sorted(bits.sample(range(ROWS * ROWS), count))
  return tuple((place, bits.between(-8, 8), bits.between(-8, 8)) for place in places)


def draw_dot(board: Board, dot: tuple[int, int, int], radius: int, ink: int) -> None:
  """Draws a dot of `scatter`."""
  place, x, y = dot
  centre = _CELL // 2
  board.disc(place % ROWS * _CELL + centre + x, place // ROWS * _CELL + centre + y, radius, ink)


def per_row(places: Sequence[int]) -> dict[str, int]:
  """Returns how many places lie in each row, and their number."""
  counts = [sum(place // ROWS == row for place in places) for row in range(ROWS)]
  return dict(zip(_NAMES, counts, strict=True)) | {"answer": len(places)}


def miscounted(facts: Claims, bits: Bits, rows: int, by: tuple[int, ...]) -> Claims:
  """Returns the facts with other numbers in some rows, all off in the same direction.

  A row keeps within 0 and 4, since no one sees more.
  """
  step, wrong = bits.choice(by), bits.sample(range(ROWS), rows)

  def counted(by: int) -> list[int]:
    seen = (int(facts[name]) + by * (row in wrong) for row, name in enumerate(_NAMES))
    return [min(max(count, 0), ROWS) for count in seen]

  counts = counted(step)
  if sum(counts) == facts["answer"]:
    counts = counted(-step)
  return dict(zip(_NAMES, counts, strict=True)) | {"answer": sum(counts)}


def row_slips(facts: Claims, bits: Bits) -> Iterator[tuple[str, Claims]]:
  """Yields the slips of one who counts row by row."""
  yield "one row off by one", miscounted(facts, bits, 1, (1, -1))
  yield "rows off by one", miscounted(facts, bits, 2, (1, -1))
  yield "rows far off", miscounted(facts, bits, 3, (2, -2))
  yield "sum off", dict(facts) | {"answer": max(int(facts["answer"]) + bits.choice((1, -1)), 0)}


def row_tellings(claims: Claims, what: str) -> tuple[str, ...]:
  """Returns the ways to tell a count by rows."""
  counts = [str(claims[name]) for name in _NAMES]
  total = claims["answer"]
  return (
    f"By row the {what} are {', '.join(counts)}. {' + '.join(counts)} = {total}.",
    f"Rows have {' + '.join(counts)} = {total} {what}.",
    f"I count {what} in rows: {' + '.join(counts)}. In all {total}.",
  )


class _Dots(Family):
  """How many dots are there?"""

  name = "dots"
  _counts = ((1, 6), (4, 10), (8, 16))

  def content(self, bits: Bits, level: int) -> tuple:
    return scatter(bits, bits.between(*self._counts[level]))

  def draw(self, board: Board, content: tuple, bits: Bits) -> None:
    radius, ink = bits.between(14, 18), bits.choice((INK, BLUE, PURPLE))
    for dot in content:
      draw_dot(board, dot, radius, ink)

  def questions(self, content: tuple) -> tuple[str, ...]:
    return "How many dots are there?", "How many dots?", "Count the dots."

  def facts(self, content: tuple) -> Claims:
    return per_row([place for place, _, _ in content])

  def slips(self, content: tuple, bits: Bits) -> Iterator[tuple[str, Claims]]:
    return row_slips(self.facts(content), bits)

  def tellings(self, content: tuple, claims: Claims) -> tuple[str, ...]:
    return row_tellings(claims, "dots")


class _Colours(Family):
  """How many dots of one colour are there among others?"""

  name = "colours"
  _counts = ((2, 6, 2), (4, 10, 3), (8, 16, 4))

  def content(self, bits: Bits, level: int) -> tuple:
    low, high, kinds = self._counts[level]
    palette = bits.sample(tuple(COLOURS), kinds)
    dots = scatter(bits, bits.between(low, high))
    return palette[0], palette[1:], dots, tuple(bits.choice(palette) for _ in dots)

  def draw(self, board: Board, content: tuple, bits: Bits) -> None:
    _, _, dots, colours = content
    radius = bits.between(14, 18)
    for dot, colour in zip(dots, colours, strict=True):
      draw_dot(board, dot, radius, COLOURS[colour])

  def questions(self, content: tuple) -> tuple[str, ...]:
    asked = content[0]
    return (
      f"How many {asked} dots are there?",
      f"How many {asked} dots?",
      f"Count the {asked} dots.",
    )

  def facts(self, content: tuple) -> Claims:
    return self._count(content, content[0])

  def slips(self, content: tuple, bits: Bits) -> Iterator[tuple[str, Claims]]:
    _, others, dots, _ = content
    yield from row_slips(self.facts(content), bits)
    # What follows is told as if it were the colour asked for.
    yield "another colour", self._count(content, bits.choice(others))
    yield "all colours", per_row([place for place, _, _ in dots])

  def tellings(self, content: tuple, claims: Claims) -> tuple[str, ...]:
    return row_tellings(claims, f"{content[0]} dots")

  def _count(self, content: tuple, colour: str) -> Claims:
    _, _, dots, colours = content
    places = [dot[0] for dot, its in zip(dots, colours, strict=True) if its == colour]
    return per_row(places)


FAMILIES = (_Dots(), _Colours())
