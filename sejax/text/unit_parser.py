r"""Parses units after numbers, which are dropped when votes are compared: `5 cm` is 5.

A unit must end an answer or an item of a list: `3 m + 6`, `(2 m)^2` and `\frac{4}{3 m}` are
algebra. Items with different units (`3 ft, 5 in`) are compared as text, since their order may
change. A single letter is a unit if it is set upright (`20\text{ N}`). Without that only m and h
are, directly after the only number of an answer (`5m`, `90m²`, `5 m/s`, `AB = 5 h`), since
elsewhere they may be variables: `2lm`, `y = 2m`, `m, 2m`, `2m/t`.
"""

import re

from sejax.text import vocabulary
from sejax.text.latex import Token
from sejax.text.token_stream import TokenStream

# Shapes of ranges with n for each number: 10-15, 1/2-3/4, 5-4-3, 30°-45° and 10m-15m.
_RANGE = re.compile(r"-?n(?:/n)?°?(?:-{1,2}n(?:/n)?°?)+|-?nm(?:-nm)+|-?nh(?:-nh)+")
_BEFORE_ITEM = (
  vocabulary.SEPARATORS
  | vocabulary.RATIO_SIGNS
  | frozenset(vocabulary.RELATIONS)
  | {"", "(", "[", r"\{"}
)
_BEHIND_ITEM = (
  vocabulary.SEPARATORS
  | vocabulary.RATIO_SIGNS
  | frozenset(vocabulary.RELATIONS)
  | {")", "]", r"\}", "°", "%"}
) - {"="}


