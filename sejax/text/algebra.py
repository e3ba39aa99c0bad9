"""Exact values of short expressions: sums of rationals times surds and symbols.

An expression is a plain dict `{monomial: coefficient}`. A monomial is a sorted tuple of
`(atom, exponent)`; an atom is a symbol (`"x"`, `"pi"`, `"sin(30)"`) or an integer under a
fractional exponent in (0, 1), which is how surds are held: 4 sqrt(21) is
`{((3, 1/2), (7, 1/2)): 4}`. Expressions are compared by their dicts, without a tolerance, so
equality is an equivalence relation. It never equates different values (symbols are taken to be
positive, values of functions are not: sqrt(x^2) is x), and it finds equal ones equal as long as
radicands have no two prime factors above 1,000; nested roots and sums under roots stay as they are
written.

Every operation is bounded (`MAX_TERMS`, `MAX_BITS`); beyond the bounds it raises
`UnsupportedError`, and a power too large to write out stays an opaque symbol.
"""

import math
from fractions import Fraction

Number = int | Fraction
Monomial = tuple[tuple[int | str, Number], ...]
Expr = dict[Monomial, Number]

MAX_TERMS = 24
MAX_BITS = 2048
MAX_EXPANDED_POWER = 4
_MAX_ROOT_BITS = 64
_MAX_CONJUGATES = 2

_SMALL_PRIMES = [p for p in range(2, 1000) if all(p % q for q in range(2, math.isqrt(p) + 1))]
_SMALL_PRIME_PRODUCT = math.prod(_SMALL_PRIMES)
_CONSTANTS = {"pi": math.pi, "e": math.e}


class UnsupportedError(ValueError):
  """The expression lies outside what can be held exactly within the bounds."""


def rational(value: Number) -> Expr:
  """Returns the expression that is the given number."""
  return {(): _bounded(value)} if value else {}


def symbol(name: str) -> Expr:
  """Returns the expression that is one symbol."""
  return {((name, 1),): 1}


def constant(expr: Expr) -> Number | None:
  """Returns the rational number that `expr` is, or None when it is not one."""
  if not expr:
    return 0
  return expr.get(()) if len(expr) == 1 else None


def add(a: Expr, b: Expr, sign: int = 1) -> Expr:
  """Returns `a + sign * b`."""
  left, right = constant(a), constant(b)
  if left is not None and right is not None:
    return rational(left + sign * right)
  total = dict(a)
  for monomial, coefficient in b.items():
    total[monomial] = total.get(monomial, 0) + sign * coefficient
  return _tidy(total)


def multiply(a: Expr, b: Expr) -> Expr:
  """Returns `a * b`, expanded."""
  left, right = constant(a), constant(b)
  if left is not None and right is not None:
    return rational(left * right)
  if len(a) * len(b) > MAX_TERMS:
    raise UnsupportedError(f"a product of {len(a)} by {len(b)} terms exceeds {MAX_TERMS}")
  product: Expr = {}
  for left_monomial, left_coefficient in a.items():
    for right_monomial, right_coefficient in b.items():
      monomial, factor = _join(left_monomial, right_monomial)
      term = left_coefficient * right_coefficient * factor
      product[monomial] = product.get(monomial, 0) + term
  return _tidy(product)


def divide(a: Expr, b: Expr) -> Expr:
  """Returns `a / b`; surds leave the denominator. Division by zero is unsupported."""
  return multiply(a, _inverse(b))


def power(base: Expr, exponent: Expr) -> Expr:
  """Returns `base ** exponent`; what cannot be written out becomes one opaque symbol."""
  exponent_value = constant(exponent)
  if exponent_value is None:
    return symbol(f"({key(base)})^({key(exponent)})")
  if not base:
    if exponent_value > 0:
      return {}
    raise UnsupportedError("zero to a power that is not positive")
  try:
    if isinstance(exponent_value, int):
      return _integer_power(base, exponent_value)
    return _fractional_power(base, exponent_value)
  except OverflowError:
    return symbol(f"({key(base)})^({exponent_value})")


