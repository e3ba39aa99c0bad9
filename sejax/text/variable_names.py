"""Tells what names an answer, and is dropped from it, from what belongs to its value."""

import re

from sejax.text import exact, vocabulary
from sejax.text.arithmetic import PLUS_MINUS, Value, is_number

_WORD = re.compile(r"[A-Za-z]+")
# What the key of a function's value, f(1*x^1), or of an index holds.
_ARGUMENT = re.compile(r"\((.*)\)\^1\Z")
_PLAIN_ARGUMENT = re.compile(r"(?:(?:1\*\w+\^1|1\*\\vec\[1\*\w+\^1\]\^1|-?[\d/]+)(?:,|\Z))+")
# Keys of |AB| and of the length of a vector.
_LENGTH = re.compile(r"abs\(1\*(?:[A-Z]{2,}|\\(?:vec|overrightarrow)\[.*\])\^1\)")


def is_other_than_a_point(name: str, values: list[Value]) -> bool:
  """Whether a capital and a tuple may be something else: C(5, 2), P(5, 2), N(0, 1), F(x, y).

  Selections, distributions and functions have no place among points; elsewhere the letter names
  the point and its coordinates are the answer.
  """
  if name in vocabulary.APPLIED - {"E", "P"}:
    return True
  if not all(map(is_number, values)):
    return True  # S(n, k)
  first, *_, last = (exact.constant(v) for v in values)
  if len(values) != 2 or first is None or last is None:
    return name in vocabulary.SELECTIONS or name in vocabulary.DISTRIBUTIONS
  if name in vocabulary.SELECTIONS:
    is_ordered = first >= last or name == "R"  # Ramsey numbers
    return isinstance(first, int) and isinstance(last, int) and is_ordered and last >= 0
  if name == "B":
    return isinstance(first, int) and first > 0 and 0 <= last <= 1
  return (name == "N" and last > 0) or (name == "U" and first < last)


def is_value(side: Value) -> bool:
  """Whether a side of an equation is more than a name: x, AB, f(x) and x_1 name things."""
  if isinstance(side, str) or len(side) != 1:
    return True
  ((monomial, coefficient),) = side.items()
  names = [atom for atom, exponent in monomial if isinstance(atom, str) and exponent == 1]
  if len(names) == 2 and "m" in names:  # The measure of an angle, m\angle ABC
    return not (len(monomial) == 2 and any(name.startswith("\\angle[") for name in names))
  return not (coefficient == 1 and len(names) == len(monomial) == 1 and _is_name(names[0]))


def has_formula(name: str) -> bool:
  """Whether a name, by its key, is of a function or sequence at other than one variable: f(x+1)."""
  argument = _ARGUMENT.search(name)
  return argument is not None and not _PLAIN_ARGUMENT.fullmatch(argument[1])


def _is_name(atom: str) -> bool:
  r"""Whether an atom may be given a value: `f(2)`, `\sin A`, `\log_2 32`, `|AB|`.

  `|x| = 3`, `2^x = 8` and `\ln x = 0` are equations in x.
  """
  if atom in ("pi", "oo") or atom[0] in (PLUS_MINUS, "("):
    return False
  words = set(_WORD.findall(atom))
  if atom.startswith("abs("):
    return _LENGTH.fullmatch(atom) is not None
  return not words & vocabulary.LOGARITHMS or words <= vocabulary.FUNCTIONS | {"pi", "e"}
