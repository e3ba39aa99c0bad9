r"""Keys of equations and inequalities, the intervals they describe, and plus-minus signs.

A key is the string by which two answers are compared.
"""

from typing import NamedTuple

from sejax.text import algebra, vocabulary
from sejax.text.algebra import Expr, UnsupportedError
from sejax.text.values import PLUS_MINUS, Value, is_number, value_key

_INFINITY = algebra.symbol("oo")
_MINUS_INFINITY = algebra.multiply(algebra.rational(-1), _INFINITY)


class Interval(NamedTuple):
  """The interval in which inequalities place a variable.

  Attributes:
    name: key of the variable.
    lower: lower end; None if unbounded.
    upper: upper end; None if unbounded.
    opener: "[" if the interval contains its lower end, otherwise "(".
    closer: "]" if the interval contains its upper end, otherwise ")".
  """

  name: str
  lower: Expr | None = None
  upper: Expr | None = None
  opener: str = "("
  closer: str = ")"

  def key(self) -> str:
    """Returns the key of the interval as an answer: `x > 5` equals `(5, inf)`."""
    lower = _MINUS_INFINITY if self.lower is None else self.lower
    upper = _INFINITY if self.upper is None else self.upper
    return f"{self.opener}{value_key(lower)},{value_key(upper)}{self.closer}"

  def intersection(self, other: "Interval") -> "Interval | None":
    """Returns the intersection of two half-lines that face each other; None for anything else."""
    left, right = (self, other) if self.upper is None else (other, self)
    if left.name != right.name:
      return None
    if left.lower is None or left.upper is not None:
      return None
    if right.upper is None or right.lower is not None:
      return None
    if not algebra.approximate(left.lower) < algebra.approximate(right.upper):
      return None
    return left._replace(upper=right.upper, closer=right.closer)


def relation_key(signs: list[str], sides: list[Value]) -> str:
  """Returns one key for all forms of a chain of equations or inequalities.

  `3x = 2y`, `2y = 3x` and `6x - 4y = 0` have the same key.

  Args:
    signs: relation signs, values of `vocabulary.RELATIONS`.
    sides: the expressions between them, one more than signs.

  Raises:
    UnsupportedError: a relation holds for all values of its variables, or for none. The answer is
      then compared as text.
  """
  return ";".join(sorted(map(_single_relation_key, signs, sides, sides[1:])))


def solution_interval(signs: list[str], sides: list[Value]) -> Interval | None:
  r"""Returns the interval that inequalities describe: `x > 5`, `-2 \le x < 7`; else None.

  Args:
    signs: relation signs, values of `vocabulary.RELATIONS`.
    sides: the expressions between them, one more than signs.
  """
  if len(signs) > 2 or any(isinstance(side, str) for side in sides):
    return None
  if all(sign in vocabulary.FLIPPED for sign in signs):
    signs, sides = [vocabulary.FLIPPED[sign] for sign in reversed(signs)], sides[::-1]
  if not all(sign in vocabulary.FLIPPED.values() for sign in signs):
    return None
  half_lines = list(map(_half_line, signs, sides, sides[1:]))
  if any(half_line is None for half_line in half_lines):
    return None
  if len(half_lines) == 1:
    return half_lines[0]
  return half_lines[0].intersection(half_lines[1])


def expand_plus_minus(value: Value) -> list[Value]:
  r"""Returns both values of `3 \pm 2`, or the value alone unless it has exactly one such sign."""
  if isinstance(value, str):
    return [value]
  atoms = {atom for monomial in value for atom, _ in monomial if PLUS_MINUS in str(atom)}
  if len(atoms) != 1 or not (plus_minus := atoms.pop()).startswith(PLUS_MINUS):
    return [value]
  both = []
  for sign in (1, -1):
    total: Expr = {}
    for monomial, coefficient in value.items():
      exponent = dict(monomial).get(plus_minus, 0)
      if exponent not in (0, 1):
        return [value]
      rest = tuple(pair for pair in monomial if pair[0] != plus_minus)
      total = algebra.add(total, {rest: coefficient * sign**exponent})
    both.append(total)
  return both


def are_conjugate(first: Value, second: Value) -> bool:
  r"""Whether two numbers are conjugate: `3, -3`, `1+\sqrt2, 1-\sqrt2`, `2+i, 2-i`.

  They are opposites with a rational square, or irrational with a rational sum and product.
  """
  if isinstance(first, str) or isinstance(second, str) or not first:
    return False
  total, product = algebra.add(first, second), algebra.multiply(first, second)
  is_rational_product = algebra.constant(product) is not None
  if not total:
    return is_rational_product
  is_rational_total = algebra.constant(total) is not None
  return algebra.constant(first) is None and is_rational_total and is_rational_product


def _half_line(sign: str, left: Expr, right: Expr) -> Interval | None:
  """Solves `left < right` for its variable; None unless it is linear in exactly one."""
  difference = algebra.add(left, right, -1)
  variables = [monomial for monomial in difference if _is_variable(monomial)]
  if len(variables) != 1:
    return None
  slope = difference.pop(variables[0])
  if not is_number(difference):
    return None
  end = algebra.divide(difference, algebra.rational(-slope))
  name = value_key({variables[0]: 1})
  closed = sign == "<="
  if slope > 0:
    return Interval(name, upper=end, closer="]" if closed else ")")
  return Interval(name, lower=end, opener="[" if closed else "(")


def _is_variable(monomial: algebra.Monomial) -> bool:
  if len(monomial) != 1:
    return False
  ((atom, exponent),) = monomial
  is_name = isinstance(atom, str) and atom.isalpha() and exponent == 1
  return is_name and atom not in ("pi", "e", "i", "oo")


def _single_relation_key(sign: str, left: Value, right: Value) -> str:
  if sign in vocabulary.FLIPPED:
    sign, left, right = vocabulary.FLIPPED[sign], right, left
  is_symmetric = sign in ("=", "!=", "~")
  if isinstance(left, str) or isinstance(right, str) or sign == "in":
    sides = [value_key(left), value_key(right)]
    return sign.join(sorted(sides) if is_symmetric else sides)
  difference = algebra.add(left, right, -1)
  if algebra.constant(difference) is not None:
    raise UnsupportedError("a relation that always or never holds")
  _, difference = algebra.primitive(difference)
  key = algebra.key(difference)
  if is_symmetric:
    negated = {monomial: -coefficient for monomial, coefficient in difference.items()}
    key = min(key, algebra.key(negated))
  return f"{key}{sign}0"
