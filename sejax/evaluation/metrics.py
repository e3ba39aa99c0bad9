"""What n sampled answers to each of N problems come to, with standard errors.

A problem is the unit of chance: an error is that of the mean over problems, so answers to the same
problem may depend on each other as they like.
"""

import math
from collections.abc import Callable, Iterator
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


class Interval(NamedTuple):
  """A figure and the ends of its confidence interval, in the figure's own unit."""

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
  """Returns a figure with its percentile interval over units drawn with replacement (Efron, 1979).

  Args:
    statistic: the figure of each row of weights, which say how often each unit was drawn; NaN where
      it is not defined.
    units: problems, or what the problems come in.
    draws: how many sets of units are drawn.
    level: the share of draws that the interval holds.
    seed: of the draws.

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
  """Returns each draw's weighted sum of values over that of sizes, for `bootstrap`."""
  sizes = np.broadcast_to(sizes, values.shape)
  return (weights @ values) / (weights @ sizes)


def pass_at_k(correct: Bool[np.ndarray, "N n"], k: int) -> Float[np.ndarray, " N"]:
  """Returns the chance that at least one of k samples is right, without bias.

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
  """Yields numbers of draws that sum to all of them, and whose weights fit in memory."""
  size = max(1, _CHUNK // units)
  for start in range(0, draws, size):
    yield min(size, draws - start)


def _majority(ids: Int[np.ndarray, " n"], right: Bool[np.ndarray, " n"]) -> float:
  answers, first, counts = np.unique(ids, return_index=True, return_counts=True)
  counts = np.where(answers == ABSTAIN, 0, counts)
  if not counts.any():
    return 0.0
  return float(right[first[counts == counts.max()]].mean())
