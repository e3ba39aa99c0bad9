"""Grades an answer against the gold answer up to rounding, for decimals of exact values.

`sejax.text.equivalence.Prover` asks this before anything else. It is not for votes: agreement up to
rounding is not transitive.
"""

import re
from typing import NamedTuple

from sejax.text import algebra, latex
from sejax.text.answer_parser import parse
from sejax.text.canonical import canonical
from sejax.text.values import value_key

_DECIMAL = re.compile(
  r"((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)\.([0-9]+))"
  r"(?:\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*\{?\s*(-[0-9]{1,2})(?![0-9]))?"
)
_TIME = re.compile(r"([0-9]{1,2}):([0-5][0-9])(?:\s*([ap])\.?\s*m\.?)?", re.IGNORECASE)
# Separators between the parts of a structure in its key, but no brackets of powers and functions.
_SEPARATOR = re.compile(r"((?<![\w*^])\(|[][){},;|:=]|\A(?:matrix|cases) )")


def equal_up_to_rounding(answer: str | None, gold: str) -> bool:
  """Whether an answer has the value of the gold answer, or rounds it.

  A missing answer (None) has no value. Answers are equal if

  - their canonical forms are (`sejax.text.canonical`);
  - they are the same time of day on a 12-hour and a 24-hour clock: 8:34 p.m. and 20:34;
  - exactly one of them is written as a decimal, and the other rounds to it: 8.94 and 4 sqrt(5);
  - they are tuples, intervals, matrices or lists of the same structure, and each pair of numbers in
    them is equal or rounds in this way.
  """
  if answer is None:
    return False
  if canonical(answer) == canonical(gold):
    return True
  time = _minute_of_day(answer)
  if time is not None and time == _minute_of_day(gold):
    return True
  answer_numbers, gold_numbers = _Numbers.parse(answer), _Numbers.parse(gold)
  if answer_numbers is None or gold_numbers is None:
    return False
  return _agree(answer_numbers, gold_numbers)


def real_value(text: str) -> float | None:
  """Returns the value of an answer that is a real number; None for any other answer."""
  numbers = _Numbers.parse(text)
  if numbers is None or numbers.key not in numbers.by_key:
    return None
  return numbers.by_key[numbers.key].value


class _Number(NamedTuple):
  """A real number in an answer.

  Attributes:
    value: its value.
    decimals: number of decimal places if it is written as a single decimal; None otherwise.
  """

  value: float
  decimals: int | None

  def rounds(self, other: "_Number") -> bool:
    """Whether exactly one of two numbers is a decimal and the other rounds to it."""
    if self.decimals is not None and other.decimals is None:
      decimals = self.decimals
    elif self.decimals is None and other.decimals is not None:
      decimals = other.decimals
    else:
      return False
    half_unit = 0.5 * 10.0**-decimals
    return abs(self.value - other.value) <= half_unit * (1 + 1e-9)


class _Numbers(NamedTuple):
  """A parsed answer and the numbers in it.

  Attributes:
    key: key of the whole value.
    by_key: the real numbers in it, by their keys.
  """

  key: str
  by_key: dict[str, _Number]

  @classmethod
  def parse(cls, text: str) -> "_Numbers | None":
    """Parses an answer; returns None if it has no supported value."""
    text = latex.clean(latex.unicode_to_latex(text))
    parsed = parse(latex.tokenize(text))
    if parsed is None:
      return None
    decimals = _decimal_places(text)
    by_key = {}
    for value in [parsed.value, *parsed.parts]:
      approximate = algebra.approximate(value) if isinstance(value, dict) else None
      if approximate is not None:
        by_key[value_key(value)] = _Number(approximate, decimals.get(abs(approximate)))
    return cls(value_key(parsed.value), by_key)


def _agree(answer: _Numbers, gold: _Numbers) -> bool:
  """Whether two values have the same structure and their numbers are equal or round pairwise."""
  answer_parts, gold_parts = _SEPARATOR.split(answer.key), _SEPARATOR.split(gold.key)
  if answer_parts == gold_parts:
    # Their canonical forms differ, which tell more apart than keys: [X] is an option, x a variable.
    return False
  if len(answer_parts) != len(gold_parts):
    return False
  for answer_part, gold_part in zip(answer_parts, gold_parts, strict=True):
    if answer_part == gold_part:
      continue
    answer_number = answer.by_key.get(answer_part)
    gold_number = gold.by_key.get(gold_part)
    if answer_number is None or gold_number is None or not answer_number.rounds(gold_number):
      return False
  return True


def _minute_of_day(text: str) -> int | None:
  """Returns the minute of the day that a time names; None if it is ambiguous, as 8:34 is."""
  match = _TIME.fullmatch(latex.without_marks(latex.clean(text)))
  if not match:
    return None
  hour, minute, half = int(match[1]), int(match[2]), (match[3] or "").lower()
  if half:
    if not 1 <= hour <= 12:
      return None
    hour = hour % 12 + (12 if half == "p" else 0)
  elif not (hour == 0 or 13 <= hour <= 23):
    return None
  return hour * 60 + minute


def _decimal_places(text: str) -> dict[float, int]:
  """Maps each value that a cleaned text writes as a decimal to its number of decimal places."""
  places_of = {}
  for literal, digits, exponent in _DECIMAL.findall(text):
    places = len(digits) - int(exponent or 0)
    if places > 0:
      places_of[float(f"{literal.replace(',', '')}e{exponent or 0}")] = places
  return places_of
