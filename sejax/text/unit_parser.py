r"""Reads what may stand behind a number without changing its value, as votes see it.

A unit only ends an answer, or an item of a list: `3 m + 6`, `(2 m)^2` and `\frac{4}{3 m}` are
algebra. Items with different units (`3 ft, 5 in`) are compared as text, since their order may
change. A letter is a unit where it is set upright (`20\text{ N}`); bare, only m and h are, directly
behind the one number of an answer (`5m`, `90m²`, `5 m/s`, `AB = 5 h`), since elsewhere they may be
variables: `2lm`, `y = 2m`, `m, 2m`, `2m/t`.
"""

import re

from sejax.text import vocabulary
from sejax.text.cursor import Cursor
from sejax.text.notation import Token

# The shape of 10-15, 1/2-3/4, 5-4-3, 30°-45° and 10m-15m, with n for numbers.
_RANGE = re.compile(r"-?n(?:/n)?°?(?:-{1,2}n(?:/n)?°?)+|-?nm(?:-nm)+|-?nh(?:-nh)+")
_BEFORE_ITEM = (
  vocabulary.SEPARATORS
  | vocabulary.COLONS
  | frozenset(vocabulary.RELATIONS)
  | {"", "(", "[", r"\{"}
)
_BEHIND_ITEM = (
  vocabulary.SEPARATORS
  | vocabulary.COLONS
  | frozenset(vocabulary.RELATIONS)
  | {")", "]", r"\}", "°", "%"}
) - {"="}


