"""Three intrinsic rewards together: agreement, self-certainty and the Judge's score.

Each is standardized within its group and they are added, in the spirit of arXiv:2605.22620, which
combines several intrinsic rewards so that one that is gamed does not decide alone. Where all
trajectories of a group agree in one of them, the others decide.
"""

import numpy as np
from jaxtyping import Bool, Float

from sejax.data.records import Source
from sejax.rewards.evidence import Evidence
from sejax.rewards.functions import CannotReward, unbounded
from sejax.rewards.recipes import votes
from sejax.rewards.recipes.recipe import GRPO, Recipe


@unbounded
def reward(
  evidence: Evidence,
  source: Source,
  *,
  frequency: float = 1.0,
  self_certainty: float = 1.0,
  judge: float = 1.0,
) -> Float[np.ndarray, "B G"]:
  """Returns the weighted mean of the standardized rewards.

  Args:
    frequency: weight of the share of a trajectory's answer; abstentions have share 0.
    self_certainty: weight of self-certainty.
    judge: weight of the Judge's score; a trajectory without a valid one counts as average.

  Raises:
    CannotReward: a weight is below 0, all are 0, or there is no Judge to be weighed.
  """
  del source
  weights = (frequency, self_certainty, judge)
  if min(weights) < 0 or not any(weights):
    raise CannotReward(
      f"config.rewards.options has weights {weights}; none may be below 0, and one must be above"
    )
  if judge and evidence.verdicts is None:
    raise CannotReward("this reward needs the Judge; set config.judge.use or options.judge=0")
  ids = evidence.answer_ids
  everyone = np.ones(ids.shape, bool)
  parts = (
    standardized(votes.counts(ids) / ids.shape[1], everyone),
    standardized(evidence.self_certainty, everyone),
    standardized(evidence.judge_scores, evidence.judge_valid),
  )
  return sum(w * part for w, part in zip(weights, parts, strict=True)) / sum(weights)


def standardized(
  x: Float[np.ndarray, "B G"], where: Bool[np.ndarray, "B G"]
) -> Float[np.ndarray, "B G"]:
  """Returns x less its mean in the group, over its standard deviation; 0 elsewhere.

  Args:
    where: what counts; the others are 0. So are all where fewer than two count, or all are equal.
  """
  x = np.where(where, np.asarray(x, np.float64), 0.0)
  count = np.maximum(where.sum(axis=1, keepdims=True), 1)
  centered = np.where(where, x - x.sum(axis=1, keepdims=True) / count, 0.0)
  std = np.sqrt(np.square(centered).sum(axis=1, keepdims=True) / np.maximum(count - 1, 1))
  # A float32's rounding is not a difference.
  largest = np.abs(x).max(axis=1, keepdims=True)
  is_equal = std <= 4 * np.finfo(np.float32).eps * largest
  return np.where(is_equal, 0.0, centered / np.where(is_equal, 1.0, std))


RECIPE = Recipe(reward=reward, judged=True, changes=GRPO)
