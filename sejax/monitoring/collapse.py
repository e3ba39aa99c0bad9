"""Signs of collapse, seen without labels, and where labels begin to be wrong, seen with them.

Intrinsic rewards may rise and then fall apart: a policy that is rewarded for agreeing with itself
becomes sure of one answer, right or wrong. With majority votes, entropy and length collapse
(arXiv:2603.21289, training dynamics). What is seen of it without labels is that trajectories agree,
that tokens have no entropy left, and that a frozen Judge does not share the confidence.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

_WINDOW = 5  # steps over which label accuracy is averaged, or a fifth of all if those are more
# A fall counts from so many of its standard errors on: it is the largest of many.
_ERRORS = 4
_LEVEL = 2  # standard errors within which a window is as good as the best


def collapse_score(metrics: Mapping[str, float]) -> float:
  """Returns a number from 0, many opinions, to 1, one opinion that the Judge does not share.

  It is c d (1 - (a + j) / 2) with

  - c: `majority_share`, the share of the most frequent answer;
  - d: exp(-`sampled_entropy`), about the chance that a token of typical entropy is drawn again;
  - a: `agreement` of votes and Judge;
  - j: `judge_mean`, the mean of the Judge's valid scores.

  Without a Judge, or where no verdict is valid, it is c d, which says how little variety is left,
  and cannot tell a policy that learnt from one that collapsed.

  Args:
    metrics: of a step, see `sejax.monitoring.metrics`.
  """
  score = metrics["majority_share"] * math.exp(-metrics["sampled_entropy"])
  if "agreement" in metrics and "judge_mean" in metrics:
    score *= 1 - (metrics["agreement"] + metrics["judge_mean"]) / 2
  return score


def falls_from(
  steps: Sequence[int], accuracy: Sequence[float], counts: Sequence[float]
) -> int | None:
  """Returns the step from which the accuracy of labels falls; None if it does not.

  It falls if the accuracy in the last window of steps is below the highest of all windows by four
  standard errors of the difference; from the step in the middle of the last window that is within
  two of the highest: accuracies that stay level are highest anywhere, by chance.

  Args:
    steps: at which the accuracy is known.
    accuracy: share of the labels that are right, at each of them.
    counts: number of labels it is a share of.
  """
  window = max(_WINDOW, len(steps) // 5)
  if len(steps) < window:
    return None
  labels, right = np.asarray(counts, float), np.asarray(accuracy, float) * counts
  sums = [np.convolve(x, np.ones(window), mode="valid") for x in (right, labels)]
  share = np.clip(sums[0] / np.maximum(sums[1], 1), 0, 1)  # Rounded, it may be above 1.
  variance = share * (1 - share) / np.maximum(sums[1], 1)
  best = int(share.argmax())
  below, errors = share[best] - share, np.sqrt(variance[best] + variance)
  if below[-1] <= _ERRORS * errors[-1]:
    return None
  level = np.flatnonzero(below <= _LEVEL * errors)
  return steps[int(level[-1]) + window // 2]
