"""Reads answers and the Judge's verdicts from the texts of a batch (arXiv:2603.21289), on the host.

No string goes further than this: texts become answer ids, format flags and scores, `[B, G]` arrays
for the jitted functions of `sejax.method`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import ml_collections
import numpy as np
from jaxtyping import Bool, Float32, Int32

from sejax import method
from sejax.text import answers, verdicts


class Verdicts(NamedTuple):
  r"""The Judge's verdicts on B groups of G trajectories, as numbers.

  Attributes:
    scores: mean of a trajectory's valid verdicts, in [0, 1]; 0 if there is none.
    valid: whether a trajectory has a valid verdict.
    truncated: number of its verdicts that were cut off at the token limit.
    contradictory: number of its verdicts whose `\boxed{}` differs from the score in their JSON.
  """

  scores: Float32[np.ndarray, "B G"]
  valid: Bool[np.ndarray, "B G"]
  truncated: Int32[np.ndarray, "B G"]
  contradictory: Int32[np.ndarray, "B G"]

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
  responses: Sequence[Sequence[str]],
  verdict_texts: Sequence[Sequence[Sequence[str]]],
  config: ml_collections.ConfigDict,
  truncated: Sequence[Sequence[Sequence[bool]]] | None = None,
) -> Scored:
  """Computes rewards and advantages from the texts of trajectories and verdicts.

  Args:
    responses: B groups of G trajectories.
    verdict_texts: for each trajectory, the Judge's verdicts, one per repeat; ignored if
      `config.judge.use` is false.
    config: `answers`, `judge` and `method` are used.
    truncated: whether each verdict was cut off at the token limit; None if none was.

  Raises:
    ValueError: groups differ in size, or an option is unknown or out of its range.
  """
  extracted, answer_ids = read_answers(responses, config)
  format_ok = np.array([[answers.format_ok(text) for text in group] for group in responses], bool)
  read = read_verdicts(verdict_texts, config.judge, truncated) if config.judge.use else None
  group = method.group(
    answer_ids,
    format_ok,
    None if read is None else read.scores,
    None if read is None else read.valid,
    **config.method,
  )
  return Scored(
    answers=extracted, answer_ids=answer_ids, format_ok=format_ok, verdicts=read, group=group
  )


def read_answers(
  responses: Sequence[Sequence[str]], config: ml_collections.ConfigDict
) -> tuple[list[list[str | None]], Int32[np.ndarray, "B G"]]:
  """Extracts the answer of every trajectory and finds equal answers within each group.

  Returns:
    The answers (None if there is none), and ids that are equal for equal answers of a group.

  Raises:
    ValueError: groups differ in size, or an option of `config.answers` is unknown.
  """
  options = config.answers
  extracted = [
    [answers.extract(text, released=options.released_extraction) for text in group]
    for group in responses
  ]
  ids = answers.vote_ids(extracted, equivalence=options.equivalence, unparsable=options.unparsable)
  return extracted, ids


def read_verdicts(
  texts: Sequence[Sequence[Sequence[str]]],
  options: ml_collections.ConfigDict,
  truncated: Sequence[Sequence[Sequence[bool]]] | None = None,
) -> Verdicts:
  r"""Reads the scores from the verdicts on B groups of G trajectories.

  A truncated verdict is invalid, whatever can be read from it, because the Judge had not finished.
  With `contradictory="invalid"`, so is a verdict whose `\boxed{}` differs from the score in its
  JSON. The released code accepts both, and so does `released_reading`.

  Args:
    texts: for each trajectory, the Judge's verdicts, one per repeat.
    options: `config.judge`.
    truncated: whether each verdict was cut off at the token limit; None if none was.
  """
  shape = (len(texts), len(texts[0]) if texts else 0)
  read = Verdicts(
    scores=np.zeros(shape, np.float32),
    valid=np.zeros(shape, bool),
    truncated=np.zeros(shape, np.int32),
    contradictory=np.zeros(shape, np.int32),
  )
  for b, g in np.ndindex(shape):
    repeats = texts[b][g]
    is_truncated = [False] * len(repeats) if truncated is None else truncated[b][g]
    is_contradictory = [verdicts.contradicts(text) for text in repeats]
    read.truncated[b, g], read.contradictory[b, g] = sum(is_truncated), sum(is_contradictory)
    scores = [verdicts.score(text, released=options.released_reading) for text in repeats]
    if not options.released_reading:
      rejects_contradictory = options.contradictory == "invalid"
      scores = [
        None if cut_off or (contradicts and rejects_contradictory) else score
        for score, cut_off, contradicts in zip(scores, is_truncated, is_contradictory, strict=True)
      ]
    usable = [score for score in scores if score is not None]
    read.valid[b, g] = bool(usable)
    read.scores[b, g] = sum(usable) / len(usable) if usable else 0.0
  return read
