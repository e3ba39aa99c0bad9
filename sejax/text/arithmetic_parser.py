"""Parses arithmetic: sums, products, mixed numbers, powers, roots, functions and symbols."""

from fractions import Fraction

from sejax.text import algebra, vocabulary
from sejax.text.algebra import Expr, UnsupportedError
from sejax.text.latex import Token
from sejax.text.unit_parser import UnitParser
from sejax.text.values import (
  PLUS_MINUS,
  Value,
  absolute,
  as_expr,
  binomial,
  factorial,
  is_number,
  parse_number,
  value_key,
)

_DATE = ["number", "symbol", "number", "symbol", "number"]  # token kinds of 12/10/2024


class ArithmeticParser(UnitParser):
  """Recursive-descent parser of arithmetic; subclasses parse what brackets enclose (`structure`).

  All methods raise `UnsupportedError` if the tokens do not parse.
  """

  def __init__(self, tokens: list[Token]):
    super().__init__(tokens)
    self._num_degree_marks = 0  # parsed so far
    self._num_plus_minus = 0  # parsed so far
    self._last_power_end = -1  # index of the token after the last power

  def structure(self, opener: str, is_argument: bool = False) -> Value:
    """Parses the content of brackets and the closing bracket.

    Args:
      opener: the opening bracket, which has been taken.
      is_argument: whether the brackets hold the argument of a function; the key then keeps the
        names in it: P(X = 3).
    """
    raise NotImplementedError

  def sum(self) -> Value:
    """Parses terms joined by plus, minus and plus-minus signs."""
    start = self.index
    value = self._signed_product()
    if self.next not in vocabulary.SIGNS:
      return value
    while self.next in vocabulary.SIGNS:
      operator = self.take().text
      right = as_expr(self._signed_product())
      if operator == r"\pm":
        right = algebra.multiply(self._new_plus_minus(), right)
      value = algebra.add(as_expr(value), right, -1 if operator == "-" else 1)
    if self.is_range(start):
      raise UnsupportedError("a range, a score or an order")
    return value

  def _signed_product(self) -> Value:
    """Parses a product with any number of signs in front."""
    signs = []
    while self.next in vocabulary.SIGNS:
      signs.append(self.take().text)
    value = self._product()
    if r"\pm" in signs:
      value = algebra.multiply(self._new_plus_minus(), as_expr(value))
    return _negated(value) if signs.count("-") % 2 == 1 else value

  def _new_plus_minus(self) -> Expr:
    """Returns a new symbol for a plus-minus sign, since two of them may have different signs."""
    self._num_plus_minus += 1
    return algebra.symbol(f"{PLUS_MINUS}{self._num_plus_minus}")

  def _product(self) -> Value:
    """Parses factors with or without operators between them, a mixed number, and a unit."""
    start = self.index
    value = self._power()
    is_integer_literal = self.index - start == 1 and self.peek(-1).text.isdecimal()
    while self.next is not None and self.next not in vocabulary.PRODUCT_ENDS:
      if self.next in vocabulary.TIMES_SIGNS:
        self.take()
        value = algebra.multiply(as_expr(value), as_expr(self._factor()))
      elif not isinstance(value, str) and self.skip_unit(start, is_number(value)):
        continue  # Units are dropped.
      elif self.next in vocabulary.DIVISION_SIGNS:
        self.take()
        if [token.kind for token in self.tokens[start : self.index + 1]] == _DATE:
          raise UnsupportedError("a date")
        value = algebra.divide(as_expr(value), as_expr(self._factor()))
      elif is_integer_literal and (self.next == r"\frac" or self.next.isdecimal()):
        value = self._mixed_number(value)
      else:
        value = self._juxtaposed(value, start)
      is_integer_literal = False
    if self.next == "-" and is_number(value):
      self.skip_unit(start, is_number=True)  # 90-cm
    return value

  def _factor(self) -> Value:
    """Parses one factor after an operator, which may have a sign: 2 * -3."""
    is_negative = self.accept("-")
    value = self._power()
    return _negated(value) if is_negative else value

  def _mixed_number(self, integer: Value) -> Value:
    r"""Parses the fraction of a mixed number, `2 1/2` or `2\frac12`.

    An improper `\frac` is a factor instead: `2\frac32` is 3.
    """
    is_command = self.next == r"\frac"
    fraction = as_expr(self._power())
    if not is_command:
      self.expect("/")
      fraction = algebra.divide(fraction, as_expr(self._power()))
    number = algebra.constant(fraction)
    if number is not None and 0 < number < 1:
      return algebra.add(as_expr(integer), fraction)
    if not is_command:
      raise UnsupportedError("two numbers side by side")
    return algebra.multiply(as_expr(integer), fraction)

  def _juxtaposed(self, value: Value, start: int) -> Value:
    """Parses the next factor of a product without operators, `2x`.

    Args:
      value: the product so far.
      start: index of its first token.
    """
    token = self.peek()
    if self._is_separate_number(value, start):
      raise UnsupportedError("a number of its own after a number")
    if token.text in vocabulary.SCALES:
      self.take()
      return algebra.multiply(as_expr(value), algebra.rational(vocabulary.SCALES[token.text]))
    is_number_like = token.kind == "number" or token.text == r"\frac"
    if is_number_like and self.peek(-1).text == "°":
      raise UnsupportedError("a number after degrees")
    are_powers = self._last_power_end == self.index and self.peek(1).text == "^"  # 2^6 3^5
    if token.kind == "number" and self.peek(-1).kind != "command" and not are_powers:
      raise UnsupportedError("a number after a value")
    if not is_number(value) and self._is_function_argument():
      raise UnsupportedError("a function's argument after a value")
    return algebra.multiply(as_expr(value), as_expr(self._power()))

  def _is_separate_number(self, value: Value, start: int) -> bool:
    """Whether the next tokens are a bracketed number that does not multiply the value before it.

    They are in {30}{100}, (1)(3), 30 (100), 70°(30), and 0.(3), which is the repeating decimal 1/3;
    not in the products 3(100) and 3(x+1).

    Args:
      value: the product so far.
      start: index of its first token.
    """
    if self.next not in ("(", "[", "{") or isinstance(value, str):
      return False
    offset = 2 if self.peek(1).text in vocabulary.SIGNS else 1
    if self.peek(offset).kind != "number" or algebra.constant(value) is None:
      return False
    offset += 2 if self.peek(offset + 1).text == "°" else 1
    if self.peek(offset).text not in (")", "]", "}"):
      return False
    before = self.peek(-1)
    is_behind_brackets = before.text in (")", "]", "°") or self.tokens[start].text == "{"
    is_decimal = before.kind == "number" and "." in before.text
    return self.next == "{" or self.peek().spaced or is_behind_brackets or is_decimal

  def _power(self) -> Value:
    """Parses a value with what may follow it: an exponent, a subscript, `!` or a degree mark."""
    value = self._primary()
    while self.next in vocabulary.POSTFIXES:
      operator = self.take().text
      if operator in ("^", "**"):
        value = algebra.power(as_expr(value), as_expr(self.nested(self._script)))
        self._last_power_end = self.index
        return value
      if operator == "!":
        if self.next == "!":
          raise UnsupportedError("a double factorial")
        value = algebra.rational(factorial(algebra.constant(as_expr(value))))
      elif operator == "_":
        subscript = self.nested(self.braced if self.next == "{" else self._primary)
        value = algebra.symbol(f"{value_key(value)}_({value_key(subscript)})")
      else:
        self._num_degree_marks += 1
        if self.depth == 0:
          self.units.add("°")
        value = self._add_arc_minutes(as_expr(value))
    return value

  def _add_arc_minutes(self, degrees: Expr) -> Expr:
    """Adds the minutes and seconds of an angle to its degrees: 22° 30'."""
    for parts_per_degree, num_marks in ((60, 1), (3600, 2)):
      if self.peek().kind != "number":
        break
      has_marks = all(self.peek(1 + i).text == "'" for i in range(num_marks))
      # At the end of an answer the mark of the seconds may have been stripped as a quote.
      is_unmarked_seconds = parts_per_degree == 3600 and self.peek(1).kind == "end"
      if not (has_marks or is_unmarked_seconds):
        break
      number = parse_number(self.take().text)
      if number >= 60:
        raise UnsupportedError(f"{number} minutes or seconds of an angle")
      degrees = algebra.add(degrees, algebra.rational(Fraction(number) / parts_per_degree))
      if has_marks:
        self.seek(self.index + num_marks)
    return degrees

  def _script(self) -> Value:
    """Parses an exponent or a subscript after `^` or `_`."""
    is_negative = self.accept("-")
    value = self.braced() if self.next == "{" else self._power()
    return _negated(value) if is_negative else value

  def _primary(self) -> Value:
    """Parses a number, a name, a command, or brackets with their content."""
    token = self.take()
    if token.kind == "number":
      return algebra.rational(parse_number(token.text))
    if token.kind == "grouped":
      return algebra.symbol(token.text)  # 120,115 may be one number or two.
    if token.kind == "name":
      return self._name(token.text)
    if token.text in ("(", "[", "{", r"\{", r"\begin"):
      return self.nested(lambda: self.structure(token.text))
    if token.kind == "command":
      return self._command(token.text)
    if token.text == "|":
      inside = self.nested(self.sum)
      self.expect("|")
      return absolute(as_expr(inside))
    raise UnsupportedError(f"{token.text} begins no value")

  def braced(self) -> Value:
    """Parses a sum in braces."""
    self.expect("{")
    value = self.sum()
    self.expect("}")
    return value

  def _name(self, name: str) -> Value:
    """Returns the value of a name: a function, a symbol, or a product of variables (`xy`)."""
    if name in ("pi", "sqrt"):
      return self._command("\\" + name)
    if name.lower() in ("infinity", "inf"):
      return algebra.symbol("oo")
    if name in vocabulary.FUNCTIONS:
      return self._function(name)
    if self.next == "(":
      is_letter_of_function = len(name) == 1 and self._is_function_argument()
      if name in vocabulary.FUNCTION_LETTERS or is_letter_of_function:
        return algebra.symbol(f"{name}{self._function_argument_key()}")
    if len(name) == 1 or name[0].isupper():
      return algebra.symbol(name)  # AB is the name of a segment, not a product that equals BA.
    if len(name) > 3 or not name.isascii():
      raise UnsupportedError(f"{name} is a word")
    value = algebra.rational(1)
    for letter in name:
      value = algebra.multiply(value, algebra.symbol(letter))
    return value

  def _is_function_argument(self) -> bool:
    """Whether the brackets that follow hold the argument of a function rather than a factor.

    y(0), N(2, 5) and y(x) are values of functions; x(x + 1) is a product.
    """
    if self.next not in ("(", "["):
      return False
    offset, depth = 1, 1
    has_comma_or_relation = has_variable = False
    while depth and self.peek(offset).kind != "end":
      token = self.peek(offset)
      depth += (token.text in ("(", "[")) - (token.text in (")", "]"))
      if depth == 1 and (token.text == "," or token.text in vocabulary.RELATIONS):
        has_comma_or_relation = True
      if token.kind == "name" and token.text != "pi":
        has_variable = True
      if token.kind == "command" and token.text[1:] in vocabulary.SYMBOLS - {"pi"}:
        has_variable = True
      offset += 1
    # y(x) has a single token in its brackets; (x)(y) and (a + b)(x) are products of brackets.
    is_single_token = offset == 3 and self.peek(-1).text not in (")", "]")
    return has_comma_or_relation or not has_variable or is_single_token

  def _function_argument_key(self) -> str:
    """Parses the brackets after the name of a function; they may hold a relation: P(X = 3)."""
    self.expect("(")
    return value_key(self.nested(lambda: self.structure("(", is_argument=True)))

  def _command(self, command: str) -> Value:
    """Parses the arguments of a LaTeX command and returns its value."""
    if command in (r"\frac", r"\binom"):
      top, bottom = self._argument(), self._argument()
      if command == r"\frac":
        return algebra.divide(as_expr(top), as_expr(bottom))
      n, k = algebra.constant(as_expr(top)), algebra.constant(as_expr(bottom))
      return algebra.rational(binomial(n, k))
    if command == r"\sqrt":
      degree = algebra.rational(2)
      if self.accept("["):
        degree = as_expr(self.sum())
        self.expect("]")
      inside = self.braced() if self.next == "{" else self.nested(self._primary)
      return algebra.power(as_expr(inside), algebra.divide(algebra.rational(1), degree))
    if command in vocabulary.NAME_COMMANDS:
      named = self.braced() if self.next == "{" else self.nested(self._primary)
      if command in (r"\overline", r"\bar") and is_number(named):
        raise UnsupportedError("digits that repeat")
      return algebra.symbol(f"{command}[{value_key(named)}]")
    if command in (r"\emptyset", r"\varnothing"):
      return "{}"
    if command == r"\infty":
      return algebra.symbol("oo")
    if command[1:] in vocabulary.FUNCTIONS:
      return self._function(command[1:])
    if command[1:] in vocabulary.SYMBOLS:
      return algebra.symbol(command[1:])
    raise UnsupportedError(f"{command} begins no value")

  def _argument(self) -> Value:
    r"""Parses an argument of a command: in braces, or one digit or letter (`\frac12` is 1/2)."""
    token = self.peek()
    if token.text == "{":
      return self.nested(self.braced)
    if token.kind not in ("number", "name"):
      return self.nested(self._primary)
    first = self.split_token() if len(token.text) > 1 else self.take()
    if token.kind == "number":
      return algebra.rational(parse_number(first.text))
    return self._name(first.text)

  def _function(self, name: str) -> Value:
    """Parses a function such as sin; its argument is in brackets or ends at the next operator."""
    exponent = None
    while self.next in ("_", "^"):
      if self.take().text == "_":
        name += f"_({value_key(self.nested(self._script))})"
      else:
        exponent = as_expr(self.nested(self._script))
    if exponent is not None and algebra.constant(exponent) == -1:
      name, exponent = vocabulary.INVERSES.get(name, f"{name}^-1"), None
    degree_marks_before = self._num_degree_marks
    inside = self.nested(self._primary if self.next in ("{", "(") else self._bare_argument)
    # sin 30° is not sin 30, though the degree mark is dropped from values.
    mark = "°" if self._num_degree_marks > degree_marks_before else ""
    base = vocabulary.RECIPROCALS.get(name, name)
    value = algebra.symbol(f"{base}({value_key(inside)}{mark})")
    if base != name:
      value = algebra.power(value, algebra.rational(-1))
    return value if exponent is None else algebra.power(value, exponent)

  def _bare_argument(self) -> Value:
    r"""Parses a function's argument without brackets: `\sin 2x`."""
    value = self._power()
    while self.peek().kind in ("name", "command") and self._continues_argument():
      value = algebra.multiply(as_expr(value), as_expr(self._power()))
    return value

  def _continues_argument(self) -> bool:
    operators = vocabulary.PRODUCT_ENDS | vocabulary.TIMES_SIGNS | vocabulary.DIVISION_SIGNS
    return self.next not in operators and self.next.lstrip("\\") not in vocabulary.FUNCTIONS


def _negated(value: Value) -> Value:
  return algebra.multiply(algebra.rational(-1), as_expr(value))
