"""What is known about a batch of groups without labels: the input of reward functions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

from sejax.method.consistency import ABSTAIN


class Evidence(NamedTuple):
  """Everything known about B groups of G trajectories without labels.

  Attributes:
    index: positions of the records in the source; -1 in padding rows.
    questions: texts of the records.
    texts: the trajectories, B lists of G.
    answers: answers extracted from the trajectories; None if there is none.
    answer_ids: within a group, equal answers have equal ids; `ABSTAIN` if there is no answer.
    format_ok: whether the trajectory has the required output format.
    judge_scores: the Judge's scores in [0, 1]; 0 if not valid, hence everywhere without a Judge.
    judge_valid: whether the Judge gave a valid score.
    verdicts: score of each of the M verdicts on a trajectory, NaN where it is not valid; None
      without a Judge.
    lengths: tokens of each trajectory; None if they are not known, like all that follows.
    truncated: trajectories that were cut at `actor.max_tokens`.
    logp: mean log-prob of each trajectory's tokens, in nats, at the temperature of sampling.
    entropy: mean entropy over its tokens, in nats, likewise.
    self_certainty: mean over its tokens of what `sejax.sampling.certainty` measures, in nats.
    view_ids: ids of the answers to the other view of the problem, in the numbering of `answer_ids`;
      None without a second view.
    teacher_ids: ids of the teacher's answers, in the numbering of `answer_ids`; None without a
      teacher.
  """

  index: Int[np.ndarray, " B"]
  questions: Sequence[str]
  texts: Sequence[Sequence[str]]
  answers: Sequence[Sequence[str | None]]
  answer_ids: Int32[np.ndarray, "B G"]
  format_ok: Bool[np.ndarray, "B G"]
  judge_scores: Float[np.ndarray, "B G"]
  judge_valid: Bool[np.ndarray, "B G"]
  verdicts: Float32[np.ndarray, "B G M"] | None = None
  lengths: Int32[np.ndarray, "B G"] | None = None
  truncated: Bool[np.ndarray, "B G"] | None = None
  logp: Float32[np.ndarray, "B G"] | None = None
  entropy: Float32[np.ndarray, "B G"] | None = None
  self_certainty: Float32[np.ndarray, "B G"] | None = None
  view_ids: Int32[np.ndarray, "B G"] | None = None
  teacher_ids: Int32[np.ndarray, "B G"] | None = None


def of_padding(
  group_size: int, repeats: int, *, views: bool = False, teacher: bool = False
) -> Evidence:
  """Returns the evidence of one padding row, by which a function can be tried before a run.

  Args:
    group_size: G.
    repeats: verdicts on a trajectory, M; 0 without a Judge.
    views: whether there is a second view.
    teacher: whether there is a teacher.
  """
  shape = (1, group_size)
  zeros, none = np.zeros(shape, np.float32), np.zeros(shape, bool)
  abstain = np.full(shape, ABSTAIN, np.int32)
  return Evidence(
    index=np.array([-1]),
    questions=("",),
    texts=[[""] * group_size],
    answers=[[None] * group_size],
    answer_ids=abstain,
    format_ok=none,
    judge_scores=zeros,
    judge_valid=none,
    verdicts=np.full((*shape, repeats), np.nan, np.float32) if repeats else None,
    lengths=np.zeros(shape, np.int32),
    truncated=none,
    logp=zeros,
    entropy=zeros,
    self_certainty=zeros,
    view_ids=abstain if views else None,
    teacher_ids=abstain if teacher else None,
  )
