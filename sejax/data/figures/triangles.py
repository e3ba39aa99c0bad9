"""The missing angle of a triangle, and the missing side of a right triangle."""

from collections.abc import Iterator

from sejax.data.figures import angles
from sejax.data.figures.board import INK, POINTS, UNIT, Board
from sejax.data.figures.family import Claims, Family
from sejax.data.figures.rng import Rng

_TRIPLES = (
  ((3, 4, 5), (6, 8, 10), (9, 12, 15)),
  ((5, 12, 13), (8, 15, 17), (12, 16, 20), (15, 20, 25)),
  ((7, 24, 25), (20, 21, 29), (10, 24, 26), (12, 35, 37), (9, 40, 41), (18, 24, 30)),
)


class _Angle(Family):
  """Content: the angles at left, right and top, and the index of the missing one."""

  name = "angle"
  _steps = (10, 5, 5)
  _ranges = ((40, 80), (30, 90), (25, 120))

  def content(self, rng: Rng, level: int) -> tuple:
    step, (low, high) = self._steps[level], self._ranges[level]
    while True:
      left, right = (step * rng.between(low // step, high // step) for _ in range(2))
      if low <= 180 - left - right <= high:
        return (left, right, 180 - left - right), rng.below(3)

  def draw(self, board: Board, content: tuple, rng: Rng) -> None:
    (left, right, top), missing = content
    # Angles in steps of 2.5 degrees; the law of sines gives the apex for a base of length `ONE`.
    a, b = 2 * left // 5, 2 * right // 5
    sine_top = angles.sine(2 * top // 5)
    rise = angles.sine(a) * angles.sine(b) // sine_top
    run = angles.cosine(a) * angles.sine(b) // sine_top
    reach = max(angles.ONE, run) - min(0, run)
    base = min(176 * angles.ONE // reach, 148 * angles.ONE // rise)
    width = angles.scaled(base, reach)
    x0 = (POINTS - width) // 2 - angles.scaled(base, min(0, run))
    bottom = 186
    apex = x0 + angles.scaled(base, run), bottom - angles.scaled(base, rise)
    board.outline([(x0, bottom), (x0 + base, bottom), apex], INK, 6)
    places = ((x0, bottom + 18), (x0 + base, bottom + 18), (apex[0], apex[1] - 18))
    for index, (angle, (x, y)) in enumerate(zip(content[0], places, strict=True)):
      text = "x" if index == missing else f"{angle}°"
      half = (4 * len(text) - 1) * UNIT // 2
      board.text(min(max(x, half), POINTS - half - UNIT), y, text)

  def questions(self, content: tuple) -> tuple[str, ...]:
    return "How many degrees is angle x?", "What is the angle x?", "Find x."

  def facts(self, content: tuple) -> Claims:
    return _angle(*_known(content))

  def slips(self, content: tuple, rng: Rng) -> Iterator[tuple[str, Claims]]:
    first, second = _known(content)
    yield "not taken from 180", dict(_angle(first, second)) | {"answer": first + second}
    yield "an angle misread", _angle(first + rng.choice((5, -5, 10, -10)), second)
    off = first + second + rng.choice((10, -10))
    yield "sum off", dict(_angle(first, second)) | {"sum": off, "answer": 180 - off}
    yield "one angle forgotten", {"first": first, "sum": first, "answer": 180 - first}

  def phrasings(self, content: tuple, claims: Claims) -> tuple[str, ...]:
    total, answer, first = claims["sum"], claims["answer"], claims["first"]
    if "second" not in claims:
      return (f"The angle is {first}. 180 - {first} = {answer}.",)
    add = f"{first} + {claims['second']} = {total}"
    if total == answer:
      return (f"The angles are {first} and {claims['second']}. {add}.",)
    return (
      f"{add}. 180 - {total} = {answer}.",
      f"The angles are {first} and {claims['second']}, together {total}. 180 - {total} = {answer}.",
      f"All add up to 180. {add}, so x is {answer}.",
    )


def _known(content: tuple) -> list[int]:
  corners, missing = content
  return [angle for index, angle in enumerate(corners) if index != missing]


def _angle(first: int, second: int) -> Claims:
  total = first + second
  return {"first": first, "second": second, "sum": total, "answer": 180 - total}


class _RightTriangle(Family):
  """A right triangle with one side to find.

  Content: (width, height, hypotenuse), the index of the side to find, whether it is drawn mirrored.
  """

  name = "right_triangle"

  def content(self, rng: Rng, level: int) -> tuple:
    short, long, slope = rng.choice(_TRIPLES[level])
    legs = (short, long) if rng.below(2) else (long, short)
    return (*legs, slope), rng.below(3), rng.below(2)

  def draw(self, board: Board, content: tuple, rng: Rng) -> None:
    sides, missing, mirrored = content
    labels = ["x" if index == missing else str(side) for index, side in enumerate(sides)]
    # Not to scale, but the longer leg is the longer one.
    width, height = (152, 108) if sides[0] > sides[1] else (112, 152)
    left, bottom = 44, 184
    top, right = bottom - height, left + width

    def mirror(x: int) -> int:
      return POINTS - x if mirrored else x

    corners = [(left, bottom), (right, bottom), (left, top)]
    board.outline([(mirror(x), y) for x, y in corners], INK, 6)
    near, far = sorted((mirror(left), mirror(left + 16)))
    board.frame(near, bottom - 16, far, bottom, INK)
    board.text(mirror((left + right) // 2), bottom + 18, labels[0])
    board.text(mirror(left - 22), (top + bottom) // 2, labels[1])
    board.text(mirror((left + right) // 2 + 22), (top + bottom) // 2 - 18, labels[2])

  def questions(self, content: tuple) -> tuple[str, ...]:
    return "How long is side x?", "What is the length x?", "Find the side x."

  def facts(self, content: tuple) -> Claims:
    (width, height, slope), missing, _ = content
    first, second = ((height, slope), (width, slope), (width, height))[missing]
    squares = first * first, second * second
    square = sum(squares) if missing == 2 else squares[1] - squares[0]
    answer = (width, height, slope)[missing]
    return {"first": squares[0], "second": squares[1], "square": square, "answer": answer}

  def slips(self, content: tuple, rng: Rng) -> Iterator[tuple[str, Claims]]:
    (width, height, slope), missing, _ = content
    right = dict(self.facts(content))
    answer = right["answer"]
    yield "root off", right | {"answer": answer + rng.choice((1, -1))}
    if missing == 2:
      yield "sides added", {"plain": f"{width} + {height}", "answer": width + height}
    else:
      leg = height if missing == 0 else width
      yield "sides subtracted", {"plain": f"{slope} - {leg}", "answer": slope - leg}
    yield "far off", right | {"answer": answer + rng.choice((3, 5, 10))}

  def phrasings(self, content: tuple, claims: Claims) -> tuple[str, ...]:
    if "plain" in claims:
      return (f"The side is {claims['plain']} = {claims['answer']}.",)
    first, second, square, answer = (claims[key] for key in ("first", "second", "square", "answer"))
    line = f"{first} + {second}" if content[1] == 2 else f"{second} - {first}"
    return (
      f"{line} = {square}. The root is {answer}.",
      f"The squares give {line} = {square} = {answer} * {answer}.",
    )


FAMILIES = (_Angle(), _RightTriangle())
