r"""Reads the value that the tokens of one answer spell.

Over arithmetic stand, loosest first: lists (`1, 2`, `a or b`), relations and labels (`x = 5`,
`area = 5`), ratios (`3:2`) and unions of intervals; brackets hold tuples, intervals, sets and
matrices. All of these are the string of their parts' keys.

The order of a list counts, but not that of alternatives: `3 or -1`, `x = 3, -1`, `x = 3, x = -1`,
`1 \pm 2`, and two numbers that one sign tells apart (`3, -3`; `1+\sqrt2, 1-\sqrt2`).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from sejax.text import naming, relations, vocabulary
from sejax.text.arithmetic import Arithmetic, Value, is_number, value_key
from sejax.text.exact import UnsupportedError
from sejax.text.notation import Token

MAX_TOKENS = 48

_APPLIED = re.compile(r"(?<!_)\(")  # In the key of a function's value, not of an index.


class Item(NamedTuple):
  """One item of a list.

  Attributes:
    value: what it is.
    name: what the value is given to, where it has a name: `x`, `area`.
    is_symbol: whether the name is one of mathematics, which may have several values.
    interval: what an inequality describes; the value is then its key.
    is_point: whether it is a point with a name, `P(3, 4)`.
    units: what it ended with.
  """

  value: Value
  name: str | None = None
  is_symbol: bool = False
  interval: relations.Interval | None = None
  is_point: bool = False
  units: frozenset[str] = frozenset()

  def key(self) -> str:
    """Returns the string under which a value is compared together with its name."""
    return value_key(self.value) if self.name is None else f"{self.name}={value_key(self.value)}"


def parse(tokens: list[Token]) -> Value | None:
  """Returns the value that tokens spell, or None where they spell none."""
  read = parse_parts(tokens)
  return None if read is None else read[0]


def parse_parts(tokens: list[Token]) -> tuple[Value, list[Value]] | None:
  """Returns the value that tokens spell and, in order, the values that it was put together from.

  The key of a tuple, interval, set, matrix or list holds the keys of some of these values.
  """
  if not tokens or len(tokens) > MAX_TOKENS:
    return None
  answer = _Answer(tokens)
  try:
    return answer.read(), answer.parts
  except (UnsupportedError, OverflowError, ZeroDivisionError, RecursionError):
    return None


class _Answer(Arithmetic):
  """Recursive descent over a whole answer."""

  def __init__(self, tokens: list[Token]):
    super().__init__(tokens)
    # The parts of the tuples and ratios that were read, under their keys.
    self._parts: dict[str, list[Value]] = {}
    # All sums that were read as a part of something or on their own.
    self.parts: list[Value] = []

  def read(self) -> Value:
    items, separators = self._items()
    if self.next is not None:
      raise UnsupportedError(f"{self.next!r} has no place here")
    intervals = [item.interval for item in items if item.interval]
    if len(intervals) == len(items) and len({interval.name for interval in intervals}) == 1:
      if separators <= vocabulary.ALTERNATIVES:
        return _union([interval.key() for interval in intervals])
      if separators <= vocabulary.CONJUNCTIONS and len(items) == 2:
        common = intervals[0].intersection(intervals[1])
        if common:
          return common.key()
    values = [both for item in items for both in relations.plus_minus(item.value)]
    self._check_list(items, separators)
    if len(values) == 1:
      return values[0]
    keys = list(map(value_key, values))
    names = {item.name for item in items}
    if len(names - {None}) > 1:  # x = 1, y = 2; with "or" between them, x = 1 or y = 2
      named = [item.key() for item in items]
      joint = "|" if separators & vocabulary.ALTERNATIVES else ";"
      return joint.join(named if None in names else sorted(named))
    if len(values) > len(items) or separators & vocabulary.ALTERNATIVES or _alternatives(items):
      return "|".join(sorted(set(keys)))
    return ",".join(keys)

  def _check_list(self, items: list[Item], separators: set[str]) -> None:
    """Refuses a list of items that are not of one kind."""
    names = [item.name for item in items]
    if len(items) > 1 and None not in names and len(set(names)) == len(names):
      return  # AB = 5 cm, A = 30°
    units = [item.units for item in items]
    # 3, 4 cm are two lengths; 5%, 3 and 60°, 5 cm are two things.
    are_alike = all(unit == units[-1] for unit in units)
    if not are_alike and (any(units[:-1]) or not all(is_number(item.value) for item in items)):
      raise UnsupportedError("items with different units")
    points = [item.name for item in items if item.is_point]
    # C(5, 2), 1 are numbers, and no two points have one name.
    if len(items) > 1 and points and len(set(points)) < len(items):
      raise UnsupportedError("points among other items")

  def _items(self) -> tuple[list[Item], set[str]]:
    """Reads a list: its items and what separates them."""
    items, gaps = [self._item()], []
    while self.next in vocabulary.SEPARATORS:
      between = set()
      while self.next in vocabulary.SEPARATORS:  # "1, 2, and 3"
        between.add(self.take().text)
      gaps.append((between - {","}) or between)
      items.append(self._item())
    separators = set().union(*gaps)
    if not _is_one_list(gaps, separators):
      raise UnsupportedError("a list with separators of two kinds")
    return items, separators

  def _item(self) -> Item:
    """Reads an item of a list with its units."""
    outside, self.units = self.units, set()
    item = self._relation()
    if self.units:
      item = item._replace(units=frozenset(self.units))
    self.units = outside
    return item

  def _relation(self) -> Item:
    """Reads a value or relation; `name = value` gives the value and the name."""
    point = self._point()
    if point:
      return point
    start = self.index
    label = self._label()
    sides, signs = [self._ratio()], []
    while self.next in vocabulary.RELATIONS:
      signs.append(vocabulary.RELATIONS[self.take().text])
      sides.append(self._ratio())
    if not signs:
      return Item(sides[0], label)
    # What follows an approximation sign rounds what comes before it: the exact side is the answer.
    while "~" in signs and any(map(naming.is_value, sides[: signs.index("~") + 1])):
      signs = signs[: signs.index("~")]
      sides = sides[: len(signs) + 1]
    if not signs:
      return Item(sides[0], label)
    if all(sign in ("=", "~") for sign in signs):
      return self._equation(sides, signs, label, start)
    if signs == ["in"] and naming.is_value(sides[1]) and not naming.is_value(sides[0]):
      return Item(sides[1], value_key(sides[0]), is_symbol=True)
    interval = None if label else relations.interval(signs, sides)
    if interval:
      return Item(interval.key(), interval.name, is_symbol=True, interval=interval)
    return Item(relations.key(signs, sides), label)

  def _equation(self, sides: list[Value], signs: list[str], label: str | None, start: int) -> Item:
    """Returns the value of an equation where it gives one to a name, or works one out."""
    values = [side for side in sides if naming.is_value(side)]
    names = [side for side in sides if not naming.is_value(side)]
    if len(sides) == 2 and self._gives_parts(*sides):
      names, values = sides[:1], sides[1:]
    elif not all(map(is_number, values)) and any(map(naming.has_formula, map(value_key, names))):
      return Item(relations.key(signs, sides), label)  # f(x+1) = 2x does not say that f(x) is 2x
    are_numbers = bool(values) and all(map(is_number, values))
    if len(values) == 1 or (are_numbers and (names or label)):
      return Item(values[-1], label or value_key(names[0]), is_symbol=not label)
    # 1/8 + 1/8 = 1/4 is worked out; 0 = 1 is false, and 0 = 0 says nothing about 0.
    is_true = are_numbers and len(set(map(value_key, values))) == 1
    if is_true and self._is_worked_out(start):
      return Item(values[-1])
    return Item(relations.key(signs, sides), label)

  def _is_worked_out(self, start: int) -> bool:
    """Whether the sides of an equation, which have one value, are not written alike."""
    sides = [[]]
    for token in self.tokens[start : self.index]:
      if token.text in vocabulary.RELATIONS:
        sides.append([])
      else:
        sides[-1].append(token.text)
    return any(side != sides[0] for side in sides)

  def _gives_parts(self, left: Value, right: Value) -> bool:
    """Whether a tuple or ratio of names is given its parts: (p, q) = (3, 2), V_1:V_2 = 11:21.

    The names must stand in their own order, since (q, p) = (3, 2) is not (3, 2).
    """
    parts = self._parts.get(left) if isinstance(left, str) else None
    if not parts or any(map(naming.is_value, parts)):
      return False
    names = list(map(value_key, parts))
    if any(map(_APPLIED.search, names)) or not _are_in_order(names):
      return False
    is_ratio = left[0] not in "(["
    if isinstance(right, str):
      return right in self._parts and is_ratio == (right[0] not in "([")
    return is_ratio and is_number(right)  # A:B = 1

  def _point(self) -> Item | None:
    """Reads a named point, P(3, 4), and gives its coordinates and its name."""
    start, name = self.index, self.token()
    is_capital = name.kind == "name" and len(name.text) == 1 and name.text.isupper()
    if not is_capital or self.token(1).text != "(" or self.depth:
      return None
    self.take()
    self.take()
    items, separators = self.nested(self._items)
    values = [item.value for item in items]
    has_names = any(item.name for item in items)  # P(X = 1, Y = 2)
    is_list = len(items) > 1 and separators <= {",", ";"} and not has_names
    is_tuple = is_list and self.accept(")")
    if is_tuple and (self.next is None or self.next in vocabulary.SEPARATORS):
      is_listed = start > 0 or self.next is not None
      if is_listed or not naming.is_other_than_a_point(name.text, values):
        return Item(_bracketed("(", values, ")"), name.text, is_point=True)
    self.move(start)
    return None

  def _label(self) -> str | None:
    """Steps over `=`, `area =`, or words such as `the answer is` in front of an equals sign."""
    offset = 0
    while self.token(offset).kind == "name":
      offset += 1
    words = " ".join(self.token(i).text for i in range(offset))
    is_word = len(words) > 3 or words in vocabulary.SHORT_LABELS or not words.isascii()
    if self.token(offset).text not in ("=", r"\approx") or (words and not is_word):
      return None
    self.move(self.index + offset + 1)
    return words.casefold() or None

  def _ratio(self) -> Value:
    parts = [self._union()]
    keys = [value_key(parts[0])]
    while self.next in vocabulary.COLONS:
      self.take()
      # Zeros in front tell a time of day from a ratio: 7:05 is not 7:5.
      zero = "0" if re.fullmatch(r"0\d+", self.next or "") else ""
      parts.append(self._union())
      keys.append(zero + value_key(parts[-1]))
    return parts[0] if len(parts) == 1 else self._keep(parts, ":".join(keys))

  def _union(self) -> Value:
    parts = [self.sum()]
    while self.accept(r"\cup"):
      parts.append(self.sum())
    self.parts.extend(parts)
    return parts[0] if len(parts) == 1 else _union(parts)

  def structure(self, opener: str, is_argument: bool = False) -> Value:
    r"""Reads a tuple, interval, set or matrix; brackets around one value only group it."""
    if opener == r"\begin":
      return self._environment()
    if opener in ("{", r"\{"):
      return self._set(opener.replace("{", "}"))
    items, separators = self._items()
    closer = self.take().text
    if closer not in (")", "]"):
      raise UnsupportedError(f"{opener} closed by {closer}")
    if is_argument:
      return f"({','.join(item.key() for item in items)})"
    if len(items) == 1:
      return items[0].value
    names = [item.name for item in items]
    if separators - {",", ";"} or (any(names) and not _are_in_order(names)):
      raise UnsupportedError("a list in brackets")
    values = [item.value for item in items]
    return self._keep(values, _bracketed(opener, values, closer))

  def _keep(self, parts: list[Value], key: str) -> str:
    self._parts[key] = parts
    return key

  def _set(self, closer: str) -> Value:
    if self.accept(closer):
      return "{}"
    items, _ = self._items()
    first = items[0].value
    if self.next is None and len(items) == 1 and isinstance(first, str) and first[:7] == "matrix ":
      return "cases " + first[7:]  # A brace in front of rows, \left\{ \begin{array} ... \right.
    self.expect(closer)
    if len({item.name for item in items}) > 1:  # x = 1, y = 2
      return "{" + ",".join(sorted(item.key() for item in items)) + "}"
    values = [both for item in items for both in relations.plus_minus(item.value)]
    if len(values) == 1 and closer == "}":
      return values[0]
    return "{" + ",".join(sorted(set(map(value_key, values)))) + "}"

  def _environment(self) -> Value:
    kind = self._braced_name()
    if kind == "array":
      self.expect("{")
      while self.next not in ("}", None):
        self.take()
      self.expect("}")
    elif kind not in vocabulary.MATRICES | vocabulary.CASES:
      raise UnsupportedError(f"{kind} is not read")
    rows = [[self._cell()]]
    while self.next in ("&", r"\\"):
      if self.take().text == "&":
        rows[-1].append(self._cell())
      elif self.next != r"\end":
        rows.append([self._cell()])
    self.expect(r"\end")
    if self._braced_name() != kind:
      raise UnsupportedError(f"{kind} is not closed")
    title = "cases " if kind in vocabulary.CASES else "matrix "
    return title + ";".join(",".join(row) for row in rows)

  def _braced_name(self) -> str:
    self.expect("{")
    name = self.take().text
    self.expect("}")
    return name

  def _cell(self) -> str:
    key = self._relation().key()
    if self.next in (",", ";", ".") and self.token(1).text in ("&", r"\\", r"\end"):
      self.take()  # x = 1, \\ y = 2.
    return key


def _is_one_list(gaps: Sequence[set[str]], separators: set[str]) -> bool:
  """Whether separators tell how a list is grouped, as those of `A or B, C` and `1, 2; 3` do not."""
  if separators & vocabulary.ALTERNATIVES:
    # "or" between all items, or commas up to it: 1, 2 or 3.
    are_alternatives = [gap <= vocabulary.ALTERNATIVES for gap in gaps]
    marks = separators - vocabulary.ALTERNATIVES
    return marks in (set(), {","}, {";"}) and are_alternatives == sorted(are_alternatives)
  return not {",", ";"} <= separators


def _bracketed(opener: str, values: list[Value], closer: str) -> str:
  return opener + ",".join(map(value_key, values)) + closer


def _union(parts: Sequence[Value]) -> str:
  return "U".join(sorted(set(map(value_key, parts))))


def _alternatives(items: list[Item]) -> bool:
  """Whether the items of a list are solutions, whose order says nothing."""
  names = [item.name for item in items]
  values = [item.value for item in items]
  if names[0] and len(set(names)) == 1:
    return True  # x = 5, x = -5
  if items[0].is_symbol and not any(names[1:]) and all(map(is_number, values)):
    return True  # x = 5, -5
  return len(items) == 2 and not any(names) and relations.are_conjugate(*values)


def _are_in_order(names: Sequence[str | None]) -> bool:
  """Whether names stand in the order that tuples have them in: (x, y), V_1:V_2."""
  return None not in names and list(names) == sorted(set(names))