class Units(Cursor):
  """A place in an answer, and the units that its items have ended with."""

  def __init__(self, tokens: list[Token]):
    super().__init__(tokens)
    self.units: set[str] = set()
    self._unit_span = (-1, -1)  # Where the last unit began and ended.

  def unit(self, start: int, is_number: bool) -> bool:
    """Steps over a unit that ends an item: `cm^2`, `square feet`, `km/h`, `(cm)`, `%`, `个`.

    Args:
      start: index of the first token of the value in front.
      is_number: whether that value is a number; behind a symbol only words are units: `2x cm`.
    """
    before = self.index
    found = self._counted(start) if is_number else False
    found = found or self._unit(is_number, self._stands_alone(start))
    if found and self._ends_item():
      self.units.add("".join(token.text for token in self.tokens[before : self.index]))
      self._unit_span = (before, self.index)
      return True
    self.move(before)
    return False

  def is_range(self, start: int) -> bool:
    """Whether numbers are joined by hyphens alone, and nothing is worked out of them.

    10-15 cm is a range, 3-2 a score, 5-4-3-2-1 an order: none of them is a difference. The
    differences in (7-3)/2, 2^{5-3} and x = 7-3 = 4 are.
    """
    begin, end = self._unit_span
    end = begin if end == self.index else self.index
    terms = self.tokens[start:end]
    shape = "".join("n" if token.kind in ("number", "grouped") else token.text for token in terms)
    if not _RANGE.fullmatch(shape):
      return False
    before, after = self.token(start - self.index - 1).text, self.token()
    if before in ("(", "[") and after.text in (")", "]"):  # Brackets around the whole
      before, after = self.token(start - self.index - 2).text, self.token(1)
    is_first = before in _BEFORE_ITEM
    is_word = after.kind == "name" and len(after.text) > 1
    return is_first and (after.kind == "end" or after.text in _BEHIND_ITEM or is_word)

  def _ends_item(self) -> bool:
    # What follows an approximation sign rounds the value in front, unit and all.
    ends = self.next is None or self.next in vocabulary.SEPARATORS or self.next == r"\approx"
    return ends and self.depth == 0

  def _counted(self, start: int) -> bool:
    """Steps over what is counted, `5 triangles`, where the answer says nothing else."""
    word = self.token().text
    is_plural = len(word) > 3 and word.endswith("s") and word.isalpha() and word.islower()
    is_whole_answer = start == 0 and self.index == 1 and self.token(1).kind == "end"
    if (
      is_whole_answer
      and self.token(-1).text.isdecimal()
      and (word in vocabulary.COUNTED or (is_plural and not _is_quantity(word)))
    ):
      self.take()
      return True
    return False

  def _unit(self, is_number: bool, stands_alone: bool) -> bool:
    if is_number and self.accept("%"):
      return True
    hyphenated = self.next == "-" and not self.token().spaced and not self.token(1).spaced
    bracketed = not hyphenated and self.accept("(")
    per = not bracketed and self.next in vocabulary.OVER  # 5/hour
    if hyphenated or per:
      self.take()
    if not is_number and not self.token().upright:
      return False
    letters = frozenset("mh") if is_number and stands_alone and not hyphenated else frozenset()
    first = self.token()
    found = self._one_unit(letters, vocabulary.LETTER_UNITS if is_number else frozenset())
    # Behind a bare letter, others are units only as those of a speed: 5 m/s, but not 2m/t.
    is_bare = first.text in letters and not first.upright
    letters = frozenset("sh" if first.text == "m" else "") if is_bare else vocabulary.LETTER_UNITS
    while found and (self.next in vocabulary.OVER or self.next in vocabulary.TIMES - {"*"}):
      if is_bare and self.next in vocabulary.TIMES:
        return False
      self.take()
      found = self._one_unit(letters, vocabulary.LETTER_UNITS)
    return found and (not bracketed or self.accept(")"))

  def _one_unit(self, bare: frozenset[str], upright: frozenset[str]) -> bool:
    """Steps over one unit and its power.

    Args:
      bare: letters that are units as they are.
      upright: letters that are units where they are set upright.
    """
    while self.next in vocabulary.UNIT_MODIFIERS:
      self.take()
      self.accept(".")
    token = self.token()
    letters = upright if token.upright else bare
    is_temperature = self.token(-1).text == "°" and token.text in ("C", "F")
    is_word = token.text.lower() in vocabulary.UNITS and (
      token.upright or token.text not in vocabulary.LIKE_PRODUCTS
    )
    if token.kind != "name" or not (is_temperature or token.text in letters or is_word):
      # "5 square" alone is not 5, but "5 square units" and "5 sq" are.
      return self.token(-1).text == "sq"
    self.take()
    is_digit = self.next in ("2", "3") and not self.token().spaced  # cm2
    if is_digit or self.next in vocabulary.UNIT_POWERS:
      self.take()
    elif self.accept("^"):
      # An hour has no powers, and no length has -1: h^2 and m^{-1} are a variable's.
      is_variable = not token.upright and (
        token.text == "h" or (token.text == "m" and "-" in (self.next, self.token(1).text))
      )
      return self._exponent() and not is_variable
    return True

  def _exponent(self) -> bool:
    braced = self.accept("{")
    self.accept("-")
    is_number = self.token().kind == "number"
    self.move(self.index + is_number)
    return is_number and (not braced or self.accept("}"))

  def _stands_alone(self, start: int) -> bool:
    r"""Whether a number is the answer: `5`, `AB = 5`, `area = 5`, `2 \times 10^3`.

    In front of it may stand a word or the name of a length, but no variable: what `y = 2 m` gives
    is an expression in m. Of a list, `m, 2m`, nothing is known.
    """
    if any(token.text in vocabulary.SEPARATORS for token in self.tokens):
      return False
    names, sign = self.tokens[: max(start - 1, 0)], self.token(start - self.index - 1)
    words = " ".join(token.text for token in names)
    is_word = len(words) > 3 and all(len(token.text) > 1 for token in names)
    is_named = not names or is_word or (len(words) > 1 and words.isupper())
    if start > 0 and sign.text not in ("=", r"\approx"):
      return False
    if not is_named or any(token.kind != "name" for token in names):
      return False
    if self.token(start - self.index).kind != "number":
      return False
    read = [token.text for token in self.tokens[start : self.index]]
    is_mixed = len(read) == 4 and read[2] == "/"  # 2 1/2 m
    is_scientific = read[1:2] and read[1] in vocabulary.TIMES and read[2:4] == ["10", "^"]
    return len(read) == 1 or is_mixed or bool(is_scientific)


def _is_quantity(word: str) -> bool:
  """Whether a word in the plural is a number itself: fifths, thousands, pairs."""
  return word.endswith(vocabulary.QUANTITY_ENDINGS) or word in vocabulary.QUANTITIES
