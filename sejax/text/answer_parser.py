r"""Parses the tokens of a whole answer to its value.

From the loosest to the tightest binding, the grammar has

- lists: `1, 2`, `a or b`;
- relations and labelled values: `x = 5`, `area = 5`, `x > 5`;
- ratios: `3:2`;
- unions of intervals: `(1, 2) \cup (3, 4)`;
- arithmetic, see `sejax.text.arithmetic_parser`;
- tuples, intervals, sets and matrices in brackets.

The value of a structure is its key, a string made of the keys of its parts. The order of a list
matters, except among alternatives: `3 or -1`, `x = 3, -1`, `x = 3, x = -1`, `1 \pm 2`, and two
numbers that differ in one sign (`3, -3`; `1+\sqrt2, 1-\sqrt2`).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from sejax.text import equations, list_items, vocabulary
from sejax.text.algebra import UnsupportedError
from sejax.text.arithmetic_parser import ArithmeticParser
from sejax.text.latex import Token
from sejax.text.list_items import Item
from sejax.text.values import Value, is_number, value_key
from sejax.text.variable_names import has_formula, is_value, may_be_function_call

MAX_TOKENS = 48

_FUNCTION_CALL = re.compile(r"(?<!_)\(")  # in a key: f(x), but not the subscript x_(1)


class Parsed(NamedTuple):
  """A parsed answer.

  Attributes:
    value: the value of the answer.
    parts: all sums in it, in order. The key of a tuple, interval, set, matrix or list contains the
      keys of some of them.
  """

  value: Value
  parts: list[Value]


def parse(tokens: list[Token]) -> Parsed | None:
  """Parses the tokens of an answer; returns None if they stand for no supported value."""
  if not tokens or len(tokens) > MAX_TOKENS:
    return None
  parser = _AnswerParser(tokens)
  try:
    return Parsed(parser.answer(), parser.sums)
  except (UnsupportedError, OverflowError, ZeroDivisionError, RecursionError):
    return None


class _AnswerParser(ArithmeticParser):
  """Recursive-descent parser of a whole answer."""

  def __init__(self, tokens: list[Token]):
    super().__init__(tokens)
    # Parts of the tuples and ratios parsed so far, by key.
    self._parts_of: dict[str, list[Value]] = {}
    # Sums parsed so far, on their own or as a part of something.
    self.sums: list[Value] = []

  def answer(self) -> Value:
    """Parses the whole answer."""
    items, separators = self._items()
    if self.next is not None:
      raise UnsupportedError(f"unexpected {self.next}")
    intervals = [item.interval for item in items if item.interval]
    if len(intervals) == len(items) and len({interval.name for interval in intervals}) == 1:
      if separators <= vocabulary.ALTERNATIVES:
        return _union_key([interval.key() for interval in intervals])
      if separators <= vocabulary.CONJUNCTIONS and len(items) == 2:
        common = intervals[0].intersection(intervals[1])
        if common:
          return common.key()
    values = list_items.expanded_values(items)
    list_items.check_same_kind(items)
    if len(values) == 1:
      return values[0]
    keys = list(map(value_key, values))
    names = [item.name for item in items if item.name is not None]
    if len(set(names)) > 1:  # x = 1, y = 2; with "or" between them, x = 1 or y = 2
      named = [item.key() for item in items]
      if len(names) == len(items):
        named.sort()  # Only equations that all have a name may stand in any order.
      return ("|" if separators & vocabulary.ALTERNATIVES else ";").join(named)
    has_plus_minus = len(values) > len(items)
    if has_plus_minus or separators & vocabulary.ALTERNATIVES or list_items.are_alternatives(items):
      return "|".join(sorted(set(keys)))
    return ",".join(keys)

  def _items(self) -> tuple[list[Item], set[str]]:
    """Parses a list; returns its items and the set of separators between them."""
    items, gaps = [self._item()], []
    while self.next in vocabulary.SEPARATORS:
      gap = set()
      while self.next in vocabulary.SEPARATORS:  # "1, 2, and 3"
        gap.add(self.take().text)
      gaps.append((gap - {","}) or gap)
      items.append(self._item())
    separators = set().union(*gaps)
    if not list_items.is_flat(gaps, separators):
      raise UnsupportedError("a list with separators of two kinds")
    return items, separators

  def _item(self) -> Item:
    """Parses an item of a list and collects its units."""
    outer_units, self.units = self.units, set()
    item = self._relation()
    if self.units:
      item = item._replace(units=frozenset(self.units))
    self.units = outer_units
    return item

  def _relation(self) -> Item:
    """Parses a value, a named value (`name = value`) or another relation."""
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
    # In \sqrt2 \approx 1.41 the side after the sign is rounded; the exact one is the answer.
    while "~" in signs and any(map(is_value, sides[: signs.index("~") + 1])):
      signs = signs[: signs.index("~")]
      sides = sides[: len(signs) + 1]
    if not signs:
      return Item(sides[0], label)
    if all(sign in ("=", "~") for sign in signs):
      return self._equation(sides, signs, label, start)
    if signs == ["in"] and is_value(sides[1]) and not is_value(sides[0]):
      return Item(sides[1], value_key(sides[0]), is_symbol=True)
    interval = None if label else equations.solution_interval(signs, sides)
    if interval:
      return Item(interval.key(), interval.name, is_symbol=True, interval=interval)
    return Item(equations.relation_key(signs, sides), label)

  def _equation(self, sides: list[Value], signs: list[str], label: str | None, start: int) -> Item:
    """Interprets an equation: a named value, a calculation with its result, or a plain equation.

    Args:
      sides: the sides of the equation.
      signs: the signs between them, all "=" or "~".
      label: words in front, such as `area`.
      start: index of the equation's first token.
    """
    values = [side for side in sides if is_value(side)]
    names = [side for side in sides if not is_value(side)]
    if len(sides) == 2 and self._names_all_parts(*sides):
      names, values = sides[:1], sides[1:]
    elif not all(map(is_number, values)) and any(has_formula(value_key(name)) for name in names):
      # f(x+1) = 2x does not mean that f(x) is 2x.
      return Item(equations.relation_key(signs, sides), label)
    are_numbers = bool(values) and all(map(is_number, values))
    if len(values) == 1 or (are_numbers and (names or label)):
      return Item(values[-1], label or value_key(names[0]), is_symbol=not label)
    # 1/8 + 1/8 = 1/4 is a calculation; 0 = 1 is false, and 0 = 0 does not state the value 0.
    is_true = are_numbers and len(set(map(value_key, values))) == 1
    if is_true and self._are_written_differently(start):
      return Item(values[-1])
    return Item(equations.relation_key(signs, sides), label)

  def _are_written_differently(self, start: int) -> bool:
    """Whether the sides of the equation that begins at `start` differ in their tokens."""
    sides = [[]]
    for token in self.tokens[start : self.index]:
      if token.text in vocabulary.RELATIONS:
        sides.append([])
      else:
        sides[-1].append(token.text)
    return any(side != sides[0] for side in sides)

  def _names_all_parts(self, left: Value, right: Value) -> bool:
    """Whether an equation names the parts of a tuple or ratio: (p, q) = (3, 2), V_1:V_2 = 11:21.

    The names must be in alphabetical order, since (q, p) = (3, 2) is not (3, 2).
    """
    parts = self._parts_of.get(left) if isinstance(left, str) else None
    if not parts or any(map(is_value, parts)):
      return False
    names = list(map(value_key, parts))
    if any(map(_FUNCTION_CALL.search, names)) or not list_items.are_in_order(names):
      return False
    is_ratio = left[0] not in "(["
    if isinstance(right, str):
      return right in self._parts_of and is_ratio == (right[0] not in "([")
    return is_ratio and is_number(right)  # A:B = 1

  def _point(self) -> Item | None:
    """Parses a named point, P(3, 4); returns None, at the same position, if there is none."""
    start, name = self.index, self.peek()
    is_capital = name.kind == "name" and len(name.text) == 1 and name.text.isupper()
    if not is_capital or self.peek(1).text != "(" or self.depth:
      return None
    self.take()
    self.take()
    items, separators = self.nested(self._items)
    values = [item.value for item in items]
    has_names = any(item.name for item in items)  # P(X = 1, Y = 2)
    is_list = len(items) > 1 and separators <= {",", ";"} and not has_names
    is_tuple = is_list and self.accept(")")
    if is_tuple and (self.next is None or self.next in vocabulary.SEPARATORS):
      # In a list it is a point: combinations and distributions do not come in lists.
      is_listed = start > 0 or self.next is not None
      if is_listed or not may_be_function_call(name.text, values):
        return Item(_bracketed("(", values, ")"), name.text, is_point=True)
    self.seek(start)
    return None

  def _label(self) -> str | None:
    """Skips `=`, `area =` or `the answer is =`; returns its words in lower case, None if none."""
    offset = 0
    while self.peek(offset).kind == "name":
      offset += 1
    words = " ".join(self.peek(i).text for i in range(offset))
    is_word = len(words) > 3 or words in vocabulary.SHORT_LABELS or not words.isascii()
    if self.peek(offset).text not in ("=", r"\approx") or (words and not is_word):
      return None
    self.seek(self.index + offset + 1)
    return words.casefold() or None

  def _ratio(self) -> Value:
    """Parses a ratio, 3:2 or 1:2:3."""
    parts = [self._union()]
    keys = [value_key(parts[0])]
    while self.next in vocabulary.RATIO_SIGNS:
      self.take()
      # A leading zero makes a time of day: 7:05 is not the ratio 7:5.
      zero = "0" if re.fullmatch(r"0\d+", self.next or "") else ""
      parts.append(self._union())
      keys.append(zero + value_key(parts[-1]))
    return parts[0] if len(parts) == 1 else self._remember_parts(parts, ":".join(keys))

  def _union(self) -> Value:
    r"""Parses a union of intervals, `(1, 2) \cup (3, 4)`."""
    parts = [self.sum()]
    while self.accept(r"\cup"):
      parts.append(self.sum())
    self.sums.extend(parts)
    return parts[0] if len(parts) == 1 else _union_key(parts)

  def structure(self, opener: str, is_argument: bool = False) -> Value:
    r"""Parses a tuple, interval, set or matrix; brackets around a single value only group it."""
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
    if separators - {",", ";"} or (any(names) and not list_items.are_in_order(names)):
      raise UnsupportedError("a list in brackets")
    values = [item.value for item in items]
    return self._remember_parts(values, _bracketed(opener, values, closer))

  def _remember_parts(self, parts: list[Value], key: str) -> str:
    """Records the parts of a tuple or ratio for `_names_all_parts`; returns its key."""
    self._parts_of[key] = parts
    return key

  def _set(self, closer: str) -> Value:
    """Parses the rest of a set; braces around a single value only group it."""
    if self.accept(closer):
      return "{}"
    items, _ = self._items()
    first = items[0].value
    is_matrix = len(items) == 1 and isinstance(first, str) and first.startswith("matrix ")
    if self.next is None and is_matrix:  # \left\{ \begin{array} ... \right.
      return "cases " + first.removeprefix("matrix ")
    self.expect(closer)
    if len({item.name for item in items}) > 1:  # x = 1, y = 2
      return "{" + ",".join(sorted(item.key() for item in items)) + "}"
    values = list_items.expanded_values(items)
    if len(values) == 1 and closer == "}":
      return values[0]
    return "{" + ",".join(sorted(set(map(value_key, values)))) + "}"

  def _environment(self) -> Value:
    r"""Parses the rest of a LaTeX environment after `\begin`: a matrix or a case distinction."""
    kind = self._braced_name()
    if kind == "array":
      self.expect("{")
      while self.next not in ("}", None):
        self.take()
      self.expect("}")
    elif kind not in vocabulary.MATRICES | vocabulary.CASES:
      raise UnsupportedError(f"the environment {kind} is not supported")
    rows = [[self._cell()]]
    while self.next in ("&", r"\\"):
      if self.take().text == "&":
        rows[-1].append(self._cell())
      elif self.next != r"\end":
        rows.append([self._cell()])
    self.expect(r"\end")
    if self._braced_name() != kind:
      raise UnsupportedError(f"the environment {kind} is not closed")
    title = "cases " if kind in vocabulary.CASES else "matrix "
    return title + ";".join(",".join(row) for row in rows)

  def _braced_name(self) -> str:
    self.expect("{")
    name = self.take().text
    self.expect("}")
    return name

  def _cell(self) -> str:
    """Parses a cell of a matrix; returns its key."""
    key = self._relation().key()
    if self.next in (",", ";", ".") and self.peek(1).text in ("&", r"\\", r"\end"):
      self.take()  # x = 1, \\ y = 2.
    return key


def _bracketed(opener: str, values: list[Value], closer: str) -> str:
  return opener + ",".join(map(value_key, values)) + closer


def _union_key(parts: Sequence[Value]) -> str:
  return "U".join(sorted(set(map(value_key, parts))))
