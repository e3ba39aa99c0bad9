r"""Canonical form of an answer: two answers are one vote exactly when their forms are equal.

Because the form is a function of one answer alone, equality of forms is an equivalence relation
whatever the order of a list. Numbers, fractions, surds and polynomials are held exactly
(`sejax.text.exact`); sets, tuples, intervals, ratios, relations and lists are built over them;
everything else is compared as text. Votes see the answer only, never the question, hence the rules:

- `50\%` is 50, and a unit at the end is dropped; inside arithmetic there are no units;
- `x = 5` is 5, but what holds for all values (`0=0`, `2(x+3)=2x+6`) is only what is written;
- `3:2` is not 3/2, and a decimal equals only what it equals exactly;
- `2 < x < 5` is the interval `(2,5)`; `x = 3, -1` has no order, `3, -1` has;
- `y(0)` and `C(5,2)` are what they are, neither products nor points; `A(1,2)` is a point;
- `10-15` is a range, `12/10/2024` a day and `7:05` a time of day, none of them arithmetic;
- `120,115` may be one number or two, so it is a vote of its own.
"""

import re
from fractions import Fraction
from functools import lru_cache

from sejax.text import wording
from sejax.text.arithmetic import MAX_DIGITS, value_key
from sejax.text.exact import UnsupportedError
from sejax.text.notation import UPRIGHT, Token, clean, plain, spell_out, strip, tokenize
from sejax.text.parser import parse
from sejax.text.vocabulary import NUMBER_WORDS, ORDERS, SEPARATORS

# Longer answers are prose or noise: they are compared as text, the longest as they are.
MAX_CHARACTERS = 120
MAX_FOLDED = 512

# Plain numbers and fractions need no parser.
_INTEGER = re.compile(rf"([+-]?)0*([0-9]{{1,{MAX_DIGITS}}})")
_RATIONAL = re.compile(
  r"(-?)(?:\\[dt]?frac\{([0-9]{1,15})\}\{([0-9]{1,15})\}|([0-9]{1,15})/([0-9]{1,15})"
  r"|([0-9]{1,15}\.[0-9]{1,15}))"
)
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*")
_ARTICLE = re.compile(r"\A(?:the|an|a)\s+(?=\w\w)")
# No value has such a key, so what stays text can never meet one.
_TEXT = "~"


def canonical(answer: str) -> str:
  """Returns the canonical form of an answer; empty where nothing is said.

  Never raises and takes time linear in the length of the answer.

  Args:
    answer: the content of a box, or any short answer.
  """
  integer = _INTEGER.fullmatch(answer)
  if integer:
    return integer[2] if integer[1] != "-" or integer[2] == "0" else "-" + integer[2]
  if len(answer) > MAX_FOLDED:
    return answer
  if len(answer) > MAX_CHARACTERS:
    text = clean(spell_out(answer))
    return wording.option(plain(text)) or _as_text(tokenize(text))
  return _short_canonical(answer)


@lru_cache(maxsize=8192)
def _short_canonical(answer: str) -> str:
  rational = _RATIONAL.fullmatch(answer)
  if rational:
    return _rational_key(*rational.groups())
  text = spell_out(answer)
  if len(text) > MAX_CHARACTERS:
    return _as_text(tokenize(clean(text)))
  text = clean(text)
  words = plain(text)
  while skipped := wording.lead_in(words):
    text = strip(_behind(text, words[:skipped]))
    words = plain(text)
  text = wording.without_remark(text)
  if not any(character.isalnum() for character in words) and "\\{" not in words:
    return ""
  if _WORDS.fullmatch(words) and len(words) > 1 and not _has_value(words):
    return _words_key(words)
  return wording.option(words) or _value_or_text(text)


def _behind(text: str, read: str) -> str:
  """Returns what follows the words that `plain` showed as `read`, with its marks."""
  count = len("".join(read.split()))
  for place, character in enumerate(text):
    if count == 0:
      return text[place:]
    count -= not (character.isspace() or character == UPRIGHT)
  return ""


def _words_key(words: str) -> str:
  if len(words) == 2 and words.lower() != "no":
    return words  # AB is a segment, ab a product
  folded = _ARTICLE.sub("", " ".join(words.casefold().split()), count=1)
  spoken = folded.replace("-", " ").split()
  for length in (2, 1):
    number = NUMBER_WORDS.get(" ".join(spoken[:length]))
    if number:
      # Seventy degrees are 70 degrees; of what is no number so, such as two fifths, the words stay.
      form = _value_or_text(" ".join([number, *spoken[length:]]))
      return folded if form.startswith(_TEXT) else form
  return folded


def _rational_key(sign: str, *parts: str | None) -> str:
  numbers = [part for part in parts if part]
  if numbers[1:] and not int(numbers[1]):
    return _TEXT + "/".join(numbers)
  value = Fraction(numbers[0]) / Fraction(numbers[1] if numbers[1:] else 1)
  return str(-value if sign else value)


def _value_or_text(text: str) -> str:
  tokens = tokenize(text)
  value = parse(tokens)
  try:
    return _as_text(tokens) if value is None else value_key(value)
  except UnsupportedError:
    return _as_text(tokens)


def _has_value(words: str) -> bool:
  return any(w in SEPARATORS or w in ("pi", "infinity", "inf") for w in words.split())


def _as_text(tokens: list[Token]) -> str:
  """Tokens as text: blanks stand only where two words or two numbers would run together."""
  parts = [_TEXT]
  for previous, token in zip([None, *tokens], tokens, strict=False):
    if previous and previous.kind == token.kind and token.kind in ("name", "number"):
      parts.append(" ")
    # The case of words says nothing; x and X, \delta and \Delta are two.
    is_word = token.kind == "name" and len(token.text) > 1
    word = token.text.casefold() if is_word else token.text
    parts.append(ORDERS.get(word, word))
  return "".join(parts)
