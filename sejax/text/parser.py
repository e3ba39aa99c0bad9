r"""Reads the value that the tokens of one answer spell.

Grammar, loosest first: lists (`1, 2`, `a or b`), relations and labels (`x = 5`, `area = 5`), ratios
(`3:2`), unions of intervals, sums, products (with `*`, `/` or nothing, mixed numbers, a trailing
unit), powers, and the primaries: numbers, symbols, brackets, sets, functions, roots and matrices.
Arithmetic gives exact expressions; everything built over them is the string of its parts' keys.
"""

from collections.abc import Callable
from fractions import Fraction
from math import comb, factorial

from sejax.text import exact, vocabulary
from sejax.text.exact import Expr, UnsupportedError
from sejax.text.notation import Token

MAX_TOKENS = 48
MAX_DEPTH = 12
MAX_DIGITS = 40

Value = Expr | str


def parse(tokens: list[Token]) -> Value | None:
  """Returns the value that tokens spell, or None where they spell none."""
  if not tokens or len(tokens) > MAX_TOKENS:
    return None
  try:
    return _Parser(tokens).answer()
  except (UnsupportedError, OverflowError, ZeroDivisionError, RecursionError):
    return None


def value_key(value: Value) -> str:
  """Returns the string under which a value is compared."""
  return value if isinstance(value, str) else exact.key(value)


def number_key(literal: str) -> str:
  """Returns the key of a number as written, or the literal itself where it is too long."""
  try:
    return exact.key(exact.rational(_number(literal)))
  except UnsupportedError:
    return literal


