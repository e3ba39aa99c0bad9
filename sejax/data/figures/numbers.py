"""Number lines, coordinates, sums of numbers or dice, and fractions."""

from collections.abc import Iterator

from sejax.data.figures.board import BLUE, GREEN, INK, ORANGE, PALE, PURPLE, RED, Board
from sejax.data.figures.family import Claims, Family
from sejax.data.figures.rng import Rng


class _NumberLine(Family):
  """Content: first number, step between ticks, number of ticks, index of the marked tick."""

  name = "number_line"
  _steps = ((1,), (2, 5, 10), (3, 4, 20))

  def content(self, rng: Rng, level: int) -> tuple:
    step = rng.choice(self._steps[level])
    start = step * rng.between(0, (1, 3, 2)[level]) if step < 20 else 0
    last = min(10, (99 - start) // step)
    number = rng.between(min(5, last), last)
    return start, step, number, rng.between(1, number - 1)

  def draw(self, board: Board, content: tuple, rng: Rng) -> None:
    start, step, number, marked = content
    pitch = 176 // number // 4 * 4
    left, y = 24 + (176 - pitch * number) // 8 * 4, 128
    board.rect(left, y, left + pitch * number + 4, y + 4, INK)
    for tick in range(number + 1):
      x = left + tick * pitch
      board.rect(x, y - 12, x + 4, y + 16, INK)
    labels = ((0, start), (1, start + step), (number, start + step * number))
    for tick, value in labels:
      # The second label is lower, so that no two touch.
      board.text(left + tick * pitch + 2, y + (56 if tick == 1 else 30), str(value))
    x = left + marked * pitch + 2
    ink = rng.choice((RED, BLUE, PURPLE))
    board.rect(x - 4, y - 60, x + 4, y - 30, ink)
    board.polygon([(x - 14, y - 34), (x + 14, y - 34), (x, y - 16)], ink)

  def questions(self, content: tuple) -> tuple[str, ...]:
    return "Which number does the arrow show?", "What number is marked?"

  def facts(self, content: tuple) -> Claims:
    start, step, _, marked = content
    return self._claims(start, step, marked)

  def slips(self, content: tuple, rng: Rng) -> Iterator[tuple[str, Claims]]:
    start, step, _, marked = content
    yield "a tick off", self._claims(start, step, marked + rng.choice((1, -1)))
    yield "ticks far off", self._claims(start, step, marked + rng.between(3, 5))
    yield "wrong step", self._claims(start, step + 1, marked)
    if start:
      yield "counted from 0", self._claims(0, step, marked)

  def phrasings(self, content: tuple, claims: Claims) -> tuple[str, ...]:
    start, step, ticks, answer = (claims[key] for key in ("start", "step", "ticks", "answer"))
    return (
      f"From {start} in steps of {step}. {ticks} steps: {start} + {ticks} * {step} = {answer}.",
      f"A step is {step}. The arrow is {ticks} steps after {start}: {answer}.",
    )

  def _claims(self, start: int, step: int, ticks: int) -> Claims:
    return {"start": start, "step": step, "ticks": ticks, "answer": start + step * ticks}


class _Coordinates(Family):
  """Content: size of the grid, x and y of the dot."""

  name = "coordinates"
  _sizes = (4, 6, 8)

  def content(self, rng: Rng, level: int) -> tuple:
    size = self._sizes[level]
    return size, rng.between(0, size), rng.between(0, size)

  def draw(self, board: Board, content: tuple, rng: Rng) -> None:
    size, x, y = content
    pitch = 168 // size // 4 * 4
    left, bottom = 32, 184
    right, top = left + size * pitch, bottom - size * pitch
    every = 1 if size < 8 else 2
    for line in range(1, size + 1):
      board.rect(left + line * pitch, top, left + line * pitch + 4, bottom, PALE)
      board.rect(left, bottom - line * pitch, right + 4, bottom - line * pitch + 4, PALE)
    board.rect(left, top, left + 4, bottom + 4, INK)
    board.rect(left, bottom, right + 4, bottom + 4, INK)
    for line in range(0, size + 1, every):
      board.text(left + line * pitch + 2, bottom + 24, str(line))
      board.text(left - 18, bottom - line * pitch + 2, str(line))
    board.disc(left + x * pitch + 2, bottom - y * pitch + 2, 10, rng.choice((RED, BLUE, PURPLE)))

  def questions(self, content: tuple) -> tuple[str, ...]:
    return "What are the coordinates of the dot?", "Where is the dot?"

  def facts(self, content: tuple) -> Claims:
    return self._claims(*content[1:])

  def slips(self, content: tuple, rng: Rng) -> Iterator[tuple[str, Claims]]:
    size, x, y = content
    yield "coordinates swapped", self._claims(y, x)
    yield "x off by one", self._claims(abs(x + rng.choice((1, -1))), y)
    yield "y off by one", self._claims(x, abs(y + rng.choice((1, -1))))
    half = size // 2
    yield "far off", self._claims((x + half) % (size + 1), (y + half) % (size + 1))

  def phrasings(self, content: tuple, claims: Claims) -> tuple[str, ...]:
    x, y = claims["x"], claims["y"]
    return (
      f"The dot is {x} to the right and {y} up.",
      f"Below the dot is {x}, to its left is {y}.",
      f"x is {x} and y is {y}.",
    )

  def _claims(self, x: int, y: int) -> Claims:
    return {"x": x, "y": y, "answer": f"({x}, {y})"}


class _Sum(Family):
  """Content: the numbers to add."""

  name = "sum"
  _kinds = ((2, 1, 9), (3, 1, 9), (3, 10, 40))
  _places = tuple((x, y) for y in (40, 112, 184) for x in (44, 112, 180))

  def content(self, rng: Rng, level: int) -> tuple:
    number, low, high = self._kinds[level]
    return tuple(rng.between(low, high) for _ in range(number))

  def draw(self, board: Board, content: tuple, rng: Rng) -> None:
    ink = rng.choice((RED, BLUE, GREEN, ORANGE))
    places = sorted(rng.sample(range(len(self._places)), len(content)))
    for place, value in zip(places, content, strict=True):
      x, y = self._places[place]
      board.frame(x - 28, y - 24, x + 28, y + 24, ink)
      board.text(x, y, str(value))

  def questions(self, content: tuple) -> tuple[str, ...]:
    return "What is the sum of the numbers?", "Add the numbers."

  def facts(self, content: tuple) -> Claims:
    return _sum_claims(content)

  def slips(self, content: tuple, rng: Rng) -> Iterator[tuple[str, Claims]]:
    return _sum_slips(content, 9 if max(content) < 10 else 40, rng)

  def phrasings(self, content: tuple, claims: Claims) -> tuple[str, ...]:
    return _sum_phrasings(claims, "The numbers are")


class _Dice(Family):
  """Content: positions of the dice, faces of the dice."""

  name = "dice"
  _places = ((60, 60), (164, 60), (60, 164), (164, 164))
  _pips = (
    ((0, 0),),
    ((-1, -1), (1, 1)),
    ((-1, -1), (0, 0), (1, 1)),
    ((-1, -1), (1, -1), (-1, 1), (1, 1)),
    ((-1, -1), (1, -1), (0, 0), (-1, 1), (1, 1)),
    ((-1, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (1, 1)),
  )

  def content(self, rng: Rng, level: int) -> tuple:
    places = tuple(sorted(rng.sample(range(4), 2 + level)))
    return places, tuple(rng.between(1, 6) for _ in places)

  def draw(self, board: Board, content: tuple, rng: Rng) -> None:
    ink = rng.choice((INK, RED, BLUE))
    for place, face in zip(*content, strict=True):
      x, y = self._places[place]
      board.frame(x - 44, y - 44, x + 44, y + 44, ink)
      for dx, dy in self._pips[face - 1]:
        board.disc(x + 24 * dx, y + 24 * dy, 8, ink)

  def questions(self, content: tuple) -> tuple[str, ...]:
    return "What is the sum of the dice?", "Add the dice."

  def facts(self, content: tuple) -> Claims:
    return _sum_claims(content[1])

  def slips(self, content: tuple, rng: Rng) -> Iterator[tuple[str, Claims]]:
    return _sum_slips(content[1], 6, rng)

  def phrasings(self, content: tuple, claims: Claims) -> tuple[str, ...]:
    return _sum_phrasings(claims, "The dice show")


def _sum_claims(values: tuple[int, ...]) -> dict[str, int]:
  return {f"number {index + 1}": value for index, value in enumerate(values)} | {
    "answer": sum(values)
  }


def _sum_slips(values: tuple[int, ...], highest: int, rng: Rng) -> Iterator[tuple[str, Claims]]:
  index = rng.below(len(values))
  near = values[index] + (1 if values[index] < highest else -1)
  far = (values[index] + highest // 2 - 1) % highest + 1
  for slip, value in (("a number misread", near), ("a number far off", far)):
    yield slip, _sum_claims((*values[:index], value, *values[index + 1 :]))
  yield "a number forgotten", _sum_claims(values[:-1])
  yield "sum off", _sum_claims(values) | {"answer": sum(values) + rng.choice((1, -1, 10))}


def _sum_phrasings(claims: Claims, begin: str) -> tuple[str, ...]:
  values = [str(value) for name, value in claims.items() if name != "answer"]
  line = f"{' + '.join(values)} = {claims['answer']}"
  if len(values) == 1:
    return (f"{begin} {values[0]}.",)
  return f"{begin} {', '.join(values[:-1])} and {values[-1]}. {line}.", f"{begin} {line}."


class _Fraction(Family):
  """Content: rows, columns and indices of the shaded cells."""

  name = "fraction"
  _grids = (((1, 3), (1, 4), (1, 5)), ((2, 2), (2, 3), (2, 4)), ((3, 3), (2, 5), (3, 4)))

  def content(self, rng: Rng, level: int) -> tuple:
    rows, columns = rng.choice(self._grids[level])
    cells = rows * columns
    shaded = tuple(sorted(rng.sample(range(cells), rng.between(1, cells - 1))))
    return rows, columns, shaded

  def draw(self, board: Board, content: tuple, rng: Rng) -> None:
    rows, columns, shaded = content
    side = min(192 // columns // 4 * 4, 64)
    left, top = (224 - side * columns) // 8 * 4, (224 - side * rows) // 8 * 4
    ink = rng.choice((BLUE, GREEN, ORANGE, PURPLE))
    for cell in range(rows * columns):
      row, column = divmod(cell, columns)
      x, y = left + column * side, top + row * side
      if cell in shaded:
        board.rect(x, y, x + side, y + side, ink)
      board.frame(x, y, x + side + 4, y + side + 4, INK)

  def questions(self, content: tuple) -> tuple[str, ...]:
    return "What fraction is shaded?", "Which part is shaded?"

  def facts(self, content: tuple) -> Claims:
    rows, columns, shaded = content
    return self._claims(len(shaded), rows * columns)

  def slips(self, content: tuple, rng: Rng) -> Iterator[tuple[str, Claims]]:
    rows, columns, shaded = content
    number, cells = len(shaded), rows * columns
    yield "shaded off by one", self._claims(number - 1 or 2, cells)
    yield "cells off by one", self._claims(number, cells + 1)
    if 2 * number != cells:
      yield "the blank part", self._claims(cells - number, cells)
      yield "shaded to blank", self._claims(number, cells - number)

  def phrasings(self, content: tuple, claims: Claims) -> tuple[str, ...]:
    shaded, cells, answer = claims["shaded"], claims["cells"], claims["answer"]
    return (
      f"There are {cells} cells, {shaded} of them shaded. That is {answer}.",
      f"{shaded} of {cells} cells are shaded: {answer}.",
    )

  def _claims(self, shaded: int, cells: int) -> Claims:
    return {"shaded": shaded, "cells": cells, "answer": f"{shaded}/{cells}"}


FAMILIES = (_NumberLine(), _Coordinates(), _Sum(), _Dice(), _Fraction())
