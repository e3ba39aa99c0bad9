r"""Canonical form of an answer: two answers are one vote exactly when their forms are equal.

Because the form is a function of one answer alone, equality of forms is an equivalence relation
whatever the order of a list. Numbers, fractions, surds and polynomials are held exactly
(`sejax.text.exact`); sets, tuples, intervals, ratios, relations and lists are built over them;
everything else is compared as folded text. Votes see the answer only, never the question, hence the
rules: `50\%` is 50, a trailing unit is dropped, `3:2` is not 3/2, a decimal equals only what it
equals exactly.
"""

import re
from functools import lru_cache

from sejax.text.notation import Token, clean, spell_out, tokenize
from sejax.text.parser import MAX_DIGITS, MAX_TOKENS, number_key, parse, value_key
from sejax.text.vocabulary import NUMBER_WORDS, SEPARATORS

# Longer answers are prose or noise: they are compared as text.
MAX_CHARACTERS = 120

_INTEGER = re.compile(rf"([+-]?)0*([0-9]{{1,{MAX_DIGITS}}})")
_OPTION = re.compile(r"[(\[{]?\s*([A-Za-z])\s*[)\]}]?\s*[.:)]?")
_OPTION_WITH_TEXT = re.compile(
  r"(?:\(\s*([A-Ja-j])\s*\)\s*|([A-Ja-j])\s*(?:[.)]\s|:\s?(?!\s*[A-Za-z0-9]\s*(?::|$))))\s*\w"
)
_OPTION_LIST = re.compile(r"\(?([A-J])\)?(?:\s*(?:,|;|and|&)\s*\(?([A-J])\)?)+")
_OPTION_MARK = re.compile(r"\([A-Ja-j]\)|\b[A-J][.:)]\s")
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*")
_ARTICLE = re.compile(r"\A(?:the|an|a)\s+(?=\w\w)")
_LEAD_IN = re.compile(
  r"\A(?:the )?(?:correct |final |right )?(?:option|choice|answer)(?: is\b)?\s*:?\s+(?=\S)",
  re.IGNORECASE,
)


def canonical(answer: str) -> str:
  """Returns the canonical form of an answer.

  Never raises and takes time linear in the length of the answer.

  Args:
    answer: the content of a box, or any short answer.
  """
  integer = _INTEGER.fullmatch(answer)
  if integer:
    return integer[2] if integer[1] != "-" or integer[2] == "0" else "-" + integer[2]
  return _fold(answer) if len(answer) > MAX_CHARACTERS else _short_canonical(answer)


@lru_cache(maxsize=8192)
def _short_canonical(answer: str) -> str:
  text = spell_out(answer)
  if len(text) > MAX_CHARACTERS:
    return _fold(text)
  text = _LEAD_IN.sub("", clean(text), count=1)
  option = _option(text)
  if option:
    return option
  if _WORDS.fullmatch(text) and not _has_value(text):
    words = _ARTICLE.sub("", _fold(text), count=1)
    return NUMBER_WORDS.get(words, words)
  tokens = tokenize(text)
  if len(tokens) > MAX_TOKENS:
    return _fold(text)
  value = parse(tokens)
  return _as_text(tokens) if value is None else value_key(value)


def _fold(text: str) -> str:
  return " ".join(text.casefold().split())


def _option(text: str) -> str | None:
  match = _OPTION.fullmatch(text)
  if match:
    return match[1].upper()
  if _OPTION_LIST.fullmatch(text):
    return ",".join(sorted(set(re.findall(r"[A-J]", text))))
  match = _OPTION_WITH_TEXT.match(text)
  if match and not _OPTION_MARK.search(text, match.end() - 1):
    return (match[1] or match[2]).upper()
  return None


def _has_value(words: str) -> bool:
  return any(w in SEPARATORS or w in ("pi", "infinity", "inf") for w in words.split())


def _as_text(tokens: list[Token]) -> str:
  parts = []
  for previous, token in zip([None, *tokens], tokens, strict=False):
    if previous and previous.kind == token.kind == "name":
      parts.append(" ")
    parts.append(number_key(token.text) if token.kind == "number" else token.text)
  return "".join(parts).casefold()
