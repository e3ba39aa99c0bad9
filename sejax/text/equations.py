r"""Equations, inequalities and the intervals that they describe, and plus-minus signs."""

from typing import NamedTuple

from sejax.text import exact, vocabulary
from sejax.text.arithmetic import PLUS_MINUS, Value, is_number, value_key
from sejax.text.exact import Expr, UnsupportedError

_ABOVE = exact.symbol("oo")
_BELOW = exact.multiply(exact.rational(-1), _ABOVE)


class Interval(NamedTuple):
  """The values that inequalities leave to a name.

  Attributes:
    name: key of the name.
    lower: the lower end, or None for a half-line that has none.
    upper: the upper end, likewise.
    opener: "[" where the lower end belongs to it, otherwise "(".
    closer: "]" where the upper end belongs to it, otherwise ")".
  """

  name: str
  lower: Expr | None = None
  upper: Expr | None = None
  opener: str = "("
  closer: str = ")"

  def key(self) -> str:
    """Returns the key that the interval itself has as an answer."""
    lower = _BELOW if self.lower is None else self.lower
    upper = _ABOVE if self.upper is None else self.upper
    return f"{self.opener}{value_key(lower)},{value_key(upper)}{self.closer}"

  def intersection(self, other: "Interval") -> "Interval | None":
    """Returns what two half-lines that face each other have in common; None for others."""
    left, right = (self, other) if self.upper is None else (other, self)
    if left.upper is not None or right.lower is not None or left.name != right.name:
      return None
    if left.lower is None or right.upper is None:
      return None
    if not exact.approximate(left.lower) < exact.approximate(right.upper):
      return None
    return left._replace(upper=right.upper, closer=right.closer)


def key(signs: list[str], sides: list[Value]) -> str:
  """Returns one string for a chain of relations however it is turned and scaled.

  `3x = 2y`, `2y = 3x` and `6x - 4y = 0` agree.

  Args:
    signs: values of `vocabulary.RELATIONS`.
    sides: one more than signs.

  Raises:
    UnsupportedError: a relation holds for all values of its variables, or for none; it says only
      what is written.
  """
  return ";".join(sorted(map(_key, signs, sides, sides[1:])))


def interval(signs: list[str], sides: list[Value]) -> Interval | None:
  r"""Returns the interval that inequalities describe: `x > 5`, `-2 \le x < 7`; None for others."""
  if len(signs) > 2 or any(isinstance(side, str) for side in sides):
    return None
  if all(sign in vocabulary.FLIPPED for sign in signs):
    signs, sides = [vocabulary.FLIPPED[sign] for sign in reversed(signs)], sides[::-1]
  if not all(sign in vocabulary.FLIPPED.values() for sign in signs):
    return None
  bounds = list(map(_half_line, signs, sides, sides[1:]))
  if None in bounds:
    return None
  return bounds[0] if len(bounds) == 1 else bounds[0].intersection(bounds[1])


def plus_minus(value: Value) -> list[Value]:
  r"""Returns the two values of `3 \pm 2`, or the value itself where it has no such sign, or two."""
  if isinstance(value, str):
    return [value]
  atoms = {atom for monomial in value for atom, _ in monomial if PLUS_MINUS in str(atom)}
  if len(atoms) != 1 or not (sign := atoms.pop()).startswith(PLUS_MINUS):
    return [value]
  both = []
  for one in (1, -1):
    total: Expr = {}
    for monomial, coefficient in value.items():
      exponent = dict(monomial).get(sign, 0)
      if exponent not in (0, 1):
        return [value]
      rest = tuple(pair for pair in monomial if pair[0] != sign)
      total = exact.add(total, {rest: coefficient * one**exponent})
    both.append(total)
  return both


def are_conjugate(first: Value, second: Value) -> bool:
  r"""Whether two numbers differ in one sign: `3, -3`, `1+\sqrt2, 1-\sqrt2`, `2+i, 2-i`."""
  if isinstance(first, str) or isinstance(second, str) or not first:
    return False
  total, product = exact.add(first, second), exact.multiply(first, second)
  if not total:
    return exact.constant(product) is not None
  return exact.constant(first) is None and None not in map(exact.constant, (total, product))


def _half_line(sign: str, left: Expr, right: Expr) -> Interval | None:
  """Returns the half-line that `left < right` leaves to the one name in it."""
  difference = exact.add(left, right, -1)
  names = [monomial for monomial in difference if _is_variable(monomial)]
  if len(names) != 1:
    return None
  slope = difference.pop(names[0])
  if not is_number(difference):
    return None
  end = exact.divide(difference, exact.rational(-slope))
  name = value_key({names[0]: 1})
  closed = sign == "<="
  if slope > 0:
    return Interval(name, upper=end, closer="]" if closed else ")")
  return Interval(name, lower=end, opener="[" if closed else "(")


def _is_variable(monomial: exact.Monomial) -> bool:
  if len(monomial) != 1:
    return False
  ((atom, exponent),) = monomial
  is_name = isinstance(atom, str) and atom.isalpha() and exponent == 1
  return is_name and atom not in ("pi", "e", "i", "oo")


def _key(sign: str, left: Value, right: Value) -> str:
  if sign in vocabulary.FLIPPED:
    sign, left, right = vocabulary.FLIPPED[sign], right, left
  symmetric = sign in ("=", "!=", "~")
  if isinstance(left, str) or isinstance(right, str) or sign == "in":
    sides = [value_key(left), value_key(right)]
    return sign.join(sorted(sides) if symmetric else sides)
  difference = exact.add(left, right, -1)
  if exact.constant(difference) is not None:
    raise UnsupportedError("a relation that always or never holds")
  _, difference = exact.primitive(difference)
  text = exact.key(difference)
  if symmetric:
    text = min(text, exact.key({m: -c for m, c in difference.items()}))
  return f"{text}{sign}0"
