r"""Canonical form of an answer: two answers are one vote exactly when their forms are equal.

Because the form is a function of one answer alone, equality of forms is an equivalence relation
whatever the order of a list. Numbers, fractions, surds and polynomials are held exactly
(`sejax.text.exact`); sets, tuples, intervals, ratios, relations and lists are built over them;
everything else is compared as folded text. Votes see the answer only, never the question, hence the
rules: `50\%` is 50, a trailing unit is dropped, `3:2` is not 3/2, a decimal equals only what it
equals exactly.
"""

import re
from fractions import Fraction
from functools import lru_cache

from sejax.text.arithmetic import MAX_DIGITS, value_key
from sejax.text.exact import UnsupportedError
from sejax.text.notation import Token, clean, plain, spell_out, tokenize
from sejax.text.parser import MAX_TOKENS, number_key, parse
from sejax.text.vocabulary import NUMBER_WORDS, SEPARATORS

# Longer answers are prose or noise: they are compared as text, the longest as they are.
MAX_CHARACTERS = 120
MAX_FOLDED = 512

# Plain numbers and fractions need no parser.
_INTEGER = re.compile(rf"([+-]?)0*([0-9]{{1,{MAX_DIGITS}}})")
_RATIONAL = re.compile(
  r"(-?)(?:\\[dt]?frac\{([0-9]{1,15})\}\{([0-9]{1,15})\}|([0-9]{1,15})/([0-9]{1,15})"
  r"|([0-9]{1,15}\.[0-9]{1,15}))"
)
_OPTION = re.compile(r"[(\[{]?\s*([A-Za-z])\s*[)\]}]?\s*[.:)]?")
_OPTION_WITH_TEXT = re.compile(r"(?:\(([A-H])\)|([A-H])(?:[.):](?=\s)|:(?=\w\w)))\s*(?=\S)")
# A second label: the answer has parts, and its first letter is no option.
_LABEL = re.compile(r"\(?\b[A-Za-z]\s*[):]|\b[A-Z]\.(?!\w)")
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*")
_ARTICLE = re.compile(r"\A(?:the|an|a)\s+(?=\w\w)")
_LEAD_IN = re.compile(
  r"\A(?:(?:the )?(?:correct |final |right )?(?:option|choice|answer)(?: is\b)?(?:\s*:\s*|\s+)"
  r"|(?:about|around|approximately|roughly|exactly)\s+)(?=\S)",
  re.IGNORECASE,
)
# 5-4-3-2-1 is an order, 10-15 a range, 3-2 a score: none of them is a difference.
_HYPHENATED = re.compile(r"\d+(?:-\d+)+")
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
    return _option(answer) or _fold(answer)
  return _short_canonical(answer)


@lru_cache(maxsize=8192)
def _short_canonical(answer: str) -> str:
  rational = _RATIONAL.fullmatch(answer)
  if rational:
    return _rational_key(*rational.groups())
  text = spell_out(answer)
  if len(text) > MAX_CHARACTERS:
    return _fold(text)
  text = clean(text)
  words = plain(text)
  while (lead_in := _LEAD_IN.match(words)) and lead_in.end() > 0:
    text = words = words[lead_in.end() :]
  if not any(character.isalnum() for character in words) and "\\{" not in words:
    return ""
  if _WORDS.fullmatch(words) and len(words) > 1 and not _has_value(words):
    folded = _ARTICLE.sub("", _fold(words), count=1)
    return NUMBER_WORDS.get(folded, folded)
  return _option(words) or _value_or_text(text)


def _rational_key(sign: str, *parts: str | None) -> str:
  numbers = [part for part in parts if part]
  if numbers[1:] and not int(numbers[1]):
    return _TEXT + "/".join(numbers)
  value = Fraction(numbers[0]) / Fraction(numbers[1] if numbers[1:] else 1)
  return str(-value if sign else value)


def _value_or_text(text: str) -> str:
  tokens = tokenize(text)
  if len(tokens) > MAX_TOKENS:
    return _TEXT + _fold(plain(text))
  value = None if _HYPHENATED.fullmatch(text) else parse(tokens)
  try:
    return _as_text(tokens) if value is None else value_key(value)
  except UnsupportedError:
    return _as_text(tokens)


def _fold(text: str) -> str:
  return " ".join(text.casefold().split())


def _option(text: str) -> str | None:
  """The letter of an option: alone in any of its forms, or in front of the option's text."""
  match = _OPTION.fullmatch(text)
  if match:
    return match[1].upper()
  match = _OPTION_WITH_TEXT.match(text)
  if match and not _LABEL.search(text, match.end()):
    return match[1] or match[2]
  return None


def _has_value(words: str) -> bool:
  return any(w in SEPARATORS or w in ("pi", "infinity", "inf") for w in words.split())


def _as_text(tokens: list[Token]) -> str:
  """Tokens as text: blanks stand only where two words or two numbers would run together."""
  parts = [_TEXT]
  for previous, token in zip([None, *tokens], tokens, strict=False):
    if previous and previous.kind == token.kind and token.kind in ("name", "number"):
      parts.append(" ")
    parts.append(number_key(token.text) if token.kind == "number" else token.text)
  return "".join(parts).casefold()
