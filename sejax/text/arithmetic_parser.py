"""Reads arithmetic: sums, products, mixed numbers, powers, roots, functions and symbols."""

from fractions import Fraction
from math import comb, factorial

from sejax.text import exact, vocabulary
from sejax.text.exact import Expr, UnsupportedError
from sejax.text.notation import Token
from sejax.text.units import Units

MAX_DIGITS = 40
# Begins the symbols for plus-minus signs; no name of an answer holds it.
PLUS_MINUS = "±"

_DATE = ["number", "symbol", "number", "symbol", "number"]  # 12/10/2024

# An exact expression, or the key of a structure such as a tuple, which takes no part in arithmetic.
Value = Expr | str


class Arithmetic(Units):
  """Recursive descent over arithmetic; `structure` reads what stands in brackets.

  Its readers raise `UnsupportedError` where nothing can be read.
  """

  def __init__(self, tokens: list[Token]):
    super().__init__(tokens)
    # Degree marks and plus-minus signs read so far.
    self._degrees = self._signs = 0
    self._power_end = -1  # Where the last power ended.

  def structure(self, opener: str, is_argument: bool = False) -> Value:
    """Reads what an opening bracket begins, up to its closing one.

    Args:
      opener: the bracket, which has been read.
      is_argument: whether a function is applied to what it holds; its key keeps all names then.
    """
    raise NotImplementedError

  def sum(self) -> Value:
    """Reads terms joined by plus, minus and plus-minus."""
    start = self.index
    value = self._signed_product()
    if self.next not in vocabulary.SIGNS:
      return value
    while self.next in vocabulary.SIGNS:
      operator = self.take().text
      right = expr(self._signed_product())
      if operator == r"\pm":
        right = exact.multiply(self._either_sign(), right)
      value = exact.add(expr(value), right, -1 if operator == "-" else 1)
    if self.is_range(start):
      raise UnsupportedError("a range, a score or an order")
    return value

  def _signed_product(self) -> Value:
    negative = plus_minus = False
    while self.next in vocabulary.SIGNS:
      sign = self.take().text
      negative ^= sign == "-"
      plus_minus |= sign == r"\pm"
    value = self._product()
    if plus_minus:
      value = exact.multiply(self._either_sign(), expr(value))
    return exact.multiply(exact.rational(-1), expr(value)) if negative else value

  def _either_sign(self) -> Expr:
    """Returns a symbol of its own for each plus-minus: two of them may not have the same sign."""
    self._signs += 1
    return exact.symbol(f"{PLUS_MINUS}{self._signs}")

  def _product(self) -> Value:
    start = self.index
    value = self._power()
    literal = self.index - start == 1 and self.token(-1).text.isdecimal()
    while self.next is not None and self.next not in vocabulary.ENDS:
      if self.next in vocabulary.TIMES:
        self.take()
        value = exact.multiply(expr(value), expr(self._factor()))
      elif not isinstance(value, str) and self.unit(start, is_number(value)):
        continue  # a trailing unit is dropped
      elif self.next in vocabulary.OVER:
        self.take()
        if [token.kind for token in self.tokens[start : self.index + 1]] == _DATE:
          raise UnsupportedError("a date")
        value = exact.divide(expr(value), expr(self._factor()))
      elif literal and (self.next == r"\frac" or self.next.isdecimal()):
        value = self._mixed(value)
      else:
        value = self._juxtaposed(value, start)
      literal = False
    if self.next == "-" and is_number(value):
      self.unit(start, is_number=True)  # 90-cm
    return value

  def _factor(self) -> Value:
    """Reads one factor behind an operator: 2 * -3."""
    negative = self.accept("-")
    value = self._power()
    return exact.multiply(exact.rational(-1), expr(value)) if negative else value

  def _mixed(self, whole: Value) -> Value:
    r"""Reads the fraction of a mixed number: `2 1/2`, `2\frac12`; an improper one multiplies."""
    is_command = self.next == r"\frac"
    part = expr(self._power())
    if not is_command:
      self.expect("/")
      part = exact.divide(part, expr(self._power()))
    number = exact.constant(part)
    if number is not None and 0 < number < 1:
      return exact.add(expr(whole), part)
    if not is_command:
      raise UnsupportedError("two numbers side by side")
    return exact.multiply(expr(whole), part)

  def _juxtaposed(self, value: Value, start: int) -> Value:
    """Reads a product written without an operator, whose first factor begins at `start`."""
    token = self.token()
    if self._is_apart(value, start):
      raise UnsupportedError("a number of its own behind a number")
    if token.text in vocabulary.SCALES:
      self.take()
      return exact.multiply(expr(value), exact.rational(vocabulary.SCALES[token.text]))
    is_number_like = token.kind == "number" or token.text == r"\frac"
    if is_number_like and self.token(-1).text == "°":
      raise UnsupportedError("a number behind degrees")
    are_powers = self._power_end == self.index and self.token(1).text == "^"  # 2^6 3^5
    if token.kind == "number" and self.token(-1).kind != "command" and not are_powers:
      raise UnsupportedError("a number behind a value")
    if not is_number(value) and self._applies():
      raise UnsupportedError("a function's argument behind a value")
    return exact.multiply(expr(value), expr(self._power()))

  def _is_apart(self, value: Value, start: int) -> bool:
    """Whether a number in brackets or braces comes that multiplies no number in front.

    3(100) and 3(x+1) are products; {30}{100}, (1)(3), 30 (100) and 70°(30) are two numbers each,
    and 0.(3) is a third.
    """
    if self.next not in ("(", "[", "{") or isinstance(value, str):
      return False
    offset = 2 if self.token(1).text in vocabulary.SIGNS else 1
    if self.token(offset).kind != "number" or exact.constant(value) is None:
      return False
    offset += 2 if self.token(offset + 1).text == "°" else 1
    if self.token(offset).text not in (")", "]", "}"):
      return False
    before = self.token(-1)
    is_behind_brackets = before.text in (")", "]", "°") or self.tokens[start].text == "{"
    is_decimal = before.kind == "number" and "." in before.text
    return self.next == "{" or self.token().spaced or is_behind_brackets or is_decimal

  def _power(self) -> Value:
    value = self._primary()
    while self.next in vocabulary.POSTFIXES:
      operator = self.take().text
      if operator in ("^", "**"):
        value = exact.power(expr(value), expr(self.nested(self._script)))
        self._power_end = self.index
        return value
      if operator == "!":
        if self.next == "!":
          raise UnsupportedError("a double factorial")
        value = exact.rational(_factorial(exact.constant(expr(value))))
      elif operator == "_":
        index = self.nested(self.braced if self.next == "{" else self._primary)
        value = exact.symbol(f"{value_key(value)}_({value_key(index)})")
      else:
        self._degrees += 1
        if self.depth == 0:
          self.units.add("°")
        value = self._arc(expr(value))
    return value

  def _arc(self, degrees: Expr) -> Expr:
    """Adds the minutes and seconds of an angle to its degrees: 22° 30'."""
    for parts, marks in ((60, ("'",)), (3600, ("'", "'"))):
      if self.token().kind != "number":
        break
      closing = tuple(self.token(1 + i).text for i in range(len(marks)))
      # The mark of the seconds may have been lost with the quotes around an answer.
      if closing != marks and not (parts == 3600 and self.token(1).kind == "end"):
        break
      part = number(self.take().text)
      if part >= 60:
        raise UnsupportedError(f"{part} of 60 parts")
      degrees = exact.add(degrees, exact.rational(Fraction(part) / parts))
      self.move(self.index + (len(marks) if closing == marks else 0))
    return degrees

  def _script(self) -> Value:
    negative = self.accept("-")
    value = self.braced() if self.next == "{" else self._power()
    return exact.multiply(exact.rational(-1), expr(value)) if negative else value

  def _primary(self) -> Value:
    token = self.take()
    if token.kind == "number":
      return exact.rational(number(token.text))
    if token.kind == "grouped":
      return exact.symbol(token.text)  # 120,115: one number or two
    if token.kind == "name":
      return self._name(token.text)
    if token.text in ("(", "[", "{", r"\{", r"\begin"):
      return self.nested(lambda: self.structure(token.text))
    if token.kind == "command":
      return self._command(token.text)
    if token.text == "|":
      inside = self.nested(self.sum)
      self.expect("|")
      return _absolute(expr(inside))
    raise UnsupportedError(f"{token.text!r} begins no value")

  def braced(self) -> Value:
    """Reads a sum in braces."""
    self.expect("{")
    value = self.sum()
    self.expect("}")
    return value

  def _name(self, name: str) -> Value:
    if name in ("pi", "sqrt"):
      return self._command("\\" + name)
    if name.lower() in ("infinity", "inf"):
      return exact.symbol("oo")
    if name in vocabulary.FUNCTIONS:
      return self._function(name)
    if self.next == "(" and (name in vocabulary.APPLIED or (len(name) == 1 and self._applies())):
      return exact.symbol(f"{name}{self._application()}")
    if len(name) == 1 or name[0].isupper():
      return exact.symbol(name)  # AB names a segment, which is not BA
    if len(name) > 3 or not name.isascii():
      raise UnsupportedError(f"{name} is a word")
    value = exact.rational(1)
    for letter in name:
      value = exact.multiply(value, exact.symbol(letter))
    return value

  def _applies(self) -> bool:
    """Whether a bracket comes that holds what a function is applied to, rather than a factor.

    y(0), N(2, 5) and y(x) are values of functions; x(x + 1) is a product.
    """
    if self.next not in ("(", "["):
      return False
    offset, depth, has_sign, has_name = 1, 1, False, False
    while depth and self.token(offset).kind != "end":
      token = self.token(offset)
      depth += (token.text in ("(", "[")) - (token.text in (")", "]"))
      has_sign |= depth == 1 and (token.text == "," or token.text in vocabulary.RELATIONS)
      has_name |= token.kind == "name" and token.text != "pi"
      has_name |= token.kind == "command" and token.text[1:] in vocabulary.SYMBOLS - {"pi"}
      offset += 1
    # (x)(y) and (a + b)(x) are products of brackets.
    is_argument = offset == 3 and self.token(-1).text not in (")", "]")
    return has_sign or not has_name or is_argument

  def _application(self) -> str:
    """Reads the bracket behind the name of a function; it may hold a relation: P(X = 3)."""
    self.expect("(")
    return value_key(self.nested(lambda: self.structure("(", is_argument=True)))

  def _command(self, command: str) -> Value:
    if command in (r"\frac", r"\binom"):
      top, bottom = self._argument(), self._argument()
      if command == r"\frac":
        return exact.divide(expr(top), expr(bottom))
      return exact.rational(_binomial(exact.constant(expr(top)), exact.constant(expr(bottom))))
    if command == r"\sqrt":
      degree = exact.rational(2)
      if self.accept("["):
        degree = expr(self.sum())
        self.expect("]")
      inside = self.braced() if self.next == "{" else self.nested(self._primary)
      return exact.power(expr(inside), exact.divide(exact.rational(1), degree))
    if command in vocabulary.NAMING:
      named = self.braced() if self.next == "{" else self.nested(self._primary)
      if command in (r"\overline", r"\bar") and is_number(named):
        raise UnsupportedError("digits that repeat")
      return exact.symbol(f"{command}[{value_key(named)}]")
    if command in (r"\emptyset", r"\varnothing"):
      return "{}"
    if command == r"\infty":
      return exact.symbol("oo")
    if command[1:] in vocabulary.FUNCTIONS:
      return self._function(command[1:])
    if command[1:] in vocabulary.SYMBOLS:
      return exact.symbol(command[1:])
    raise UnsupportedError(f"{command} begins no value")

  def _argument(self) -> Value:
    r"""Reads a braced argument, or one digit or letter: `\frac12` is 1/2."""
    token = self.token()
    if token.text == "{":
      return self.nested(self.braced)
    if token.kind not in ("number", "name"):
      return self.nested(self._primary)
    first = self.split_token() if len(token.text) > 1 else self.take()
    return exact.rational(number(first.text)) if token.kind == "number" else self._name(first.text)

  def _function(self, name: str) -> Value:
    """Reads a function of one argument, which stands in brackets or runs to the next operator."""
    exponent = None
    while self.next in ("_", "^"):
      if self.take().text == "_":
        name += f"_({value_key(self.nested(self._script))})"
      else:
        exponent = expr(self.nested(self._script))
    if exponent is not None and exact.constant(exponent) == -1:
      name, exponent = vocabulary.INVERSES.get(name, f"{name}^-1"), None
    degrees = self._degrees
    inside = self.nested(self._primary if self.next in ("{", "(") else self._argument_of_function)
    # The sine of 30 degrees is not that of 30.
    mark = "°" if self._degrees > degrees else ""
    base = vocabulary.RECIPROCALS.get(name, name)
    value = exact.symbol(f"{base}({value_key(inside)}{mark})")
    if base != name:
      value = exact.power(value, exact.rational(-1))
    return value if exponent is None else exact.power(value, exponent)

  def _argument_of_function(self) -> Value:
    value = self._power()
    while self.token().kind in ("name", "command") and self._continues_argument():
      value = exact.multiply(expr(value), expr(self._power()))
    return value

  def _continues_argument(self) -> bool:
    operators = vocabulary.ENDS | vocabulary.TIMES | vocabulary.OVER
    return self.next not in operators and self.next.lstrip("\\") not in vocabulary.FUNCTIONS


