"""Metrics of n sampled answers to each of N problems, with standard errors.

Problems are treated as independent samples. Standard errors are those of the mean over problems, so
answers to the same problem need not be independent.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from sejax.method import ABSTAIN


class Estimate(NamedTuple):
  """A mean over problems and its standard error, as fractions in [0, 1]."""

  value: float
  error: float

  @classmethod
  def of(cls, each: Float[np.ndarray, " N"]) -> "Estimate":
    """Estimates the mean from one value per problem.

    The standard error is infinite if there is only one.

    Raises:
      ValueError: there are no problems.
    """
    if not each.size:
      raise ValueError("nothing can be estimated from 0 problems")
    error = each.std(ddof=1) / np.sqrt(each.size) if each.size > 1 else np.inf
    return cls(float(each.mean()), float(error))

  def __str__(self) -> str:
    return f"{100 * self.value:5.1f} +- {100 * self.error:.1f}"


class Interval(NamedTuple):
  """A statistic with its confidence interval."""

  value: float
  low: float
  high: float


def bootstrap(
  statistic: Callable[[Float[np.ndarray, "draws units"]], Float[np.ndarray, " draws"]],
  units: int,
  *,
  draws: int = 2000,
  level: float = 0.95,
  seed: int = 0,
) -> Interval:
  """Computes a statistic and its percentile bootstrap interval (Efron, 1979).

  Args:
    statistic: function of weights `[draws, units]`, the number of times each unit was drawn in each
      resample. Returns the statistic of each resample; NaN where it is undefined.
    units: number of independent units to resample: problems, or clusters of problems.
    draws: number of resamples.
    level: confidence level.
    seed: seed of the resampling.

  Raises:
    ValueError: there are no units.
  """
  if not units:
    raise ValueError("nothing can be estimated from 0 problems")
  with np.errstate(invalid="ignore", divide="ignore"):
    value = float(statistic(np.ones((1, units)))[0])
    rng = np.random.default_rng(seed)
    parts = []
    for size in _chunks(draws, units):
      weights = rng.multinomial(units, np.full(units, 1 / units), size)
      parts.append(statistic(weights.astype(float)))
  drawn = np.concatenate(parts)
  drawn = drawn[np.isfinite(drawn)]
  if not drawn.size:
    return Interval(value, np.nan, np.nan)
  low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
  return Interval(value, float(low), float(high))


def mean(
  weights: Float[np.ndarray, "draws units"],
  values: Float[np.ndarray, " units"],
  sizes: Float[np.ndarray, " units"] | float = 1.0,
) -> Float[np.ndarray, " draws"]:
  """Returns the weighted sum of values over that of sizes, for each draw of `bootstrap`."""
  sizes = np.broadcast_to(sizes, values.shape)
  return (weights @ values) / (weights @ sizes)


def pass_at_k(correct: Bool[np.ndarray, "N n"], k: int) -> Float[np.ndarray, " N"]:
  """Returns the unbiased estimate of the probability that at least one of k samples is right.

  With c of n samples right it is 1 - C(n - c, k) / C(n, k) (Chen et al., arXiv:2107.03374,
  equation 1).

  Raises:
    ValueError: k is not in [1, n].
  """
  n = correct.shape[1]
  if not 1 <= k <= n:
    raise ValueError(f"pass@{k} cannot be estimated from {n} samples; k must be in [1, {n}]")
  wrong = n - correct.sum(axis=1)
  return np.array([1 - math.comb(int(w), k) / math.comb(n, k) for w in wrong])


def pass_at_1(correct: Bool[np.ndarray, "N n"]) -> Float[np.ndarray, " N"]:
  """Returns the fraction of right answers to each problem."""
  return correct.mean(axis=1)


def maj_at_n(
  answer_ids: Int[np.ndarray, "N n"], correct: Bool[np.ndarray, "N n"]
) -> Float[np.ndarray, " N"]:
  """Returns whether the majority answer to each problem is right.

  If several answers tie, it is the fraction of right ones among them: the expected value of
  breaking the tie at random. Without any answer it is 0.

  Args:
    answer_ids: within a problem, equal answers have equal ids; `ABSTAIN` if there is no answer.
    correct: whether each answer is right.
  """
  return np.array([_majority(ids, right) for ids, right in zip(answer_ids, correct, strict=True)])


def auc(scores: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> float:
  """Returns the area under the ROC curve (AUC) of scores that should be high for right answers.

  It is the probability that a right answer's score is above a wrong answer's, ties counting half.
  NaN where right or wrong answers are missing, or a score is NaN.
  """
  # Here, as the import takes a second, and evaluations of a model do not need it.
  from scipy import stats

  ranks = stats.rankdata(scores)
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


_CHUNK = 2**22  # weights that exist at once


def _chunks(draws: int, units: int) -> Iterator[int]:
  """Yields the sizes of chunks of draws whose weights fit in memory."""
  size = max(1, _CHUNK // units)
  for start in range(0, draws, size):
    yield min(size, draws - start)


def _majority(ids: Int[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> float:
  answers, first, counts = np.unique(ids, return_index=True, return_counts=True)
  counts = np.where(answers == ABSTAIN, 0, counts)
  if not counts.any():
    return 0.0
  return float(right[first[counts == counts.max()]].mean())