class _Parser:
  """Recursive descent over one answer; every method consumes tokens and returns a value."""

  def __init__(self, tokens: list[Token]):
    self._tokens = tokens
    self._index = 0
    self._next: str | None = tokens[0].text  # the text of the token at _index, None at the end
    self._depth = 0

  def answer(self) -> Value:
    values, names = self._items()
    if self._next is not None:
      raise UnsupportedError(f"{self._next!r} has no place here")
    if len(values) == 1:
      return values[0]
    keys = list(map(value_key, values))
    if all(names) and len(set(names)) > 1:
      return ";".join(sorted(map("{}={}".format, names, keys)))  # x = 1, y = 2 in any order
    return ",".join(keys)

  def _move(self, index: int) -> None:
    self._index = index
    self._next = self._tokens[index].text if index < len(self._tokens) else None

  def _take(self) -> Token:
    if self._next is None:
      raise UnsupportedError("the answer ends too early")
    self._move(self._index + 1)
    return self._tokens[self._index - 1]

  def _expect(self, text: str) -> None:
    if self._next != text:
      raise UnsupportedError(f"expected {text}, found {self._next}")
    self._move(self._index + 1)

  def _accept(self, text: str) -> bool:
    if self._next != text:
      return False
    self._move(self._index + 1)
    return True

  def _nested(self, read: Callable[[], Value]) -> Value:
    self._depth += 1
    if self._depth > MAX_DEPTH:
      raise UnsupportedError(f"nested deeper than {MAX_DEPTH}")
    value = read()
    self._depth -= 1
    return value

  # Lists, relations, ratios, unions.

  def _items(self) -> tuple[list[Value], list[str | None]]:
    """Reads a list: its values and the names that they are given to."""
    items = [self._relation()]
    while self._next in vocabulary.SEPARATORS:
      while self._next in vocabulary.SEPARATORS:  # "1, 2, and 3"
        self._take()
      items.append(self._relation())
    values, names = zip(*items, strict=True)
    return list(values), list(names)

  def _relation(self) -> tuple[Value, str | None]:
    """Reads a value or relation; `name = value` gives the value and the name."""
    label = self._label()
    if label:
      return self._side(), label
    sides, relations = [self._side()], []
    while self._next in vocabulary.RELATIONS:
      relations.append(vocabulary.RELATIONS[self._take().text])
      sides.append(self._side())
    if not relations:
      return sides[0], None
    if len(relations) == 1 and relations[0] in ("=", "in"):
      left, right = sides
      if _is_number(left) and _is_number(right):
        return right, None  # 1/4 + 1/4 = 1/2 ends in the answer
      if _is_name(left) and not _is_name(right):
        return right, value_key(left)
      if _is_name(right) and not _is_name(left) and relations[0] == "=":
        return left, value_key(right)
    return ";".join(sorted(map(_relation_key, relations, sides, sides[1:]))), None

  def _label(self) -> str | None:
    """Consumes `=`, `area =`, or `the answer is`-like words in front of an equals sign."""
    end = self._index
    while end < len(self._tokens) and self._tokens[end].kind == "name":
      end += 1
    words = " ".join(token.text for token in self._tokens[self._index : end])
    if end == len(self._tokens) or self._tokens[end].text not in ("=", r"\approx"):
      return None
    if 0 < len(words) <= 3:
      return None
    self._move(end + 1)
    return words.casefold() or "="

  def _side(self) -> Value:
    value = self._union()
    if self._next not in vocabulary.COLONS:
      return value
    parts = [value]
    while self._next in vocabulary.COLONS:
      self._take()
      parts.append(self._union())
    return ":".join(map(value_key, parts))

  def _union(self) -> Value:
    parts = [self._sum()]
    while self._accept(r"\cup"):
      parts.append(self._sum())
    return parts[0] if len(parts) == 1 else "U".join(sorted(set(map(value_key, parts))))

  # Arithmetic.

  def _sum(self) -> Value:
    value = self._product()
    while self._next in vocabulary.SIGNS:
      operator = self._take().text
      right = _expr(self._product())
      if operator == r"\pm":
        right = exact.multiply(exact.symbol("pm"), right)
      value = exact.add(_expr(value), right, -1 if operator == "-" else 1)
    return value

  def _product(self) -> Value:
    negative = plus_minus = False
    while self._next in vocabulary.SIGNS:
      sign = self._take().text
      negative ^= sign == "-"
      plus_minus |= sign == r"\pm"
    value = self._unsigned_product()
    if plus_minus:
      value = exact.multiply(exact.symbol("pm"), _expr(value))
    return exact.multiply(exact.rational(-1), _expr(value)) if negative else value

  def _unsigned_product(self) -> Value:
    start = self._index
    value = self._power()
    literal = self._index - start == 1 and self._tokens[start].text.isdecimal()
    while True:
      following = self._next
      if following is None or following in vocabulary.ENDS:
        return value
      if following in vocabulary.TIMES:
        self._take()
        value = exact.multiply(_expr(value), _expr(self._signed()))
      elif following in vocabulary.OVER:
        self._take()
        value = exact.divide(_expr(value), _expr(self._signed()))
      elif self._unit_follows(value):
        return self._drop_unit(value)
      elif literal and (following == r"\frac" or following.isdecimal()):
        value = self._mixed(value)
      else:
        value = self._juxtaposed(value)
      literal = False

  def _mixed(self, whole: Value) -> Value:
    r"""Reads the fraction of a mixed number: `2 1/2`, `2\frac12`; an improper one multiplies."""
    is_command = self._next == r"\frac"
    part = _expr(self._power())
    if not is_command:
      self._expect("/")
      part = exact.divide(part, _expr(self._power()))
    number = exact.constant(part)
    if number is not None and 0 < number < 1:
      return exact.add(_expr(whole), part)
    if not is_command:
      raise UnsupportedError("two numbers side by side")
    return exact.multiply(_expr(whole), part)

  def _juxtaposed(self, value: Value) -> Value:
    """Reads a product written without an operator."""
    token = self._tokens[self._index]
    if token.text in vocabulary.SCALES:
      self._take()
      return exact.multiply(_expr(value), exact.rational(vocabulary.SCALES[token.text]))
    if token.kind == "number" and self._tokens[self._index - 1].kind != "command":
      raise UnsupportedError("a number behind a value")
    right = self._power()
    if isinstance(right, str) and _is_name(value):
      return right  # P(3, 4): a named point
    return exact.multiply(_expr(value), _expr(right))

  def _signed(self) -> Value:
    """Reads one factor behind an operator: 2 * -3."""
    negative = self._accept("-")
    value = self._power()
    return exact.multiply(exact.rational(-1), _expr(value)) if negative else value

  def _power(self) -> Value:
    value = self._primary()
    while self._next in vocabulary.POSTFIXES:
      operator = self._take().text
      if operator == "^":
        return exact.power(_expr(value), _expr(self._nested(self._script)))
      if operator == "!":
        value = exact.rational(_factorial(exact.constant(_expr(value))))
      elif operator == "_":
        value = exact.symbol(f"{value_key(value)}_({value_key(self._nested(self._script))})")
    return value

  def _script(self) -> Value:
    negative = self._accept("-")
    value = self._braced() if self._next == "{" else self._power()
    return exact.multiply(exact.rational(-1), _expr(value)) if negative else value

  def _primary(self) -> Value:
    token = self._take()
    if token.kind == "number":
      return exact.rational(_number(token.text))
    if token.kind == "name":
      return self._name(token)
    if token.kind == "command":
      return self._command(token.text)
    if token.text in "([":
      return self._nested(lambda: self._bracketed(token.text))
    if token.text == "{":
      return self._nested(lambda: self._set("}"))
    if token.text == "|":
      inside = self._nested(self._sum)
      self._expect("|")
      return _absolute(_expr(inside))
    raise UnsupportedError(f"{token.text!r} begins no value")

  def _braced(self) -> Value:
    self._expect("{")
    value = self._sum()
    self._expect("}")
    return value

  def _bracketed(self, opener: str) -> Value:
    values, _ = self._items()
    closer = self._take().text
    if closer not in (")", "]"):
      raise UnsupportedError(f"{opener} closed by {closer}")
    if len(values) == 1:
      return values[0]
    return opener + ",".join(map(value_key, values)) + closer

  def _set(self, closer: str) -> Value:
    r"""Reads `\{1, 2\}`; plain braces around one value only group it."""
    if self._accept(closer):
      return "{}"
    values, _ = self._items()
    self._expect(closer)
    if len(values) == 1 and closer == "}":
      return values[0]
    return "{" + ",".join(sorted(set(map(value_key, values)))) + "}"

  def _name(self, token: Token) -> Value:
    name = token.text
    if name in ("pi", "sqrt"):
      return self._command("\\" + name)
    if name.lower() in ("infinity", "inf"):
      return exact.symbol("oo")
    if name in vocabulary.FUNCTIONS:
      return self._function(name)
    if len(name) > 3:
      raise UnsupportedError(f"{name} is a word")
    value = exact.rational(1)
    for letter in name:
      value = exact.multiply(value, exact.symbol(letter))
    return value

  def _command(self, command: str) -> Value:
    if command in (r"\frac", r"\binom"):
      top, bottom = self._argument(), self._argument()
      if command == r"\frac":
        return exact.divide(_expr(top), _expr(bottom))
      return exact.rational(_binomial(exact.constant(_expr(top)), exact.constant(_expr(bottom))))
    if command == r"\sqrt":
      degree = exact.rational(2)
      if self._accept("["):
        degree = _expr(self._sum())
        self._expect("]")
      inside = self._braced() if self._next == "{" else self._nested(self._primary)
      return exact.power(_expr(inside), exact.divide(exact.rational(1), degree))
    if command == r"\{":
      return self._nested(lambda: self._set(r"\}"))
    if command in (r"\emptyset", r"\varnothing"):
      return "{}"
    if command == r"\begin":
      return self._nested(self._matrix)
    if command == r"\infty":
      return exact.symbol("oo")
    if command[1:] in vocabulary.FUNCTIONS:
      return self._function(command[1:])
    if command[1:].isalpha():
      return exact.symbol(command[1:])
    raise UnsupportedError(f"{command} begins no value")

  def _argument(self) -> Value:
    r"""Reads a braced argument, or one digit or letter: `\frac12` is 1/2."""
    if self._next == "{":
      return self._nested(self._braced)
    token = self._take()
    if token.kind in ("number", "name") and len(token.text) > 1:
      self._tokens[self._index - 1] = Token(token.kind, token.text[1:], spaced=False)
      self._move(self._index - 1)
      token = Token(token.kind, token.text[0], token.spaced)
    if token.kind == "number":
      return exact.rational(_number(token.text))
    if token.kind == "name":
      return exact.symbol(token.text)
    return self._command(token.text)

  def _function(self, name: str) -> Value:
    exponent = None
    while self._next in ("_", "^"):
      if self._take().text == "_":
        name += f"_({value_key(self._nested(self._script))})"
      else:
        exponent = self._nested(self._script)
    inside = self._nested(self._primary if self._next in ("{", "(") else self._unsigned_product)
    value = exact.symbol(f"{name}({value_key(inside)})")
    return value if exponent is None else exact.power(value, _expr(exponent))

  def _matrix(self) -> Value:
    self._expect("{")
    if self._take().text not in vocabulary.MATRICES:
      raise UnsupportedError("only matrices are read")
    self._expect("}")
    rows = [[self._sum()]]
    while self._next in ("&", "\\\\"):
      if self._take().text == "&":
        rows[-1].append(self._sum())
      elif self._next != r"\end":
        rows.append([self._sum()])
    for text in (r"\end", "{"):
      self._expect(text)
    self._take()
    self._expect("}")
    return "[" + ";".join(",".join(map(value_key, row)) for row in rows) + "]"

  # Units.

  def _unit_follows(self, value: Value) -> bool:
    token = self._tokens[self._index]
    if token.kind != "name" or not _is_number(value):
      return False
    if token.text in vocabulary.UNITS:
      return len(token.text) > 1 or token.spaced
    is_word = token.text not in vocabulary.NO_UNITS and len(token.text) > 2
    return token.spaced and is_word and self._only_words_left()

  def _only_words_left(self) -> bool:
    return all(
      t.kind == "name" and t.text not in vocabulary.SEPARATORS for t in self._tokens[self._index :]
    )

  def _drop_unit(self, value: Value) -> Value:
    """Consumes a unit such as `cm^2`, `square units`, `km/h`, or any words that end the answer."""
    self._take()
    while self._next is not None:
      token = self._tokens[self._index]
      if token.text == "^":
        self._take()
        self._nested(self._script)
      elif token.text in ("/", r"\cdot", "*") and self._index + 1 < len(self._tokens):
        if self._tokens[self._index + 1].kind != "name":
          raise UnsupportedError("a unit is followed by more")
        self._move(self._index + 2)
      elif token.kind == "name" and token.text not in vocabulary.SEPARATORS:
        if token.text in vocabulary.NO_UNITS:
          raise UnsupportedError(f"{token.text} changes the value in front of it")
        self._take()
      else:
        return value
    return value


