"""What n sampled answers to each of N problems come to, with standard errors.

A problem is the unit of chance: an error is that of the mean over problems, so answers to the same
problem may depend on each other as they like.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from sejax.method import ABSTAIN


class Estimate(NamedTuple):
  """A mean over problems and its standard error, as shares of one."""

  value: float
  error: float

  @classmethod
  def of(cls, each: Float[np.ndarray, " N"]) -> "Estimate":
    """Returns the estimate from one value per problem; a single problem's error is infinite.

    Raises:
      ValueError: there are no problems.
    """
    if not each.size:
      raise ValueError("nothing can be estimated from 0 problems")
    error = each.std(ddof=1) / np.sqrt(each.size) if each.size > 1 else np.inf
    return cls(float(each.mean()), float(error))

  def __str__(self) -> str:
    return f"{100 * self.value:5.1f} +- {100 * self.error:.1f}"


def pass_at_1(correct: Bool[np.ndarray, "N n"]) -> Float[np.ndarray, " N"]:
  """Returns the share of right answers of each problem: the chance that one sample is right."""
  return correct.mean(axis=1)


def maj_at_n(
  answer_ids: Int[np.ndarray, "N n"], correct: Bool[np.ndarray, "N n"]
) -> Float[np.ndarray, " N"]:
  """Returns the chance that the majority's answer is right, a tie being broken by lot.

  Args:
    answer_ids: equal numbers for equal answers of a problem, `ABSTAIN` for none.
    correct: whether each answer is right.

  Returns:
    One value per problem; 0 where all abstain.
  """
  return np.array([_majority(ids, right) for ids, right in zip(answer_ids, correct, strict=True)])


def auc(scores: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> float:
  """Returns the chance that a right answer's score is above a wrong one's; equal ones count half.

  The area under the receiver operating characteristic (Mann and Whitney's U over its maximum).
  NaN, where there are not both.
  """
  ranks = _mean_ranks(scores)
  positives, negatives = int(right.sum()), int((~right).sum())
  if not positives or not negatives:
    return float("nan")
  least = positives * (positives + 1) / 2
  return float((ranks[right].sum() - least) / (positives * negatives))


def auc_error(
  scores: Float[np.ndarray, "N n"],
  right: Bool[np.ndarray, "N n"],
  usable: Bool[np.ndarray, "N n"],
  draws: int = 200,
) -> float:
  """Returns the standard error of the `auc` of usable scores by the bootstrap over problems."""
  rng = np.random.default_rng(0)
  areas = []
  for _ in range(draws):
    rows = rng.integers(0, len(scores), len(scores))
    kept = usable[rows]
    areas.append(auc(scores[rows][kept], right[rows][kept]))
  return float(np.nanstd(areas, ddof=1))


def _majority(ids: Int[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> float:
  answers, first, counts = np.unique(ids, return_index=True, return_counts=True)
  counts = np.where(answers == ABSTAIN, 0, counts)
  if not counts.any():
    return 0.0
  return float(right[first[counts == counts.max()]].mean())


def _mean_ranks(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
  """Returns ranks from 1; equal values share their mean."""
  _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
  last = np.cumsum(counts)
  return (last - (counts - 1) / 2)[inverse]
