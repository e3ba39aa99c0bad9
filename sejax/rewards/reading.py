"""Reads answers and the Judge's verdicts from the texts of a batch (arXiv:2603.21289), on the host.

No string goes further than this: texts become answer ids, format flags and scores, `[B, G]` arrays
for the jitted functions of `sejax.method`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32

from sejax import method
from sejax.method.consistency import ABSTAIN
from sejax.text import answers, verdicts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
  r"""How answers are read from trajectories, and scores from verdicts.

  Attributes:
    equivalence: which answers are one vote, of `answers.EQUIVALENCES`.
    unparsable: what becomes of trajectories without an answer, of `answers.UNPARSABLE`.
    released_extraction: whether answers are found as in the released code, see `answers.extract`.
    released_reading: whether scores are found as in the released code, see `verdicts.score`.
    contradictory: what becomes of a verdict whose `\boxed{}` differs from the score in its JSON, of
      `verdicts.CONTRADICTORY`.
  """

  equivalence: str = "canonical"
  unparsable: str = "abstain"
  released_extraction: bool = False
  released_reading: bool = False
  contradictory: str = "count"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoring:
  """How the texts of a group become rewards.

  Attributes:
    reading: how answers and scores are read.
    method: options of `method.group`.
    repeats: verdicts on each trajectory, M; 0 without a Judge.
  """

  reading: Reading
  method: Mapping[str, Any]
  repeats: int

  @property
  def judged(self) -> bool:
    """Whether a Judge reads the trajectories."""
    return self.repeats > 0


class Verdicts(NamedTuple):
  r"""The Judge's verdicts on B groups of G trajectories, as numbers.

  Attributes:
    scores: mean of a trajectory's valid verdicts, in [0, 1]; 0 if there is none.
    valid: whether a trajectory has a valid verdict.
    truncated: number of its verdicts that were cut off at the token limit.
    contradictory: number of its verdicts whose `\boxed{}` differs from the score in their JSON.
    each: score of each of the M verdicts, NaN where it is not valid.
  """

  scores: Float32[np.ndarray, "B G"]
  valid: Bool[np.ndarray, "B G"]
  truncated: Int32[np.ndarray, "B G"]
  contradictory: Int32[np.ndarray, "B G"]
  each: Float32[np.ndarray, "B G M"]

  def counts(self) -> dict[str, Int32[np.ndarray, " B"]]:
    """Returns the numbers of truncated and of contradictory verdicts on each group, by name."""
    return {
      "truncated_verdicts": self.truncated.sum(axis=1),
      "contradictory_verdicts": self.contradictory.sum(axis=1),
    }


class Scored(NamedTuple):
  """Everything that was read from the texts of B groups of G trajectories, and their rewards.

  Attributes:
    answers: extracted answers; None if there is none.
    answer_ids: within a group, equal answers have equal ids; `ABSTAIN` if there is no answer.
    format_ok: whether the trajectory has the required output format.
    verdicts: the Judge's verdicts; None without a Judge.
    group: rewards and advantages.
  """

  answers: list[list[str | None]]
  answer_ids: Int32[np.ndarray, "B G"]
  format_ok: Bool[np.ndarray, "B G"]
  verdicts: Verdicts | None
  group: method.Group


def score_groups(
  trajectories: Sequence[Sequence[str]],
  verdict_texts: Sequence[Sequence[Sequence[str]]],
  scoring: Scoring,
  truncated: Sequence[Sequence[Sequence[bool]]] | None = None,
  lengths: Int32[np.ndarray, "B G"] | None = None,
  max_tokens: int | None = None,
) -> Scored:
  """Computes the method's rewards and advantages from the texts of trajectories and verdicts.

  `--mode=sample` and `--mode=rewards` call this. Training calls `reward_groups`, which also takes
  reward functions and needs the records for them.

  Args:
    trajectories: B groups of G texts.
    verdict_texts: for each trajectory, the Judge's verdicts, one per repeat; ignored without a
      Judge.
    scoring: how to read and reward them.
    truncated: whether each verdict was cut off at the token limit; None if none was.
    lengths: tokens of each trajectory; None if they are not known.
    max_tokens: the longest trajectory that could be, in tokens; likewise.

  Raises:
    ValueError: groups differ in size, or an option is unknown, out of its range or needs lengths.
  """
  extracted, answer_ids = read_answers(trajectories, scoring.reading)
  format_ok = np.array(
    [[answers.format_ok(text) for text in group] for group in trajectories], bool
  )
  read = read_verdicts(verdict_texts, scoring.reading, truncated) if scoring.judged else None
  group = method.group(
    answer_ids,
    format_ok,
    None if read is None else read.scores,
    None if read is None else read.valid,
    lengths,
    max_tokens,
    **scoring.method,
  )
  return Scored(
    answers=extracted, answer_ids=answer_ids, format_ok=format_ok, verdicts=read, group=group
  )


def read_answers(
  trajectories: Sequence[Sequence[str]], reading: Reading
) -> tuple[list[list[str | None]], Int32[np.ndarray, "B G"]]:
  """Extracts the answer of every trajectory and finds equal answers within each group.

  Returns:
    The answers (None if there is none), and ids that are equal for equal answers of a group.

  Raises:
    ValueError: groups differ in size, or an option is unknown.
  """
  extracted = [
    [answers.extract(text, released=reading.released_extraction) for text in group]
    for group in trajectories
  ]
  ids = answers.vote_ids(extracted, equivalence=reading.equivalence, unparsable=reading.unparsable)
  return extracted, ids


def number_like(
  answer_ids: Int32[np.ndarray, "B G"],
  group: Sequence[Sequence[str | None]],
  others: Sequence[Sequence[str | None]],
  reading: Reading,
) -> Int32[np.ndarray, "B n"]:
  """Numbers other answers to the same questions as those of the groups are numbered.

  Args:
    answer_ids: of the groups, from `read_answers`.
    group: answers of the groups.
    others: n other answers for each group.

  Returns:
    The id in `answer_ids` of an equal answer; numbers from G on for answers that no trajectory of
    the group has, equal ones for equal answers; `ABSTAIN` without an answer.
  """
  together = answers.vote_ids(
    [[*row, *more] for row, more in zip(group, others, strict=True)],
    equivalence=reading.equivalence,
    unparsable=reading.unparsable,
  )
  size = answer_ids.shape[1]
  found = np.full((len(together), together.shape[1] - size), ABSTAIN, np.int32)
  for row, ids, own in zip(found, together.tolist(), answer_ids.tolist(), strict=True):
    known = {ABSTAIN: ABSTAIN} | dict(zip(ids[:size], own, strict=True))
    row[:] = [known.get(i, size + i) for i in ids[size:]]
  return found


def read_verdicts(
  texts: Sequence[Sequence[Sequence[str]]],
  reading: Reading,
  truncated: Sequence[Sequence[Sequence[bool]]] | None = None,
) -> Verdicts:
  r"""Reads the scores from the verdicts on B groups of G trajectories.

  A truncated verdict is invalid, whatever can be read from it, because the Judge had not finished.
  With `contradictory="invalid"`, so is a verdict whose `\boxed{}` differs from the score in its
  JSON. The released code accepts both, and so does `released_reading`.

  Args:
    texts: for each trajectory, the Judge's verdicts, one per repeat.
    reading: how scores are read.
    truncated: whether each verdict was cut off at the token limit; None if none was.
  """
  shape = (len(texts), len(texts[0]) if texts else 0)
  most = max((len(repeats) for group in texts for repeats in group), default=0)
  read = Verdicts(
    scores=np.zeros(shape, np.float32),
    valid=np.zeros(shape, bool),
    truncated=np.zeros(shape, np.int32),
    contradictory=np.zeros(shape, np.int32),
    each=np.full((*shape, most), np.nan, np.float32),
  )
  for b, g in np.ndindex(shape):
    repeats = texts[b][g]
    is_truncated = [False] * len(repeats) if truncated is None else truncated[b][g]
    is_contradictory = [verdicts.contradicts(text) for text in repeats]
    read.truncated[b, g], read.contradictory[b, g] = sum(is_truncated), sum(is_contradictory)
    scores = [verdicts.score(text, released=reading.released_reading) for text in repeats]
    if not reading.released_reading:
      rejects_contradictory = reading.contradictory == "invalid"
      scores = [
        None if cut_off or (contradicts and rejects_contradictory) else score
        for score, cut_off, contradicts in zip(scores, is_truncated, is_contradictory, strict=True)
      ]
    # The released code's reading returns NaN for a box that says so.
    usable = [score for score in scores if score is not None and not math.isnan(score)]
    read.each[b, g, : len(scores)] = [math.nan if s is None else s for s in scores]
    read.valid[b, g] = bool(usable)
    read.scores[b, g] = sum(usable) / len(usable) if usable else 0.0
  return read
