"""Tells expressions that only name an answer (`x`, `AB`, `f(x)`) from those that have a value.

The name in `x = 5`, `AB = 5` or `P(3, 4)` is dropped when answers are compared.
"""

import re

from sejax.text import algebra, vocabulary
from sejax.text.values import PLUS_MINUS, Value, is_number

_WORD = re.compile(r"[A-Za-z]+")
# The argument of a function or an index, in the key of a symbol such as f(1*x^1).
_ARGUMENT = re.compile(r"\((.*)\)\^1\Z")
_PLAIN_ARGUMENT = re.compile(r"(?:(?:1\*\w+\^1|1\*\\vec\[1\*\w+\^1\]\^1|-?[\d/]+)(?:,|\Z))+")
# Keys of |AB| and of the length of a vector.
_LENGTH = re.compile(r"abs\(1\*(?:[A-Z]{2,}|\\(?:vec|overrightarrow)\[.*\])\^1\)")


def may_be_function_call(name: str, arguments: list[Value]) -> bool:
  """Whether a capital letter with a tuple may be more than a named point.

  C(5, 2), P(5, 2), N(0, 1) and F(x, y) may be combinations, permutations, distributions and
  functions. Otherwise the letter names a point and its coordinates are the answer.
  """
  if name in vocabulary.FUNCTION_LETTERS - {"E", "P"}:
    return True
  if not all(map(is_number, arguments)):
    return True  # S(n, k)
  first, *_, last = (algebra.constant(argument) for argument in arguments)
  if len(arguments) != 2 or first is None or last is None:
    return name in vocabulary.COMBINATORIAL_LETTERS or name in vocabulary.DISTRIBUTION_LETTERS
  if name in vocabulary.COMBINATORIAL_LETTERS:
    is_ordered = first >= last or name == "R"  # Ramsey numbers take any order.
    return isinstance(first, int) and isinstance(last, int) and is_ordered and last >= 0
  if name == "B":
    return isinstance(first, int) and first > 0 and 0 <= last <= 1
  return (name == "N" and last > 0) or (name == "U" and first < last)


def is_value(side: Value) -> bool:
  """Whether one side of an equation is more than a name such as x, AB, f(x) or x_1."""
  if isinstance(side, str) or len(side) != 1:
    return True
  ((monomial, coefficient),) = side.items()
  names = [atom for atom, exponent in monomial if isinstance(atom, str) and exponent == 1]
  if len(names) == 2 and "m" in names:  # the measure of an angle, m\angle ABC
    is_angle = any(name.startswith("\\angle[") for name in names)
    return not (is_angle and len(monomial) == 2)
  is_single_symbol = coefficient == 1 and len(names) == 1 and len(monomial) == 1
  return not (is_single_symbol and _is_name(names[0]))


def has_formula(key: str) -> bool:
  """Whether the key of a name is that of a function of a formula, `f(x+1)`, not of `f(x)`."""
  argument = _ARGUMENT.search(key)
  return argument is not None and not _PLAIN_ARGUMENT.fullmatch(argument[1])


def _is_name(atom: str) -> bool:
  r"""Whether an equation may define the value of an atom: `f(2)`, `\sin A`, `\log_2 32`, `|AB|`.

  `|x| = 3`, `2^x = 8` and `\ln x = 0` are equations in x instead.
  """
  if atom in ("pi", "oo") or atom[0] in (PLUS_MINUS, "("):
    return False
  words = set(_WORD.findall(atom))
  if atom.startswith("abs("):
    return _LENGTH.fullmatch(atom) is not None
  has_logarithm = bool(words & vocabulary.LOGARITHMS)
  return not has_logarithm or words <= vocabulary.FUNCTIONS | {"pi", "e"}
