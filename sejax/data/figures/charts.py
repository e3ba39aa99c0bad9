"""Bar charts: read a bar, find the tallest or shortest, subtract or add two."""

from collections.abc import Iterator

from sejax.data.figures.board import BLUE, GREEN, INK, ORANGE, PALE, PURPLE, RED, Board
from sejax.data.figures.family import Claims, Family
from sejax.data.figures.rng import Rng

_LETTERS = "ABCDE"
_BOTTOM, _STEP, _HIGHEST = 188, 20, 8
_LEFT, _RIGHT = 28, 220
_VALUE, _TALLEST, _SHORTEST, _DIFFERENCE, _TOTAL = "value", "tallest", "shortest", "less", "more"


class _Bars(Family):
  """Content: kind of question, letters of the bars in the question, values of all bars."""

  name = "bars"
  _kinds = ((_VALUE,), (_VALUE, _TALLEST, _SHORTEST), (_DIFFERENCE, _TOTAL))

  def content(self, rng: Rng, level: int) -> tuple:
    number = 3 + level
    kind = rng.choice(self._kinds[level])
    if kind in (_TALLEST, _SHORTEST):  # distinct values, so that the answer is unique
      return kind, "", rng.sample(range(1, _HIGHEST + 1), number)
    values = tuple(rng.between(1, _HIGHEST) for _ in range(number))
    first, second = rng.sample(range(number), 2)
    if kind == _VALUE:
      return kind, _LETTERS[first], values
    if kind == _DIFFERENCE and values[first] == values[second]:
      kind = _TOTAL  # neither bar is taller
    if values[first] < values[second]:
      first, second = second, first
    return kind, _LETTERS[first] + _LETTERS[second], values

  def draw(self, board: Board, content: tuple, rng: Rng) -> None:
    _, _, values = content
    for height in range(1, _HIGHEST + 1):
      y = _BOTTOM - height * _STEP
      board.rect(_LEFT, y, _RIGHT, y + (4 if height % 2 == 0 else 1), PALE)
      if height % 2 == 0:
        board.text(12, y, str(height))
    inks = rng.sample((RED, BLUE, GREEN, ORANGE, PURPLE), len(values))
    pitch = (_RIGHT - _LEFT) // len(values)
    width = 16 if len(values) > 4 else 20
    for index, (value, ink) in enumerate(zip(values, inks, strict=True)):
      middle = (_LEFT + 4 + index * pitch + pitch // 2) // 4 * 4
      left = middle - width // 2 // 4 * 4
      board.rect(left, _BOTTOM - value * _STEP, left + width, _BOTTOM, ink)
      board.text(middle, _BOTTOM + 18, _LETTERS[index])
    board.rect(_LEFT, _BOTTOM - _HIGHEST * _STEP, _LEFT + 4, _BOTTOM + 4, INK)
    board.rect(_LEFT, _BOTTOM, _RIGHT, _BOTTOM + 4, INK)

  def questions(self, content: tuple) -> tuple[str, ...]:
    kind, letters, _ = content
    if kind == _VALUE:
      return f"What is the value of bar {letters}?", f"How tall is bar {letters}?"
    if kind == _DIFFERENCE:
      return (f"How much taller is bar {letters[0]} than bar {letters[1]}?",)
    if kind == _TOTAL:
      return (f"What do bars {letters[0]} and {letters[1]} add up to?",)
    return f"Which bar is the {kind}?", f"Name the {kind} bar."

  def facts(self, content: tuple) -> Claims:
    kind, letters, values = content
    return _claims(
      kind, {letter: values[_LETTERS.index(letter)] for letter in _read(content)}, letters
    )

  def slips(self, content: tuple, rng: Rng) -> Iterator[tuple[str, Claims]]:
    kind, letters, values = content
    heights = {letter: values[_LETTERS.index(letter)] for letter in _read(content)}
    if kind in (_TALLEST, _SHORTEST):
      other = _SHORTEST if kind == _TALLEST else _TALLEST
      yield "the other end", {**heights, "answer": _claims(other, heights, letters)["answer"]}
      order = sorted(heights, key=lambda letter: heights[letter], reverse=kind == _TALLEST)
      first, second = order[:2]
      yield (
        "two bars swapped",
        _claims(kind, {**heights, first: heights[second], second: heights[first]}, ""),
      )
      yield "any bar", {**heights, "answer": rng.choice(order[1:])}
      return
    letter = rng.choice(letters)
    near = abs(heights[letter] + rng.choice((1, -1)))
    far = (heights[letter] + rng.choice((3, 4, 5))) % (_HIGHEST + 1)
    yield "off by one", _claims(kind, {**heights, letter: near}, letters)
    place = _LETTERS.index(letter)
    beside = values[place + 1] if place + 1 < len(values) else values[place - 1]
    yield "the bar beside", _claims(kind, {**heights, letter: beside}, letters)
    yield "far off", _claims(kind, {**heights, letter: far}, letters)
    if kind != _VALUE:
      other = _TOTAL if kind == _DIFFERENCE else _DIFFERENCE
      yield "the other operation", {"sign": _SIGNS[other]} | dict(_claims(other, heights, letters))
      right = int(_claims(kind, heights, letters)["answer"])
      yield "sum off", dict(_claims(kind, heights, letters)) | {"answer": right + 1}

  def phrasings(self, content: tuple, claims: Claims) -> tuple[str, ...]:
    kind, letters, _ = content
    answer = claims["answer"]
    if kind == _VALUE:
      return (
        f"Bar {letters} ends at {answer}.",
        f"The top of bar {letters} is level with {answer}.",
        f"I look at bar {letters} and read {answer} on the axis.",
      )
    heights = ", ".join(f"{letter} {claims[letter]}" for letter in _read(content))
    if kind in (_TALLEST, _SHORTEST):
      return f"The bars are {heights}. The {kind} is {answer}.", f"{heights}: {answer} is {kind}."
    first, second = (claims[letter] for letter in letters)
    sign = claims.get("sign", _SIGNS[kind])
    equation = f"{first} {sign} {second} = {answer}"
    return (
      f"{heights}. {equation}.",
      f"Bar {letters[0]} is {first}, bar {letters[1]} is {second}. {equation}.",
    )


_SIGNS = {_DIFFERENCE: "-", _TOTAL: "+"}


def _read(content: tuple) -> str:
  """Returns the letters of all bars that must be read to answer the question."""
  kind, letters, values = content
  return _LETTERS[: len(values)] if kind in (_TALLEST, _SHORTEST) else letters


def _claims(kind: str, heights: dict[str, int], letters: str) -> Claims:
  """Returns the values read from the bars and the answer that follows from them."""
  if kind in (_TALLEST, _SHORTEST):
    pick = max if kind == _TALLEST else min
    return {**heights, "answer": pick(heights, key=lambda letter: heights[letter])}
  if kind == _VALUE:
    return {"answer": heights[letters]}
  first, second = (heights[letter] for letter in letters)
  return {**heights, "answer": first - second if kind == _DIFFERENCE else first + second}


FAMILIES = (_Bars(),)
