r"""Canonical form of an answer: two answers are the same vote exactly if their forms are equal.

The form depends on one answer alone, so that voting is an equivalence relation: transitive, and
independent of the order of the answers. Numbers, fractions, surds and polynomials are represented
exactly (`sejax.text.algebra`), and so are sets, tuples, intervals, ratios, relations and lists of
them. Everything else is compared as text.

The question is not known when votes are counted, hence these rules:

- `50\%` is 50, and a unit at the end is dropped; arithmetic has no units;
- `x = 5` is 5, but relations that always hold (`0=0`, `2(x+3)=2x+6`) are compared as text;
- `3:2` is not 3/2, and a decimal equals only its exact value;
- `2 < x < 5` is the interval `(2,5)`; order matters in `3, -1`, but not in `x = 3, -1`;
- `y(0)` and `C(5,2)` are values of functions, neither products nor points; `A(1,2)` is a point;
- `10-15` is a range, `12/10/2024` a date and `7:05` a time of day, none of them arithmetic;
- `120,115` may be one number or two, so it equals no other answer.
"""

import re
from fractions import Fraction
from functools import lru_cache

from sejax.text import phrases
from sejax.text.algebra import UnsupportedError
from sejax.text.answer_parser import parse
from sejax.text.latex import UPRIGHT, Token, clean, strip, tokenize, unicode_to_latex, without_marks
from sejax.text.values import MAX_DIGITS, value_key
from sejax.text.vocabulary import INEQUALITIES, NUMBER_WORDS, SEPARATORS

# Longer answers are prose or noise. Up to MAX_TOKENIZED characters they are compared by their
# tokens, beyond that character by character.
MAX_CHARACTERS = 120
MAX_TOKENIZED = 512

# Most answers are plain numbers and fractions, which need no parser.
_INTEGER = re.compile(rf"([+-]?)0*([0-9]{{1,{MAX_DIGITS}}})")
_RATIONAL = re.compile(
  r"(-?)(?:\\[dt]?frac\{([0-9]{1,15})\}\{([0-9]{1,15})\}|([0-9]{1,15})/([0-9]{1,15})"
  r"|([0-9]{1,15}\.[0-9]{1,15}))"
)
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*")
_ARTICLE = re.compile(r"\A(?:the|an|a)\s+(?=\w\w)")
# Prefix of forms that are text; no key of a value begins with it, so text never equals a value.
_TEXT = "~"


def canonical(answer: str) -> str:
  """Returns the canonical form of an answer; empty for an answer without content, such as "?".

  Never raises. Takes time linear in the length of the answer.

  Args:
    answer: the content of a box, or any other short answer.
  """
  integer = _INTEGER.fullmatch(answer)
  if integer:
    return integer[2] if integer[1] != "-" or integer[2] == "0" else "-" + integer[2]
  if len(answer) > MAX_TOKENIZED:
    return answer
  if len(answer) > MAX_CHARACTERS:
    text = clean(unicode_to_latex(answer))
    return phrases.option_letter(without_marks(text)) or _text_form(tokenize(text))
  return _short_canonical(answer)


@lru_cache(maxsize=8192)
def _short_canonical(answer: str) -> str:
  rational = _RATIONAL.fullmatch(answer)
  if rational:
    return _rational_form(rational)
  text = unicode_to_latex(answer)
  if len(text) > MAX_CHARACTERS:
    return _text_form(tokenize(clean(text)))
  text = clean(text)
  words = without_marks(text)
  while lead_in_length := phrases.lead_in_length(words):
    text = strip(_without_prefix(text, words[:lead_in_length]))
    words = without_marks(text)
  text = phrases.without_remark(text)
  if not any(character.isalnum() for character in words) and "\\{" not in words:
    return ""
  if _WORDS.fullmatch(words) and len(words) > 1 and not _has_value_word(words):
    return _words_form(words)
  return phrases.option_letter(words) or _value_or_text_form(text)


def _without_prefix(text: str, prefix: str) -> str:
  """Removes a prefix of `without_marks(text)` from `text` itself, whose marks and spaces differ."""
  remaining = len("".join(prefix.split()))
  for index, character in enumerate(text):
    if remaining == 0:
      return text[index:]
    if not character.isspace() and character != UPRIGHT:
      remaining -= 1
  return ""


def _words_form(words: str) -> str:
  """Returns the form of an answer in English words; numerals become numbers (`seventy degrees`)."""
  if len(words) == 2 and words.lower() != "no":
    return words  # AB is a segment, ab a product.
  folded = _ARTICLE.sub("", " ".join(words.casefold().split()), count=1)
  folded_words = folded.replace("-", " ").split()
  for length in (2, 1):
    number = NUMBER_WORDS.get(" ".join(folded_words[:length]))
    if number:
      form = _value_or_text_form(" ".join([number, *folded_words[length:]]))
      return folded if form.startswith(_TEXT) else form  # "two fifths" stays words.
  return folded


def _rational_form(match: re.Match) -> str:
  sign, *groups = match.groups()
  # The alternatives of the pattern: a numerator and a denominator, or a decimal alone.
  numerator, denominator = ([group for group in groups if group] + ["1"])[:2]
  if int(denominator) == 0:
    return f"{_TEXT}{'-' if sign else ''}{numerator}/{denominator}"
  value = Fraction(numerator) / Fraction(denominator)
  return str(-value if sign else value)


def _value_or_text_form(text: str) -> str:
  tokens = tokenize(text)
  parsed = parse(tokens)
  if parsed is None:
    return _text_form(tokens)
  try:
    return value_key(parsed.value)
  except UnsupportedError:
    return _text_form(tokens)


def _has_value_word(words: str) -> bool:
  return any(word in SEPARATORS or word in ("pi", "infinity", "inf") for word in words.split())


def _text_form(tokens: list[Token]) -> str:
  """Joins tokens to text, with spaces only between two words or two numbers."""
  parts = [_TEXT]
  for previous, token in zip([None, *tokens], tokens, strict=False):
    if previous and previous.kind == token.kind and token.kind in ("name", "number"):
      parts.append(" ")
    # Case is ignored in words, but x and X are different variables.
    is_word = token.kind == "name" and len(token.text) > 1
    word = token.text.casefold() if is_word else token.text
    parts.append(INEQUALITIES.get(word, word))
  return "".join(parts)