def _expr(value: Value) -> Expr:
  if isinstance(value, str):
    raise UnsupportedError("arithmetic on a structure")
  return value


def _number(literal: str) -> int | Fraction:
  if len(literal) > MAX_DIGITS:
    raise UnsupportedError(f"a number of {len(literal)} characters")
  if literal.isdecimal():
    return int(literal)
  mantissa, _, exponent = literal.lower().partition("e")
  whole, _, decimals = mantissa.partition(".")
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
  number = exact.constant(value)
  return exact.symbol(f"abs({exact.key(value)})") if number is None else exact.rational(abs(number))


def _is_number(value: Value) -> bool:
  return not isinstance(value, str) and exact.approximate(value) is not None


def _is_name(value: Value) -> bool:
  """Whether a side only names something: x, AB, f(x), x_1."""
  if isinstance(value, str) or len(value) != 1:
    return False
  ((monomial, coefficient),) = value.items()
  names = [atom for atom, exponent in monomial if isinstance(atom, str) and exponent == 1]
  return (
    coefficient == 1 and 0 < len(names) == len(monomial) and not {"pi", "oo", "pm"} & set(names)
  )


def _relation_key(relation: str, left: Value, right: Value) -> str:
  """One string for a relation however it is turned and scaled: x > 5, 5 < x and 2x > 10 agree."""
  if relation in vocabulary.FLIPPED:
    relation, left, right = vocabulary.FLIPPED[relation], right, left
  if isinstance(left, str) or isinstance(right, str):
    sides = [value_key(left), value_key(right)]
    return relation.join(sorted(sides) if relation in ("=", "!=") else sides)
  difference = exact.add(left, right, -1)
  if not difference:
    return f"0{relation}0"
  _, difference = exact.primitive(difference)
  key = exact.key(difference)
  if relation in ("=", "!="):
    key = min(key, exact.key({m: -c for m, c in difference.items()}))
  return f"{key}{relation}0"
