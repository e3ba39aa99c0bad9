"""Counting dots, all or those of one colour, on a grid of four by four cells."""

from collections.abc import Iterator, Sequence

from sejax.data.figures.board import BLUE, COLOURS, INK, PURPLE, Board
from sejax.data.figures.family import Claims, Family
from sejax.data.figures.rng import Rng

ROWS = 4
_CELL = 56
_NAMES = tuple(f"row {row + 1}" for row in range(ROWS))


def scatter(rng: Rng, count: int) -> tuple[tuple[int, int, int], ...]:
  """Places dots in different cells: (cell, x, y) in reading order, x and y relative to the centre.

  They touch neither each other nor the edge.
  """
  cells = sorted(rng.sample(range(ROWS * ROWS), count))
  return tuple((cell, rng.between(-8, 8), rng.between(-8, 8)) for cell in cells)


def draw_dot(board: Board, dot: tuple[int, int, int], radius: int, ink: int) -> None:
  """Draws a dot that `scatter` placed."""
  cell, x, y = dot
  row, column = divmod(cell, ROWS)
  centre = _CELL // 2
  board.disc(column * _CELL + centre + x, row * _CELL + centre + y, radius, ink)


def per_row(cells: Sequence[int]) -> dict[str, int]:
  """Counts the cells in each row, and all of them as the answer."""
  counts = [sum(cell // ROWS == row for cell in cells) for row in range(ROWS)]
  return dict(zip(_NAMES, counts, strict=True)) | {"answer": len(cells)}


def miscounted(facts: Claims, rng: Rng, rows: int, by: tuple[int, ...]) -> Claims:
  """Miscounts random rows, all in the same direction.

  Args:
    rng: chooses the rows and the error.
    rows: number of rows to miscount.
    by: errors to choose from. Counts stay between 0 and 4, the plausible range.
  """
  error, wrong_rows = rng.choice(by), rng.sample(range(ROWS), rows)
  counts = _shifted(facts, wrong_rows, error)
  if sum(counts) == facts["answer"]:  # all at the limit
    counts = _shifted(facts, wrong_rows, -error)
  return dict(zip(_NAMES, counts, strict=True)) | {"answer": sum(counts)}


def _shifted(facts: Claims, rows: Sequence[int], error: int) -> list[int]:
  """Returns the count of each row, with an error added in some rows."""
  counts = (int(facts[name]) + error * (row in rows) for row, name in enumerate(_NAMES))
  return [min(max(count, 0), ROWS) for count in counts]


def row_slips(facts: Claims, rng: Rng) -> Iterator[tuple[str, Claims]]:
  """Yields typical mistakes of counting row by row."""
  yield "one row off by one", miscounted(facts, rng, 1, (1, -1))
  yield "rows off by one", miscounted(facts, rng, 2, (1, -1))
  yield "rows far off", miscounted(facts, rng, 3, (2, -2))
  yield "sum off", dict(facts) | {"answer": max(int(facts["answer"]) + rng.choice((1, -1)), 0)}


def row_phrasings(claims: Claims, what: str) -> tuple[str, ...]:
  """Returns wordings of a count row by row."""
  counts = [str(claims[name]) for name in _NAMES]
  total = claims["answer"]
  return (
    f"By row the {what} are {', '.join(counts)}. {' + '.join(counts)} = {total}.",
    f"Rows have {' + '.join(counts)} = {total} {what}.",
    f"I count {what} in rows: {' + '.join(counts)}. In all {total}.",
  )


class _Dots(Family):
  """How many dots are there? Content: the dots of `scatter`."""

  name = "dots"
  _counts = ((1, 6), (4, 10), (8, 16))

  def content(self, rng: Rng, level: int) -> tuple:
    return scatter(rng, rng.between(*self._counts[level]))

  def draw(self, board: Board, content: tuple, rng: Rng) -> None:
    radius, ink = rng.between(14, 18), rng.choice((INK, BLUE, PURPLE))
    for dot in content:
      draw_dot(board, dot, radius, ink)

  def questions(self, content: tuple) -> tuple[str, ...]:
    return "How many dots are there?", "How many dots?", "Count the dots."

  def facts(self, content: tuple) -> Claims:
    return per_row([cell for cell, _, _ in content])

  def slips(self, content: tuple, rng: Rng) -> Iterator[tuple[str, Claims]]:
    return row_slips(self.facts(content), rng)

  def phrasings(self, content: tuple, claims: Claims) -> tuple[str, ...]:
    return row_phrasings(claims, "dots")


class _Colours(Family):
  """How many dots of one colour are there?

  Content: that colour, the other colours, the dots of `scatter`, the colour of each dot.
  """

  name = "colours"
  _counts = ((2, 6, 2), (4, 10, 3), (8, 16, 4))

  def content(self, rng: Rng, level: int) -> tuple:
    low, high, kinds = self._counts[level]
    palette = rng.sample(tuple(COLOURS), kinds)
    dots = scatter(rng, rng.between(low, high))
    return palette[0], palette[1:], dots, tuple(rng.choice(palette) for _ in dots)

  def draw(self, board: Board, content: tuple, rng: Rng) -> None:
    _, _, dots, colours = content
    radius = rng.between(14, 18)
    for dot, colour in zip(dots, colours, strict=True):
      draw_dot(board, dot, radius, COLOURS[colour])

  def questions(self, content: tuple) -> tuple[str, ...]:
    colour = content[0]
    return (
      f"How many {colour} dots are there?",
      f"How many {colour} dots?",
      f"Count the {colour} dots.",
    )

  def facts(self, content: tuple) -> Claims:
    return self._count(content, content[0])

  def slips(self, content: tuple, rng: Rng) -> Iterator[tuple[str, Claims]]:
    _, others, dots, _ = content
    yield from row_slips(self.facts(content), rng)
    # These solutions claim to count the right colour.
    yield "another colour", self._count(content, rng.choice(others))
    yield "all colours", per_row([cell for cell, _, _ in dots])

  def phrasings(self, content: tuple, claims: Claims) -> tuple[str, ...]:
    return row_phrasings(claims, f"{content[0]} dots")

  def _count(self, content: tuple, colour: str) -> Claims:
    _, _, dots, colours = content
    cells = [dot[0] for dot, dot_colour in zip(dots, colours, strict=True) if dot_colour == colour]
    return per_row(cells)


FAMILIES = (_Dots(), _Colours())
