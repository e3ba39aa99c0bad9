"""Exact algebra on short expressions: sums of rational numbers times surds and symbols.

An expression is a dict `{monomial: coefficient}`. A monomial is a sorted tuple of pairs
`(atom, exponent)`. An atom is a symbol (`"x"`, `"pi"`, `"sin(30)"`), or in a surd an integer, with
an exponent in (0, 1): 4 sqrt(21) is `{((3, 1/2), (7, 1/2)): 4}`.

Two expressions are equal if their dicts are, so equality is exact and transitive. Different values
are never equal; symbols are assumed to be positive, so that sqrt(x^2) is x, but values of functions
are not. Equal values have equal dicts, except under roots: radicands with two prime factors above
1,000, nested roots and roots of sums are kept as written.

The size of every result is bounded (`MAX_TERMS`, `MAX_BITS`). Beyond the bounds an operation raises
`UnsupportedError`; a power that is too large to compute becomes an opaque symbol instead.
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
  """An answer cannot be represented exactly within the bounds, or does not parse."""


def rational(value: Number) -> Expr:
  """Returns a rational number as an expression."""
  return {(): _bounded(value)} if value else {}


def symbol(name: str) -> Expr:
  """Returns a symbol as an expression."""
  return {((name, 1),): 1}


def constant(expr: Expr) -> Number | None:
  """Returns the value of a rational number; None for any other expression."""
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
  return _without_zeros(total)


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
      monomial, factor = _multiply_monomials(left_monomial, right_monomial)
      term = left_coefficient * right_coefficient * factor
      product[monomial] = product.get(monomial, 0) + term
  return _without_zeros(product)


def divide(a: Expr, b: Expr) -> Expr:
  """Returns `a / b` with a rational denominator; raises `UnsupportedError` if b is 0."""
  return multiply(a, _inverse(b))


def power(base: Expr, exponent: Expr) -> Expr:
  """Returns `base ** exponent`; a power that cannot be expanded becomes an opaque symbol."""
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
  """Returns a string that is the same for two expressions exactly if they are equal."""
  if not expr:
    return "0"
  return "+".join(sorted(_term_key(m, c) for m, c in expr.items()))


def primitive(expr: Expr) -> tuple[Number, Expr]:
  """Factors a non-zero expression: a positive rational number times an expression of content 1."""
  numerator = math.gcd(*(abs(c.numerator) for c in expr.values()))
  denominator = math.lcm(*(c.denominator for c in expr.values()))
  content = _int_if_integral(Fraction(numerator, denominator))
  if content == 1:
    return 1, expr
  return content, {m: _int_if_integral(Fraction(c) / content) for m, c in expr.items()}


def approximate(expr: Expr) -> float | None:
  """Returns the value as a float; None if it has symbols other than pi and e, or overflows."""
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


def _int_if_integral(value: Number) -> Number:
  """Converts integral fractions to int, so that equal numbers print alike in keys."""
  return value if isinstance(value, int) or value.denominator != 1 else value.numerator


def _bounded(value: Number) -> Number:
  if max(value.numerator.bit_length(), value.denominator.bit_length()) > 2 * MAX_BITS:
    raise UnsupportedError("a number too large to write out")
  return _int_if_integral(value)


def _without_zeros(terms: Expr) -> Expr:
  """Drops terms with coefficient 0 and checks the bounds."""
  nonzero = {m: _bounded(c) for m, c in terms.items() if c}
  if len(nonzero) > MAX_TERMS:
    raise UnsupportedError(f"{len(nonzero)} terms exceed {MAX_TERMS}")
  return nonzero


def _multiply_monomials(a: Monomial, b: Monomial) -> tuple[Monomial, Number]:
  """Returns the product as a monomial and a rational factor: sqrt(2) sqrt(2) is 1 times 2."""
  if not a or not b:
    return a or b, 1
  exponents = dict(a)
  for atom, exponent in b:
    exponents[atom] = exponents.get(atom, 0) + exponent
  return _normalized_monomial(exponents)


def _normalized_monomial(exponents: dict[int | str, Number]) -> tuple[Monomial, Number]:
  """Returns a monomial in normal form and a factor, which takes integer powers of integers."""
  factor: Number = 1
  pairs = []
  for atom, exponent in exponents.items():
    if isinstance(atom, int):
      integer_part = math.floor(exponent)
      factor *= _number_power(atom, integer_part)
      exponent -= integer_part
    elif atom == "i" and exponent == int(exponent):
      factor *= -1 if exponent % 4 >= 2 else 1
      exponent %= 2
    if exponent:
      pairs.append((atom, _int_if_integral(exponent)))
  pairs.sort(key=lambda pair: (isinstance(pair[0], str), pair[0]))  # integers first
  return tuple(pairs), factor


def _number_power(base: Number, exponent: int) -> Number:
  bits = max(abs(base.numerator).bit_length(), base.denominator.bit_length())
  if abs(exponent) * bits > MAX_BITS:
    raise OverflowError
  return _int_if_integral(Fraction(base) ** exponent)


def _inverse(expr: Expr) -> Expr:
  """Returns `1 / expr`; removes square roots and i from the denominator by conjugates."""
  if not expr:
    raise UnsupportedError("division by zero")
  if len(expr) == 1:
    return _integer_power(expr, -1)
  atoms = {atom for monomial in expr for atom, _ in monomial}
  exponents = {exponent for monomial in expr for _, exponent in monomial}
  has_symbols = any(isinstance(atom, str) and atom != "i" for atom in atoms)
  if has_symbols or not exponents <= {1, Fraction(1, 2)} or len(atoms) > _MAX_CONJUGATES:
    return _opaque_power(expr, -1)
  numerator = rational(1)
  for root in atoms:
    # Multiplying by the conjugate in one square root removes that root from the denominator.
    conjugate = {m: -c if any(a == root for a, _ in m) else c for m, c in expr.items()}
    numerator = multiply(numerator, conjugate)
    expr = multiply(expr, conjugate)
  return multiply(numerator, _inverse(expr))


def _integer_power(base: Expr, exponent: int) -> Expr:
  if len(base) == 1:
    ((monomial, coefficient),) = base.items()
    powers, factor = _normalized_monomial({atom: e * exponent for atom, e in monomial})
    return {powers: _int_if_integral(_number_power(coefficient, exponent) * factor)}
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
    return _opaque_power(base, exponent)  # sqrt(cos(t)^2) is not always cos(t).
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
  powers, factor = _normalized_monomial(exponents)
  return multiply(result, {powers: factor})


def _opaque_power(base: Expr, exponent: Number) -> Expr:
  """Returns a power of a sum with the sum as one atom, after taking out its rational factor."""
  content, rest = primitive(base)
  outside = power(rational(content), rational(exponent))
  if isinstance(exponent, int):
    # (a - b)^2 and (b - a)^2 get one form: the first term by key has a positive coefficient.
    _, first_coefficient = min(rest.items(), key=lambda term: _term_key(term[0], abs(term[1])))
    if first_coefficient < 0:
      rest = {m: -c for m, c in rest.items()}
      outside = multiply(outside, rational((-1) ** (exponent % 2)))
  return multiply(outside, {((f"({key(rest)})", _int_if_integral(exponent)),): 1})


def _may_be_negative(atom: int | str) -> bool:
  """Whether an atom is the value of a function such as cos; symbols are assumed to be positive."""
  if isinstance(atom, int):
    return False
  function, bracket, _ = atom.partition("(")
  return bool(bracket) and function.isalpha() and function != "abs"


def _factors(number: int) -> dict[int, int]:
  """Returns {factor: multiplicity}: primes below 1,000, the rest whole or as a square."""
  if number.bit_length() > _MAX_ROOT_BITS:
    return {number: 1}
  factors: dict[int, int] = {}
  # Most radicands have few small prime factors; the gcd tells when all of them are found.
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