def key(expr: Expr) -> str:
  """Returns a string that is equal exactly for equal expressions."""
  if not expr:
    return "0"
  return "+".join(sorted(_term_key(m, c) for m, c in expr.items()))


def primitive(expr: Expr) -> tuple[Number, Expr]:
  """Splits a non-zero expression into its positive rational content and the rest."""
  numerator = math.gcd(*(abs(c.numerator) for c in expr.values()))
  denominator = math.lcm(*(c.denominator for c in expr.values()))
  content = _plain(Fraction(numerator, denominator))
  if content == 1:
    return 1, expr
  return content, {m: _plain(Fraction(c) / content) for m, c in expr.items()}


def approximate(expr: Expr) -> float | None:
  """Returns the value as a float; None for symbols other than pi and e, and beyond a float."""
  try:
    return _approximate(expr)
  except OverflowError:
    return None


def _approximate(expr: Expr) -> float | None:
  total = 0.0
  for monomial, coefficient in expr.items():
    term = float(coefficient)
    for atom, exponent in monomial:
      base = _CONSTANTS.get(atom) if isinstance(atom, str) else atom
      if base is None:
        return None
      term *= float(base) ** float(exponent)
    total += term
  return total


def _plain(value: Number) -> Number:
  """Returns an int for a whole number, so that equal numbers have one form."""
  return value if isinstance(value, int) or value.denominator != 1 else value.numerator


def _bounded(value: Number) -> Number:
  if max(value.numerator.bit_length(), value.denominator.bit_length()) > 2 * MAX_BITS:
    raise UnsupportedError("a number too large to write out")
  return _plain(value)


def _tidy(terms: Expr) -> Expr:
  kept = {m: _bounded(c) for m, c in terms.items() if c}
  if len(kept) > MAX_TERMS:
    raise UnsupportedError(f"{len(kept)} terms exceed {MAX_TERMS}")
  return kept


def _join(a: Monomial, b: Monomial) -> tuple[Monomial, Number]:
  if not a or not b:
    return a or b, 1
  exponents = dict(a)
  for atom, exponent in b:
    exponents[atom] = exponents.get(atom, 0) + exponent
  return _monomial(exponents)


def _monomial(exponents: dict) -> tuple[Monomial, Number]:
  """Normalises atoms and exponents; whole powers of integers move into the returned factor."""
  factor: Number = 1
  kept = []
  for atom, exponent in exponents.items():
    if isinstance(atom, int):
      whole = math.floor(exponent)
      factor *= _number_power(atom, whole)
      exponent -= whole
    elif atom == "i" and exponent == int(exponent):
      factor *= -1 if exponent % 4 >= 2 else 1
      exponent %= 2
    if exponent:
      kept.append((atom, _plain(exponent)))
  kept.sort(key=lambda pair: (isinstance(pair[0], str), pair[0]))
  return tuple(kept), factor


def _number_power(base: Number, exponent: int) -> Number:
  bits = max(abs(base.numerator).bit_length(), base.denominator.bit_length())
  if abs(exponent) * bits > MAX_BITS:
    raise OverflowError
  return _plain(Fraction(base) ** exponent)


def _inverse(expr: Expr) -> Expr:
  if not expr:
    raise UnsupportedError("division by zero")
  if len(expr) == 1:
    return _integer_power(expr, -1)
  surds = {atom for monomial in expr for atom, exponent in monomial}
  if not all(isinstance(a, int) or a == "i" for a in surds) or any(
    exponent not in (1, Fraction(1, 2)) for monomial in expr for _, exponent in monomial
  ):
    return _opaque_power(expr, -1)
  if len(surds) > _MAX_CONJUGATES:
    return _opaque_power(expr, -1)
  numerator = rational(1)
  for surd in surds:
    # Multiplying by the conjugate in one square root removes that root from the denominator.
    conjugate = {m: -c if any(a == surd for a, _ in m) else c for m, c in expr.items()}
    numerator = multiply(numerator, conjugate)
    expr = multiply(expr, conjugate)
  return multiply(numerator, _inverse(expr))


