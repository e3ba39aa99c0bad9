r"""Answers of trajectories: extraction from the last box, format check and numbering for votes.

Strings stay on the host: votes are counted on `int32[B, G]` ids. As in arXiv:2603.21289 the answer
of a trajectory is the content of its last `\boxed{}`. Unlike there, equal values that are written
differently are one vote, and a trajectory without a readable answer abstains. `released=True`,
`equivalence="exact"` and `unparsable="vote"` reproduce the paper's released code, which compares
strings and counts all unreadable answers as votes for "None".
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from sejax.errors import quoted
from sejax.text import boxes
from sejax.text.canonical import canonical

NO_ANSWER = "None"
EQUIVALENCES = ("canonical", "exact")
UNPARSABLE = ("abstain", "vote")
_ABSTAINS = -1
_LONGEST_NO_ANSWER = 16  # Longer strings cannot be "none" with white space around it; saves time.


def extract(text: str, released: bool = False) -> str | None:
  r"""Returns the answer of a trajectory: the content of its last `\boxed{}`, stripped.

  Takes time linear in the length of the text.

  Args:
    text: the whole trajectory.
    released: follow the paper's released code. It looks only at the last `\boxed{`, counts escaped
      braces as braces, accepts an empty box as an answer, and returns the string "None" if it
      cannot read one. By default the last box with balanced braces counts, so that a box that is
      cut off does not hide an earlier one; escaped braces are text; an empty box is not an answer.

  Returns:
    The answer, or None if there is none ("None" if `released`).
  """
  if released:
    _, opener, rest = text.rpartition(boxes.OPENER)
    content = boxes.until_closing_brace(rest, escapes=False) if opener else None
    return NO_ANSWER if content is None else content.strip()
  content = boxes.last_balanced(text)
  if content is None:
    return None
  return content.strip() or None


def format_ok(text: str) -> bool:
  r"""Whether a trajectory keeps the output format of arXiv:2603.21289; takes linear time.

  The whole text must be `<think>`, anything, `</think>`, anything, `\boxed{`, anything, `}`,
  anything.
  """
  if not text.startswith("<think>"):
    return False
  # The earliest match of each part leaves the most text for the next, so no backtracking is needed.
  think_end = text.find("</think>", len("<think>"))
  if think_end < 0:
    return False
  box = text.find(boxes.OPENER, think_end + len("</think>"))
  return box >= 0 and text.find("}", box + len(boxes.OPENER)) >= 0


def vote_ids(
  groups: Sequence[Sequence[str | None]],
  equivalence: str = "canonical",
  unparsable: str = "abstain",
) -> Int32[np.ndarray, "B G"]:
  """Numbers the distinct answers of each group.

  Args:
    groups: B groups of G answers each, from `extract`.
    equivalence: "canonical" (equal values are one answer) or "exact" (equal strings are, as in the
      released code).
    unparsable: the effect of a trajectory without an answer (None, white space or the word None).
      It abstains, or all of them "vote" for one common answer, as in the released code. With
      "exact" and "vote" only None and "None" are without an answer.

  Returns:
    Ids 0, 1, ... in order of first appearance within each group; -1 abstains.

  Raises:
    ValueError: an option is unknown, or groups differ in size.
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
  ids = np.empty((len(groups), sizes.pop() if sizes else 0), np.int32)
  for row, group in zip(ids, groups, strict=True):
    id_of_form: dict[str, int] = {}
    for column, answer in enumerate(group):
      form = _voted_form(answer, equivalence, unparsable)
      row[column] = _ABSTAINS if form is None else id_of_form.setdefault(form, len(id_of_form))
  return ids


def _voted_form(answer: str | None, equivalence: str, unparsable: str) -> str | None:
  """Returns the form by which a vote is compared with others; None abstains."""
  no_answer = NO_ANSWER if unparsable == "vote" else None
  if answer is None:
    return no_answer
  if equivalence == "exact" and unparsable == "vote":
    return answer
  if len(answer) < _LONGEST_NO_ANSWER and answer.strip().casefold() in ("", "none"):
    return no_answer
  form = canonical(answer) if equivalence == "canonical" else answer
  return form or no_answer  # The canonical form of an answer without content is empty.
