"""Values of parsed answers: exact expressions, and keys of structures such as tuples."""

import math
from fractions import Fraction

from sejax.text import algebra
from sejax.text.algebra import Expr, UnsupportedError

MAX_DIGITS = 40
# First character of the symbols for plus-minus signs; no symbol of an answer contains it.
PLUS_MINUS = "±"

# An exact expression, or the key of a structure such as a tuple, which has no arithmetic.
Value = Expr | str


def value_key(value: Value) -> str:
  """Returns a string that is the same for two values exactly if they are equal."""
  return value if isinstance(value, str) else algebra.key(value)


def as_expr(value: Value) -> Expr:
  """Returns the value, which must be an expression.

  Raises:
    UnsupportedError: the value is a structure such as a tuple, which has no arithmetic.
  """
  if isinstance(value, str):
    raise UnsupportedError("arithmetic on a structure")
  return value


def is_number(value: Value) -> bool:
  """Whether a value is a real number, that is, has no symbols but pi and e."""
  return not isinstance(value, str) and algebra.approximate(value) is not None


def parse_number(literal: str) -> algebra.Number:
  """Returns the exact value of a numeral such as `12`, `0.5` or `1e-3`.

  Raises:
    UnsupportedError: it is not a numeral, has over `MAX_DIGITS` characters, or its exponent is too
      large.
  """
  if len(literal) > MAX_DIGITS:
    raise UnsupportedError(f"a number of {len(literal)} characters")
  if literal.isdecimal():
    return int(literal)
  mantissa, _, exponent = literal.lower().partition("e")
  integer, _, decimals = mantissa.partition(".")
  if not integer + decimals:
    raise UnsupportedError(f"{literal} is not a number")
  value = int(integer + decimals)
  shift = (int(exponent) if exponent else 0) - len(decimals)
  if abs(shift) > 400:
    raise UnsupportedError(f"exponent {exponent}")
  return value * 10**shift if shift >= 0 else Fraction(value, 10**-shift)


def factorial(n: algebra.Number | None) -> int:
  """Returns n!; raises `UnsupportedError` unless n is an integer from 0 to 50."""
  if not isinstance(n, int) or not 0 <= n <= 50:
    raise UnsupportedError("factorial out of range")
  return math.factorial(n)


def binomial(n: algebra.Number | None, k: algebra.Number | None) -> int:
  """Returns n over k; raises `UnsupportedError` unless they are integers, 0 <= k <= n <= 200."""
  if not isinstance(n, int) or not isinstance(k, int) or not 0 <= k <= n <= 200:
    raise UnsupportedError("binomial out of range")
  return math.comb(n, k)


def absolute(value: Expr) -> Expr:
  """Returns the absolute value of a rational number, or a symbol for that of another expression."""
  magnitude = algebra.constant(value)
  if magnitude is None:
    return algebra.symbol(f"abs({algebra.key(value)})")
  return algebra.rational(abs(magnitude))
