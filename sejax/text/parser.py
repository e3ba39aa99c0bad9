r"""Reads the value that the tokens of one answer spell.

Over arithmetic stand, loosest first: lists (`1, 2`, `a or b`), relations and labels (`x = 5`,
`area = 5`), ratios (`3:2`) and unions of intervals; brackets hold tuples, intervals, sets and
matrices. All of these are the string of their parts' keys.
"""

from sejax.text import exact, vocabulary
from sejax.text.arithmetic import Arithmetic, Value, is_number, number, value_key
from sejax.text.exact import UnsupportedError
from sejax.text.notation import Token

MAX_TOKENS = 48

Item = tuple[Value, str | None]  # A value and, where it has one, the name that it is given to.


def parse(tokens: list[Token]) -> Value | None:
  """Returns the value that tokens spell, or None where they spell none."""
  if not tokens or len(tokens) > MAX_TOKENS:
    return None
  try:
    return _Answer(tokens).read()
  except (UnsupportedError, OverflowError, ZeroDivisionError, RecursionError):
    return None


def number_key(literal: str) -> str:
  """Returns the key of a number as written, or the literal itself where it is too long."""
  try:
    return exact.key(exact.rational(number(literal)))
  except UnsupportedError:
    return literal


class _Answer(Arithmetic):
  """Recursive descent over a whole answer."""

  def read(self) -> Value:
    values, names = self._items()
    if self.next is not None:
      raise UnsupportedError(f"{self.next!r} has no place here")
    if len(values) == 1:
      return values[0]
    keys = list(map(value_key, values))
    if not all(names):
      return ",".join(keys)
    if len(set(names)) == 1:
      return "|".join(sorted(keys))  # x = 5 or x = -5
    return ";".join(sorted(map("{}={}".format, names, keys)))  # x = 1, y = 2

  def _items(self) -> tuple[list[Value], list[str | None]]:
    """Reads a list: its values and the names that they are given to."""
    items = [self._relation()]
    while self.next in vocabulary.SEPARATORS:
      while self.next in vocabulary.SEPARATORS:  # "1, 2, and 3"
        self.take()
      items.append(self._relation())
    values, names = zip(*items, strict=True)
    return list(values), list(names)

  def _relation(self) -> Item:
    """Reads a value or relation; `name = value` gives the value and the name."""
    point = self._point()
    if point:
      return point
    label = self._label()
    sides, relations = [self._ratio()], []
    while self.next in vocabulary.RELATIONS:
      relations.append(vocabulary.RELATIONS[self.take().text])
      sides.append(self._ratio())
    if not relations:
      return sides[0], label
    # What follows an approximation sign rounds what comes before it: the exact side is the answer.
    while "~" in relations and any(map(_is_value, sides[: relations.index("~") + 1])):
      relations = relations[: relations.index("~")]
      sides = sides[: len(relations) + 1]
    if all(relation in ("=", "~") for relation in relations):
      values = [side for side in sides if _is_value(side)]
      names = [side for side in sides if not _is_value(side)]
      if len(values) == 1 or (values and all(map(is_number, values))):
        return values[-1], label or (value_key(names[0]) if names else None)
    elif relations == ["in"] and _is_value(sides[1]):
      return sides[1], value_key(sides[0])
    return ";".join(sorted(map(_relation_key, relations, sides, sides[1:]))), label

  def _point(self) -> Item | None:
    """Reads a named point, P(3, 4), and gives its coordinates and its name."""
    start, name = self.index, self.token()
    if name.kind != "name" or not name.text.isupper() or self.token(1).text != "(":
      return None
    self.take()
    self.take()
    values, _ = self.nested(self._items)
    is_tuple = len(values) > 1 and self.accept(")")
    if is_tuple and (self.next is None or self.next in vocabulary.SEPARATORS):
      return _bracketed("(", values, ")"), name.text
    self.move(start)
    return None

  def _label(self) -> str | None:
    """Steps over `=`, `area =`, or words such as `the answer is` in front of an equals sign."""
    offset = 0
    while self.token(offset).kind == "name":
      offset += 1
    words = " ".join(self.token(i).text for i in range(offset))
    if self.token(offset).text not in ("=", r"\approx") or 0 < len(words) <= 3:
      return None
    self.move(self.index + offset + 1)
    return words.casefold() or None

  def _ratio(self) -> Value:
    parts = [self._union()]
    while self.next in vocabulary.COLONS:
      self.take()
      parts.append(self._union())
    return parts[0] if len(parts) == 1 else ":".join(map(value_key, parts))

  def _union(self) -> Value:
    parts = [self.sum()]
    while self.accept(r"\cup"):
      parts.append(self.sum())
    return parts[0] if len(parts) == 1 else "U".join(sorted(set(map(value_key, parts))))

  def structure(self, opener: str) -> Value:
    r"""Reads a tuple, interval, set or matrix; brackets around one value only group it."""
    if opener == r"\begin":
      return self._matrix()
    if opener in ("{", r"\{"):
      return self._set(opener.replace("{", "}"))
    values, _ = self._items()
    closer = self.take().text
    if closer not in (")", "]"):
      raise UnsupportedError(f"{opener} closed by {closer}")
    return values[0] if len(values) == 1 else _bracketed(opener, values, closer)

  def _set(self, closer: str) -> Value:
    if self.accept(closer):
      return "{}"
    values, _ = self._items()
    self.expect(closer)
    if len(values) == 1 and closer == "}":
      return values[0]
    return "{" + ",".join(sorted(set(map(value_key, values)))) + "}"

  def _matrix(self) -> Value:
    self.expect("{")
    if self.take().text not in vocabulary.MATRICES:
      raise UnsupportedError("only matrices are read")
    self.expect("}")
    rows = [[self.sum()]]
    while self.next in ("&", r"\\"):
      if self.take().text == "&":
        rows[-1].append(self.sum())
      elif self.next != r"\end":
        rows.append([self.sum()])
    self.expect(r"\end")
    self.expect("{")
    self.take()
    self.expect("}")
    return "matrix " + ";".join(",".join(map(value_key, row)) for row in rows)


def _bracketed(opener: str, values: list[Value], closer: str) -> str:
  return opener + ",".join(map(value_key, values)) + closer


def _is_value(side: Value) -> bool:
  """Whether a side of an equation is more than a name: x, AB, f(x) and x_1 name things."""
  if isinstance(side, str) or len(side) != 1:
    return True
  ((monomial, coefficient),) = side.items()
  names = [atom for atom, exponent in monomial if isinstance(atom, str) and exponent == 1]
  is_name = coefficient == 1 and 0 < len(names) == len(monomial)
  return not is_name or bool({"pi", "oo", "pm"} & set(names))


def _relation_key(relation: str, left: Value, right: Value) -> str:
  """One string for a relation however it is turned and scaled: x > 5, 5 < x and 2x > 10 agree."""
  if relation in vocabulary.FLIPPED:
    relation, left, right = vocabulary.FLIPPED[relation], right, left
  symmetric = relation in ("=", "!=", "~")
  if isinstance(left, str) or isinstance(right, str) or relation == "in":
    sides = [value_key(left), value_key(right)]
    return relation.join(sorted(sides) if symmetric else sides)
  difference = exact.add(left, right, -1)
  if not difference:
    return f"0{relation}0"
  _, difference = exact.primitive(difference)
  key = exact.key(difference)
  if symmetric:
    key = min(key, exact.key({m: -c for m, c in difference.items()}))
  return f"{key}{relation}0"
