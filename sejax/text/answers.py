r"""Answers of trajectories: reading the last box, checking the format, numbering a group's answers.

Strings stay on the host: from here on a group is `int32[G]` vote ids. As in arXiv:2603.21289 a
trajectory's answer is the content of its last `\boxed{}`. Other than there, equal values written
differently are one vote, and a trajectory without a readable answer abstains. `released=True`,
`equivalence="exact"` and `unparsable="vote"` give the behaviour of the paper's released code:
strings are compared, and all unreadable answers vote together as "None".
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from sejax.errors import quoted
from sejax.text import boxes, exact, notation
from sejax.text.arithmetic import value_key
from sejax.text.canonical import canonical
from sejax.text.parser import parse_parts

NO_ANSWER = "None"
EQUIVALENCES = ("canonical", "exact")
UNPARSABLE = ("abstain", "vote")
_DECIMAL = re.compile(
  r"((?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)\.([0-9]+))"
  r"(?:\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*\{?\s*(-[0-9]{1,2})(?![0-9]))?"
)
_TIME = re.compile(r"([0-9]{1,2}):([0-5][0-9])(?:\s*([ap])\.?\s*m\.?)?", re.IGNORECASE)
# What stands between the parts of a structure in its key; not the brackets of powers and functions.
_PART = re.compile(r"((?<![\w*^])\(|[][){},;|:=]|\A(?:matrix|cases) )")


def extract(text: str, released: bool = False) -> str | None:
  r"""Returns the answer of a trajectory: the content of its last `\boxed{}`, stripped.

  Takes time linear in the length of the text, whatever it holds.

  Args:
    text: the whole trajectory.
    released: read as the released code does. It looks at the last `\boxed{` only, counts escaped
      braces as braces, takes an empty box for an answer and gives the string "None" where nothing
      is readable. Otherwise the last box whose braces balance counts (so a box cut off at the end
      does not hide an earlier one), escaped braces are text, and an empty box is no answer.

  Returns:
    The answer, or None where there is none ("None" if `released`).
  """
  if not released:
    return (boxes.last_balanced(text) or "").strip() or None
  _, found, inside = text.rpartition(boxes.OPENER)
  content = boxes.until_closed(inside, escapes=False) if found else None
  return NO_ANSWER if content is None else content.strip()


def format_ok(text: str) -> bool:
  r"""Whether a trajectory keeps the output format of arXiv:2603.21289, in linear time.

  The whole text must be `<think>`, anything, `</think>`, anything, `\boxed{`, anything, `}`,
  anything.
  """
  if not text.startswith("<think>"):
    return False
  # The earliest place of each part leaves the most room for the next, so no backtracking is needed.
  closed = text.find("</think>", len("<think>"))
  if closed < 0:
    return False
  box = text.find(boxes.OPENER, closed + len("</think>"))
  return box >= 0 and text.find("}", box + len(boxes.OPENER)) >= 0


def vote_ids(
  groups: Sequence[Sequence[str | None]],
  equivalence: str = "canonical",
  unparsable: str = "abstain",
) -> Int32[np.ndarray, "B G"]:
  """Numbers the distinct answers of every group.

  Args:
    groups: B groups of G answers each, as `extract` returns them.
    equivalence: "canonical" (equal values are one answer) or "exact" (equal strings, as released).
    unparsable: what a trajectory without an answer (None, an empty string, or the word None) does:
      "abstain" or "vote" for one common class (as released, where only None and "None" fall in it
      under "exact").

  Returns:
    Ids 0, 1, ... in order of first appearance within each group; -1 abstains.

  Raises:
    ValueError: an unknown option, or groups of different sizes.
  """
  if equivalence not in EQUIVALENCES:
    raise ValueError(f"equivalence={quoted(equivalence)} is not one of {', '.join(EQUIVALENCES)}")
  if unparsable not in UNPARSABLE:
    raise ValueError(f"unparsable={quoted(unparsable)} is not one of {', '.join(UNPARSABLE)}")
  sizes = {len(group) for group in groups}
  if len(sizes) > 1:
    raise ValueError(
      f"groups differ in size: {sorted(sizes)}; every group needs the same number of answers"
    )
  classify = canonical if equivalence == "canonical" else str
  ids = np.empty((len(groups), sizes.pop() if sizes else 0), np.int32)
  for row, group in zip(ids, groups, strict=True):
    seen: dict[str, int] = {}
    for column, answer in enumerate(group):
      form = _vote(answer, classify, exact_votes=equivalence == "exact" and unparsable == "vote")
      if form is None and unparsable == "vote":
        form = NO_ANSWER
      row[column] = -1 if form is None else seen.setdefault(form, len(seen))
  return ids


def grade(answer: str | None, gold: str) -> bool:
  """Whether an answer has the value of the gold answer by our own reading.

  `sejax.text.equivalence.Prover` grades, and asks this first. Not for votes: equal canonical forms
  are right, and where exactly one side is written as a decimal, so is an answer where the exact
  side agrees with it at the decimal's own precision (8.94 for 4 sqrt(5)), which is not transitive.
  Tuples, intervals, matrices and lists agree where their numbers do, one by one. Times of day
  agree on a clock of 12 hours and one of 24: 8:34 p.m. is 20:34.
  """
  if answer is None:
    return False
  if canonical(answer) == canonical(gold):
    return True
  time = _minute_of_day(answer)
  if time is not None and time == _minute_of_day(gold):
    return True
  one, other = Written.read(answer), Written.read(gold)
  return one is not None and other is not None and one.agrees(other)


def number(text: str) -> float | None:
  """Returns the real number that an answer is; None where it is none."""
  written = Written.read(text)
  if written is None or written.key not in written.numbers:
    return None
  return written.numbers[written.key].value


class Number(NamedTuple):
  """A number as it is written.

  Attributes:
    value: what it comes to.
    decimals: how many it is given to, where it is one decimal literal.
  """

  value: float
  decimals: int | None

  def agrees(self, other: "Number") -> bool:
    """Whether one side is a decimal, and the other, which is none, rounds to it."""
    if (self.decimals is None) == (other.decimals is None):
      return False
    decimals = other.decimals if self.decimals is None else self.decimals
    half_unit = 0.5 * 10.0**-decimals
    return abs(self.value - other.value) <= half_unit * (1 + 1e-9)


class Written(NamedTuple):
  """A number, or a structure of numbers, as it is written.

  Attributes:
    key: the canonical form of its value.
    numbers: the numbers in it, under their keys.
  """

  key: str
  numbers: dict[str, Number]

  @classmethod
  def read(cls, text: str) -> "Written | None":
    """Reads an answer; None where it spells no value."""
    text = notation.clean(notation.spell_out(text))
    read = parse_parts(notation.tokenize(text))
    if read is None:
      return None
    value, parts = read
    decimals = _decimals(text)
    numbers = {}
    for part in [value, *parts]:
      approximate = exact.approximate(part) if isinstance(part, dict) else None
      if approximate is not None:
        numbers[value_key(part)] = Number(approximate, decimals.get(abs(approximate)))
    return cls(value_key(value), numbers)

  def agrees(self, other: "Written") -> bool:
    """Whether both are built alike, and number for number the same but for rounding."""
    own, others = (_PART.split(written.key) for written in (self, other))
    if own == others or len(own) != len(others):
      return False  # 10-15 is a range to the canonical form, which has told such answers apart
    return all(
      key == other_key or self._agree_at(other, key, other_key)
      for key, other_key in zip(own, others, strict=True)
    )

  def _agree_at(self, other: "Written", key: str, other_key: str) -> bool:
    own_number, other_number = self.numbers.get(key), other.numbers.get(other_key)
    return own_number is not None and other_number is not None and own_number.agrees(other_number)


def _minute_of_day(text: str) -> int | None:
  """Returns which minute of the day a time names; None where it may be one of two, as 8:34 may."""
  match = _TIME.fullmatch(notation.plain(notation.clean(text)))
  if not match:
    return None
  hour, half = int(match[1]), (match[3] or "").lower()
  is_clear = 1 <= hour <= 12 if half else hour == 0 or 13 <= hour <= 23
  if not is_clear:
    return None
  return (hour % 12 + 12 * (half == "p") if half else hour) * 60 + int(match[2])


def _decimals(text: str) -> dict[float, int]:
  """Returns how many decimals each of the values has that a cleaned text writes as decimals."""
  found = {}
  for literal, places, exponent in _DECIMAL.findall(text):
    shown = len(places) - int(exponent or 0)
    if shown > 0:
      found[float(f"{literal.replace(',', '')}e{exponent or 0}")] = shown
  return found


def _vote(answer: str | None, classify: Callable[[str], str], exact_votes: bool) -> str | None:
  if answer is None:
    return None
  if exact_votes:
    return answer
  if len(answer) < 16 and answer.strip().casefold() in ("", "none"):
    return None
  return classify(answer) or None  # the form of "..." or "?" is empty: nothing is said
