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
    kind, asked, _ = content
    if kind == _VALUE:
      return f"What is the value of bar {asked}?", f"How tall is bar {asked}?"
    if kind == _DIFFERENCE:
      return (f"How much taller is bar {asked[0]} than bar {asked[1]}?",)
    if kind == _TOTAL:
      return (f"What do bars {asked[0]} and {asked[1]} add up to?",)
    return f"Which bar is the {kind}?", f"Name the {kind} bar."

  def facts(self, content: tuple) -> Claims:
    kind, asked, values = content
    return _claims(
      kind, {letter: values[_LETTERS.index(letter)] for letter in _read(content)}, asked
    )

  def slips(self, content: tuple, rng: Rng) -> Iterator[tuple[str, Claims]]:
    kind, asked, values = content
    seen = {letter: values[_LETTERS.index(letter)] for letter in _read(content)}
    if kind in (_TALLEST, _SHORTEST):
      other = _SHORTEST if kind == _TALLEST else _TALLEST
      yield "the other end", {**seen, "answer": _claims(other, seen, asked)["answer"]}
      order = sorted(seen, key=lambda letter: seen[letter], reverse=kind == _TALLEST)
      first, second = order[:2]
      yield (
        "two bars swapped",
        _claims(kind, {**seen, first: seen[second], second: seen[first]}, ""),
      )
      yield "any bar", {**seen, "answer": rng.choice(order[1:])}
      return
    letter = rng.choice(asked)
    near = abs(seen[letter] + rng.choice((1, -1)))
    far = (seen[letter] + rng.choice((3, 4, 5))) % (_HIGHEST + 1)
    yield "off by one", _claims(kind, {**seen, letter: near}, asked)
    place = _LETTERS.index(letter)
    beside = values[place + 1] if place + 1 < len(values) else values[place - 1]
    yield "the bar beside", _claims(kind, {**seen, letter: beside}, asked)
    yield "far off", _claims(kind, {**seen, letter: far}, asked)
    if kind != _VALUE:
      other = _TOTAL if kind == _DIFFERENCE else _DIFFERENCE
      yield "the other operation", {"sign": _SIGNS[other]} | dict(_claims(other, seen, asked))
      right = int(_claims(kind, seen, asked)["answer"])
      yield "sum off", dict(_claims(kind, seen, asked)) | {"answer": right + 1}

  def phrasings(self, content: tuple, claims: Claims) -> tuple[str, ...]:
    kind, asked, _ = content
    answer = claims["answer"]
    if kind == _VALUE:
      return (
        f"Bar {asked} ends at {answer}.",
        f"The top of bar {asked} is level with {answer}.",
        f"I look at bar {asked} and read {answer} on the axis.",
      )
    seen = ", ".join(f"{letter} {claims[letter]}" for letter in _read(content))
    if kind in (_TALLEST, _SHORTEST):
      return f"The bars are {seen}. The {kind} is {answer}.", f"{seen}: {answer} is {kind}."
    first, second = (claims[letter] for letter in asked)
    sign = claims.get("sign", _SIGNS[kind])
    return (
      f"{seen}. {first} {sign} {second} = {answer}.",
      f"Bar {asked[0]} is {first}, bar {asked[1]} is {second}. {first} {sign} {second} = {answer}.",
    )


_SIGNS = {_DIFFERENCE: "-", _TOTAL: "+"}


def _read(content: tuple) -> str:
  """Returns the letters of the bars that must be read to answer the question."""
  kind, asked, values = content
  return _LETTERS[: len(values)] if kind in (_TALLEST, _SHORTEST) else asked


def _claims(kind: str, seen: dict[str, int], asked: str) -> Claims:
  """Returns the values read from the bars and the answer that follows from them."""
  if kind in (_TALLEST, _SHORTEST):
    pick = max if kind == _TALLEST else min
    return {**seen, "answer": pick(seen, key=lambda letter: seen[letter])}
  if kind == _VALUE:
    return {"answer": seen[asked]}
  first, second = (seen[letter] for letter in asked)
  return {**seen, "answer": first - second if kind == _DIFFERENCE else first + second}


FAMILIES = (_Bars(),)