class UnitParser(TokenStream):
  """Token stream that can skip units; parsers of values derive from it.

  Attributes:
    units: the units skipped in the current list item, as written.
  """

  def __init__(self, tokens: list[Token]):
    super().__init__(tokens)
    self.units: set[str] = set()
    self._last_unit_span = (-1, -1)  # indices of its first token and of the token after it

  def skip_unit(self, start: int, is_number: bool) -> bool:
    """Skips a unit that ends an item: `cm^2`, `square feet`, `km/h`, `(cm)`, `%`, `个`.

    Args:
      start: index of the first token of the value in front.
      is_number: whether that value is a number; after a symbol only words are units: `2x cm`.

    Returns:
      Whether there was one; otherwise the position is unchanged.
    """
    before = self.index
    found = self._skip_counted_noun(start) if is_number else False
    found = found or self._skip_compound_unit(is_number, self._is_only_number(start))
    if found and self._ends_item():
      self.units.add("".join(token.text for token in self.tokens[before : self.index]))
      self._last_unit_span = (before, self.index)
      return True
    self.seek(before)
    return False

  def is_range(self, start: int) -> bool:
    """Whether the tokens from `start` on are a range such as 10-15, not a difference.

    10-15 cm is a range, 3-2 a score and 5-4-3-2-1 an order, whereas (7-3)/2, 2^{5-3} and
    x = 7-3 = 4 contain differences.

    Args:
      start: index of the first token of the sum that was just read.
    """
    unit_start, unit_end = self._last_unit_span
    end = unit_start if unit_end == self.index else self.index
    terms = self.tokens[start:end]
    shape = "".join("n" if token.kind in ("number", "grouped") else token.text for token in terms)
    if not _RANGE.fullmatch(shape):
      return False
    before, after = self.peek(start - self.index - 1).text, self.peek()
    if before in ("(", "[") and after.text in (")", "]"):  # brackets around the range
      before, after = self.peek(start - self.index - 2).text, self.peek(1)
    begins_item = before in _BEFORE_ITEM
    is_word = after.kind == "name" and len(after.text) > 1
    return begins_item and (after.kind == "end" or after.text in _BEHIND_ITEM or is_word)

  def _ends_item(self) -> bool:
    # In 3.5 cm \approx 4 cm the item ends at the approximation sign.
    ends = self.next is None or self.next in vocabulary.SEPARATORS or self.next == r"\approx"
    return ends and self.depth == 0

  def _skip_counted_noun(self, start: int) -> bool:
    """Skips a counted noun, `5 triangles`, if number and noun are the whole answer."""
    word = self.peek().text
    is_plural = len(word) > 3 and word.endswith("s") and word.isalpha() and word.islower()
    is_noun = word in vocabulary.COUNTED_NOUNS or (is_plural and not _is_number_noun(word))
    is_whole_answer = start == 0 and self.index == 1 and self.peek(1).kind == "end"
    if is_whole_answer and is_noun and self.peek(-1).text.isdecimal():
      self.take()
      return True
    return False

  def _skip_compound_unit(self, is_number: bool, is_only_number: bool) -> bool:
    """Skips `%` or units joined by multiplication and division signs: `km/h`, `-cm`, `(cm)`.

    Args:
      is_number: whether a number stands in front.
      is_only_number: whether that number is the only one of the answer.
    """
    if is_number and self.accept("%"):
      return True
    hyphenated = self.next == "-" and not self.peek().spaced and not self.peek(1).spaced
    bracketed = not hyphenated and self.accept("(")
    per = not bracketed and self.next in vocabulary.DIVISION_SIGNS  # 5/hour
    if hyphenated or per:
      self.take()
    if not is_number and not self.peek().upright:
      return False
    letters = frozenset("mh") if is_number and is_only_number and not hyphenated else frozenset()
    first = self.peek()
    upright_letters = vocabulary.LETTER_UNITS if is_number else frozenset()
    found = self._skip_single_unit(letters, upright_letters)
    # After a letter that is not upright, only a speed continues the unit: 5 m/s, but not 2m/t.
    is_bare = first.text in letters and not first.upright
    letters = frozenset("sh" if first.text == "m" else "") if is_bare else vocabulary.LETTER_UNITS
    while found and (
      self.next in vocabulary.DIVISION_SIGNS or self.next in vocabulary.TIMES_SIGNS - {"*"}
    ):
      if is_bare and self.next in vocabulary.TIMES_SIGNS:
        return False
      self.take()
      found = self._skip_single_unit(letters, vocabulary.LETTER_UNITS)
    return found and (not bracketed or self.accept(")"))

  def _skip_single_unit(
    self, bare_letters: frozenset[str], upright_letters: frozenset[str]
  ) -> bool:
    """Skips one unit and its power: `square feet`, `cm^2`, `cm2`.

    Args:
      bare_letters: letters that are units even if they are not set upright.
      upright_letters: letters that are units if they are set upright.
    """
    while self.next in vocabulary.UNIT_MODIFIERS:
      self.take()
      self.accept(".")
    token = self.peek()
    letters = upright_letters if token.upright else bare_letters
    is_temperature = self.peek(-1).text == "°" and token.text in ("C", "F")
    is_word = token.text.lower() in vocabulary.UNITS and (
      token.upright or token.text not in vocabulary.UNITS_LIKE_PRODUCTS
    )
    if token.kind != "name" or not (is_temperature or token.text in letters or is_word):
      # "5 square" is not 5, but "5 square units" and "5 sq" are.
      return self.peek(-1).text == "sq"
    self.take()
    is_digit = self.next in ("2", "3") and not self.peek().spaced  # cm2
    if is_digit or self.next in vocabulary.UNIT_POWERS:
      self.take()
    elif self.accept("^"):
      # Hours have no powers and lengths no power of -1: h^2 and m^{-1} are powers of variables.
      is_inverse = "-" in (self.next, self.peek(1).text)
      is_variable = token.text == "h" or (token.text == "m" and is_inverse)
      return self._skip_exponent() and (token.upright or not is_variable)
    return True

  def _skip_exponent(self) -> bool:
    braced = self.accept("{")
    self.accept("-")
    is_number = self.peek().kind == "number"
    self.seek(self.index + is_number)
    return is_number and (not braced or self.accept("}"))

  def _is_only_number(self, start: int) -> bool:
    r"""Whether a number is the whole answer: `5`, `AB = 5`, `area = 5`, `2 \times 10^3`.

    A word or the name of a length may stand in front, but no variable: `y = 2 m` may be an
    expression in m. In a list such as `m, 2m` a letter may be a variable too.

    Args:
      start: index of the number's first token; the position is after its last one.
    """
    if any(token.text in vocabulary.SEPARATORS for token in self.tokens):
      return False
    label, sign = self.tokens[: max(start - 1, 0)], self.peek(start - self.index - 1)
    words = " ".join(token.text for token in label)
    is_word = len(words) > 3 and all(len(token.text) > 1 for token in label)
    is_length = len(words) > 1 and words.isupper()
    if start > 0 and sign.text not in ("=", r"\approx"):
      return False
    if label and not (is_word or is_length):
      return False
    if any(token.kind != "name" for token in label):
      return False
    if self.peek(start - self.index).kind != "number":
      return False
    texts = [token.text for token in self.tokens[start : self.index]]
    is_mixed = len(texts) == 4 and texts[2] == "/"  # 2 1/2 m
    is_scientific = (
      len(texts) > 1 and texts[1] in vocabulary.TIMES_SIGNS and texts[2:4] == ["10", "^"]
    )
    return len(texts) == 1 or is_mixed or is_scientific


def _is_number_noun(word: str) -> bool:
  """Whether a noun in the plural means a number itself: fifths, thousands, pairs."""
  return word.endswith(vocabulary.NUMBER_NOUN_ENDINGS) or word in vocabulary.NUMBER_NOUNS
