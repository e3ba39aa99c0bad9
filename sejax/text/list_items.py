"""Items of a parsed list, and the rules by which they form one."""

from collections.abc import Sequence
from typing import NamedTuple

from sejax.text import equations, vocabulary
from sejax.text.algebra import UnsupportedError
from sejax.text.values import Value, is_number, value_key


class Item(NamedTuple):
  """One item of a list.

  Attributes:
    value: the value; for an inequality, the key of `interval`.
    name: `x` in `x = 5`, `area` in `area = 5`, `P` in `P(3, 4)`; None if there is no name.
    is_symbol: whether the name is a mathematical symbol, which may have several values.
    interval: the interval that an inequality describes.
    is_point: whether the item is a named point, `P(3, 4)`.
    units: the units that it ended with, which are not part of the value.
  """

  value: Value
  name: str | None = None
  is_symbol: bool = False
  interval: equations.Interval | None = None
  is_point: bool = False
  units: frozenset[str] = frozenset()

  def key(self) -> str:
    """Returns the key of the value together with its name."""
    return value_key(self.value) if self.name is None else f"{self.name}={value_key(self.value)}"


def expanded_values(items: Sequence[Item]) -> list[Value]:
  """Returns the values of the items, with both values for each that has a plus-minus sign."""
  return [value for item in items for value in equations.expand_plus_minus(item.value)]


def check_same_kind(items: Sequence[Item]) -> None:
  """Raises `UnsupportedError` if the items of a list are of different kinds."""
  if len(items) == 1:
    return
  names = [item.name for item in items if item.name is not None]
  if len(set(names)) == len(items):
    return  # AB = 5 cm, A = 30°
  last_units = items[-1].units
  if any(item.units != last_units for item in items):
    # 3, 4 cm are two lengths; 5%, 3 and 60°, 5 cm are different quantities.
    has_inner_units = any(item.units for item in items[:-1])
    if has_inner_units or not all(is_number(item.value) for item in items):
      raise UnsupportedError("items with different units")
  # In C(5, 2), 1 the first item is a number, not a point; two items with one name are not points.
  points = {item.name for item in items if item.is_point}
  if points and len(points) < len(items):
    raise UnsupportedError("points among other items")


def is_flat(gaps: Sequence[set[str]], separators: set[str]) -> bool:
  """Whether a list is surely flat, unlike `A or B, C` and `1, 2; 3`, which may have sublists.

  Args:
    gaps: the separators between each item and the next.
    separators: the union of `gaps`.
  """
  if separators & vocabulary.ALTERNATIVES:
    # Either "or" between all items, or first commas and then "or": 1, 2 or 3.
    has_alternatives = [gap <= vocabulary.ALTERNATIVES for gap in gaps]
    marks = separators - vocabulary.ALTERNATIVES
    return marks in (set(), {","}, {";"}) and has_alternatives == sorted(has_alternatives)
  return not {",", ";"} <= separators


def are_alternatives(items: list[Item]) -> bool:
  """Whether the items of a list are alternative solutions, whose order does not matter."""
  names = [item.name for item in items]
  values = [item.value for item in items]
  if names[0] and len(set(names)) == 1:
    return True  # x = 5, x = -5
  if items[0].is_symbol and not any(names[1:]) and all(map(is_number, values)):
    return True  # x = 5, -5
  return len(items) == 2 and not any(names) and equations.are_conjugate(*values)


def are_in_order(names: Sequence[str | None]) -> bool:
  """Whether all items have names, in alphabetical order as tuples have them: (x, y), V_1:V_2."""
  if any(name is None for name in names):
    return False
  return list(names) == sorted(set(names))
