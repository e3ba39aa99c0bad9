"""Area and perimeter of rectangles, area of L-shapes."""

from collections.abc import Iterator

from sejax.data.figures.board import BLUE, GREEN, INK, ORANGE, PALE, PAPER, UNIT, Board
from sejax.data.figures.family import Claims, Family
from sejax.data.figures.rng import Rng

_RANGES = ((2, 6), (3, 9), (5, 15))
_LEFT, _BOTTOM = 40, 188  # leaves room for labels left of and below the rectangle
_LONGEST = 160


def _draw(board: Board, content: tuple[int, int], ink: int) -> None:
  """Draws a rectangle to scale with labelled sides; small ones show their unit squares."""
  width, height = content
  squares = max(content) <= _RANGES[0][1]
  unit = _LONGEST // max(content)
  if squares:
    unit = unit // UNIT * UNIT
  right, top = _LEFT + width * unit // UNIT * UNIT, _BOTTOM - height * unit // UNIT * UNIT
  board.rect(_LEFT, top, right, _BOTTOM, ink)
  if squares:
    for column in range(1, width):
      board.rect(_LEFT + column * unit, top, _LEFT + column * unit + 4, _BOTTOM, PALE)
    for row in range(1, height):
      board.rect(_LEFT, _BOTTOM - row * unit, right, _BOTTOM - row * unit + 4, PALE)
  board.frame(_LEFT, top, right, _BOTTOM, INK)
  board.text((_LEFT + right) // 2, _BOTTOM + 18, str(width))
  board.text(_LEFT - 20, (top + _BOTTOM) // 2, str(height))


class _Rectangle(Family):
  """Content: width and height."""

  def content(self, rng: Rng, level: int) -> tuple:
    return rng.between(*_RANGES[level]), rng.between(*_RANGES[level])

  def draw(self, board: Board, content: tuple, rng: Rng) -> None:
    _draw(board, content, rng.choice((BLUE, GREEN, ORANGE)))


class _Area(_Rectangle):
  """What is the area?"""

  name = "area"

  def questions(self, content: tuple) -> tuple[str, ...]:
    return "What is the area of the rectangle?", "Find the area."

  def facts(self, content: tuple) -> Claims:
    return _area(*content)

  def slips(self, content: tuple, rng: Rng) -> Iterator[tuple[str, Claims]]:
    width, height = content
    yield "perimeter for area", _perimeter(width, height)
    yield "a side off by one", _area(width + rng.choice((1, -1)), height)
    yield "product off", dict(_area(width, height)) | {"answer": width * height + width}
    yield "sides added", {"width": width, "height": height, "sign": "+", "answer": width + height}

  def phrasings(self, content: tuple, claims: Claims) -> tuple[str, ...]:
    width, height, answer = claims["width"], claims["height"], claims["answer"]
    if "half" in claims:
      return _perimeter_phrasings(claims)
    product = f"{width} {claims.get('sign', '*')} {height} = {answer}"
    return (
      f"The sides are {width} and {height}. The area is {product}.",
      f"Width {width}, height {height}. {product}.",
      f"Area is width times height: {product}.",
    )


class _Perimeter(_Rectangle):
  """What is the perimeter?"""

  name = "perimeter"

  def questions(self, content: tuple) -> tuple[str, ...]:
    return "What is the perimeter of the rectangle?", "Find the perimeter."

  def facts(self, content: tuple) -> Claims:
    return _perimeter(*content)

  def slips(self, content: tuple, rng: Rng) -> Iterator[tuple[str, Claims]]:
    width, height = content
    right = dict(_perimeter(width, height))
    yield "area for perimeter", _area(width, height)
    yield "not doubled", right | {"answer": width + height}
    yield "a side off by one", _perimeter(width, height + rng.choice((1, -1)))
    half = width + height + rng.choice((1, -1))
    yield "sum off", right | {"half": half, "answer": 2 * half}

  def phrasings(self, content: tuple, claims: Claims) -> tuple[str, ...]:
    if "half" not in claims:
      width, height, answer = claims["width"], claims["height"], claims["answer"]
      return (f"The sides are {width} and {height}. {width} * {height} = {answer}.",)
    return _perimeter_phrasings(claims)


def _area(width: int, height: int) -> Claims:
  return {"width": width, "height": height, "answer": width * height}


def _perimeter(width: int, height: int) -> Claims:
  half = width + height
  return {"width": width, "height": height, "half": half, "answer": 2 * half}


def _perimeter_phrasings(claims: Claims) -> tuple[str, ...]:
  width, height, half, answer = (claims[name] for name in ("width", "height", "half", "answer"))
  if answer == half:
    return (f"The sides are {width} and {height}. {width} + {height} = {half}.",)
  return (
    f"The sides are {width} and {height}. {width} + {height} = {half}, 2 * {half} = {answer}.",
    f"Width {width}, height {height}: half is {half}, in all {answer}.",
    f"{width} + {height} = {half}. Twice that is {answer}.",
  )


class _Notched(Family):
  """L-shape. Content: width and height of the whole, then of the corner that is cut out."""

  name = "l_shape"
  _ranges = ((4, 6), (5, 9), (8, 14))

  def content(self, rng: Rng, level: int) -> tuple:
    width, height = rng.between(*self._ranges[level]), rng.between(*self._ranges[level])
    return width, height, rng.between(2, width - 2), rng.between(2, height - 2)

  def draw(self, board: Board, content: tuple, rng: Rng) -> None:
    # Not to scale: the labels need room in the corner that is cut out.
    ink = rng.choice((BLUE, GREEN, ORANGE))
    top, right, x, y = 12, 216, 128, 96
    board.rect(_LEFT, top, right, _BOTTOM, ink)
    board.frame(_LEFT, top, right, _BOTTOM, INK)
    board.rect(x, top, right, y, PAPER)
    board.rect(x - 4, top, x, y, INK)
    board.rect(x - 4, y, right, y + 4, INK)
    width, height, cut_width, cut_height = map(str, content)
    board.text((_LEFT + right) // 2, _BOTTOM + 18, width)
    board.text(_LEFT - 20, (top + _BOTTOM) // 2, height)
    board.text((x + right) // 2 + 8, y - 18, cut_width)
    board.text(x + 20, (top + y) // 2 - 12, cut_height)

  def questions(self, content: tuple) -> tuple[str, ...]:
    return "What is the area of the shape?", "Find the area of the shape."

  def facts(self, content: tuple) -> Claims:
    return self._claims(*content)

  def slips(self, content: tuple, rng: Rng) -> Iterator[tuple[str, Claims]]:
    width, height, cut_width, cut_height = content
    right = dict(self.facts(content))
    whole, cut = width * height, cut_width * cut_height
    yield "cut not taken off", right | {"cut": 0, "answer": whole}
    yield "cut added", right | {"sign": "+", "answer": whole + cut}
    yield "product off", right | {"whole": whole + width, "answer": whole + width - cut}
    yield "difference off", right | {"answer": whole - cut + rng.choice((1, -1, 10))}

  def phrasings(self, content: tuple, claims: Claims) -> tuple[str, ...]:
    width, height, cut_width, cut_height = content
    whole, cut, answer = claims["whole"], claims["cut"], claims["answer"]
    if not cut:
      return (f"The shape is {width} * {height} = {answer}.",)
    end = f"{whole} {claims.get('sign', '-')} {cut} = {answer}"
    return (
      f"{width} * {height} = {whole}. {cut_width} * {cut_height} = {cut}. {end}.",
      f"Whole {width} * {height} = {whole}, cut {cut_width} * {cut_height} = {cut}: {end}.",
    )

  def _claims(self, width: int, height: int, cut_width: int, cut_height: int) -> Claims:
    whole, cut = width * height, cut_width * cut_height
    return {"whole": whole, "cut": cut, "answer": whole - cut}


FAMILIES = (_Area(), _Perimeter(), _Notched())
