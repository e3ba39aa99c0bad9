r"""Answers of trajectories: reading the last box, checking the format, numbering a group's answers.

Strings stay on the host: from here on a group is `int32[G]` vote ids. As in arXiv:2603.21289 a
trajectory's answer is the content of its last `\boxed{}`. Other than there, equal values written
differently are one vote, and a trajectory without a readable answer abstains. `released=True`,
`equivalence="exact"` and `unparsable="vote"` give the behaviour of the paper's released code:
strings are compared, and all unreadable answers vote together as "None".
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from sejax.quoting import quoted
from sejax.text import boxes, exact, notation
from sejax.text.canonical import canonical
from sejax.text.parser import parse

NO_ANSWER = "None"
EQUIVALENCES = ("canonical", "exact")
UNPARSABLE = ("abstain", "vote")


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
  """Whether an answer has the value of the gold answer by our own reading, a first step of grading.

  `sejax.text.equivalence.Prover` grades, and asks this first. Not for votes: equal canonical forms
  are right, and where exactly one side is written as a decimal, so is an answer where the exact
  side agrees with it at the decimal's own precision (8.94 for 4 sqrt(5)), which is not transitive.
  """
  if answer is None:
    return False
  if canonical(answer) == canonical(gold):
    return True
  sides = [Written.read(answer), Written.read(gold)]
  if (
    None in sides
    or sides[0].decimals == sides[1].decimals
    or None
    not in (
      sides[0].decimals,
      sides[1].decimals,
    )
  ):
    return False
  decimal, exact_side = sorted(sides, key=lambda side: side.decimals is None)
  half_unit = 0.5 * 10.0**-decimal.decimals
  return abs(decimal.value - exact_side.value) <= half_unit * (1 + 1e-9)


class Written(NamedTuple):
  """A number as it is written.

  Attributes:
    value: what it comes to.
    decimals: how many it is given to, where it is one decimal literal.
  """

  value: float
  decimals: int | None

  @classmethod
  def read(cls, text: str) -> "Written | None":
    """Reads an answer; None where it is no number."""
    tokens = notation.tokenize(notation.clean(notation.spell_out(text)))
    value = parse(tokens)
    approximate = exact.approximate(value) if isinstance(value, dict) else None
    if approximate is None:
      return None
    literals = [token.text for token in tokens if token.kind == "number" and "." in token.text]
    is_decimal = len(literals) == 1 and abs(approximate) == float(literals[0])
    return cls(approximate, len(literals[0].partition(".")[2]) if is_decimal else None)


def _vote(answer: str | None, classify: Callable[[str], str], exact_votes: bool) -> str | None:
  if answer is None:
    return None
  if exact_votes:
    return answer
  if len(answer) < 16 and answer.strip().casefold() in ("", "none"):
    return None
  return classify(answer) or None  # the form of "..." or "?" is empty: nothing is said