def _integer_power(base: Expr, exponent: int) -> Expr:
  if len(base) == 1:
    ((monomial, coefficient),) = base.items()
    powers, factor = _monomial({atom: e * exponent for atom, e in monomial})
    return {powers: _plain(_number_power(coefficient, exponent) * factor)}
  if exponent < 0:
    return _integer_power(_inverse(base), -exponent)
  if exponent > MAX_EXPANDED_POWER:
    return _opaque_power(base, exponent)
  result = rational(1)
  for _ in range(exponent):
    result = multiply(result, base)
  return result


def _fractional_power(base: Expr, exponent: Fraction) -> Expr:
  if len(base) > 1:
    return _opaque_power(base, exponent)
  ((monomial, coefficient),) = base.items()
  if any(_may_be_negative(atom) and power % 2 == 0 for atom, power in monomial):
    return _opaque_power(base, exponent)  # sqrt(cos(t)^2) is not cos(t)
  if coefficient < 0 and any(atom == "i" for atom, _ in monomial):
    raise UnsupportedError("a root of an imaginary number")
  result = rational(1)
  if coefficient < 0:
    if exponent.denominator == 2:
      result = power(symbol("i"), rational(exponent.numerator))
    elif exponent.denominator % 2:
      result = rational((-1) ** exponent.numerator)
    else:
      raise UnsupportedError(f"root {exponent} of a negative number")
  exponents = {atom: e * exponent for atom, e in monomial}
  for number, sign in ((abs(coefficient.numerator), 1), (coefficient.denominator, -1)):
    for factor, multiplicity in _factors(number).items():
      exponents[factor] = exponents.get(factor, 0) + sign * multiplicity * exponent
  powers, factor = _monomial(exponents)
  return multiply(result, {powers: factor})


def _opaque_power(base: Expr, exponent: Number) -> Expr:
  """Holds a sum under a power as one atom, its rational content taken out first."""
  content, rest = primitive(base)
  outside = power(rational(content), rational(exponent))
  if (
    isinstance(exponent, int) and min(rest.items(), key=lambda t: _term_key(t[0], abs(t[1])))[1] < 0
  ):
    rest = {m: -c for m, c in rest.items()}
    outside = multiply(outside, rational((-1) ** (exponent % 2)))
  return multiply(outside, {((f"({key(rest)})", _plain(exponent)),): 1})


def _may_be_negative(atom: int | str) -> bool:
  """Whether an atom is the value of a function such as a cosine; plain symbols are positive."""
  head, bracket, _ = atom.partition("(") if isinstance(atom, str) else ("", "", "")
  return bool(bracket) and head.isalpha() and head != "abs"


def _factors(number: int) -> dict[int, int]:
  """Prime factors up to 1,000; a rest is split no further than a perfect square."""
  if number.bit_length() > _MAX_ROOT_BITS:
    return {number: 1}
  factors: dict[int, int] = {}
  # Most radicands are small or have few small factors: the rest of the primes need no trial.
  small = math.gcd(number, _SMALL_PRIME_PRODUCT)
  for prime in _SMALL_PRIMES:
    if small == 1:
      break
    if small % prime == 0:
      small //= prime
      while number % prime == 0:
        factors[prime] = factors.get(prime, 0) + 1
        number //= prime
  root = math.isqrt(number)
  if root > 1 and root * root == number:
    factors[root] = 2
  elif number > 1:
    factors[number] = 1
  return factors


def _term_key(monomial: Monomial, coefficient: Number) -> str:
  return str(coefficient) + "".join(f"*{atom}^{exponent}" for atom, exponent in monomial)