def value_key(value: Value) -> str:
  """Returns the string under which a value is compared."""
  return value if isinstance(value, str) else exact.key(value)


def expr(value: Value) -> Expr:
  """Returns an expression as it is.

  Raises:
    UnsupportedError: it is a structure, which takes no part in arithmetic.
  """
  if isinstance(value, str):
    raise UnsupportedError("arithmetic on a structure")
  return value


def is_number(value: Value) -> bool:
  """Whether a value is a real number."""
  return not isinstance(value, str) and exact.approximate(value) is not None


def number(literal: str) -> int | Fraction:
  """Returns the exact value of a number as written.

  Raises:
    UnsupportedError: it is no number, or larger than what is held exactly.
  """
  if len(literal) > MAX_DIGITS:
    raise UnsupportedError(f"a number of {len(literal)} characters")
  if literal.isdecimal():
    return int(literal)
  mantissa, _, exponent = literal.lower().partition("e")
  whole, _, decimals = mantissa.partition(".")
  if not whole + decimals:
    raise UnsupportedError(f"{literal!r} is no number")
  value = int(whole + decimals)
  shift = (int(exponent) if exponent else 0) - len(decimals)
  if abs(shift) > 400:
    raise UnsupportedError(f"exponent {exponent}")
  return value * 10**shift if shift >= 0 else Fraction(value, 10**-shift)


def _factorial(n: int | Fraction | None) -> int:
  if not isinstance(n, int) or not 0 <= n <= 50:
    raise UnsupportedError("factorial out of range")
  return factorial(n)


def _binomial(n: int | Fraction | None, k: int | Fraction | None) -> int:
  if not isinstance(n, int) or not isinstance(k, int) or not 0 <= k <= n <= 200:
    raise UnsupportedError("binomial out of range")
  return comb(n, k)


def _absolute(value: Expr) -> Expr:
  magnitude = exact.constant(value)
  if magnitude is None:
    return exact.symbol(f"abs({exact.key(value)})")
  return exact.rational(abs(magnitude))
