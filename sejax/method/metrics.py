"""Metrics of a batch of groups: agreement, diversity, verdicts and, with gold answers, accuracy.

Gold answers are used only here, as `correct`, and no metric affects a reward.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from sejax.method import inputs
from sejax.method.consistency import Votes, count_votes
from sejax.method.modulation import valid_scores

# The metrics of `group_metrics` that need gold answers.
GOLD_METRICS = ("pass@1", "pass@G", "maj@G", "label_accuracy")


class Measure(NamedTuple):
  """A metric of each group.

  Attributes:
    value: the metric, 0 where it is undefined.
    defined: whether the metric is defined for the group.
  """

  value: Float[Array, " B"]
  defined: Bool[Array, " B"]


def group_metrics(
  answer_ids: Int[ArrayLike, "B G"],
  judge_scores: Float[ArrayLike, "B G"] | None,
  judge_valid: Bool[ArrayLike, "B G"] | None,
  correct: Bool[ArrayLike, "B G"] | None = None,
  *,
  tie: str = "none",
) -> dict[str, Measure]:
  """Returns the metrics of each group, by name.

  Always:

  - `majority_share`: share of all G trajectories with the most frequent answer.
  - `answer_entropy`: entropy of the answers that were voted for, in nats; undefined without votes.
  - `distinct_answers`, `abstentions`: counts.
  - `label_share`: 1 if the group has a pseudo-label, the answer that the rule `majority` would
    reward (`sejax.method.consistency.Votes.has_label`), else 0.

  With a Judge:

  - `invalid_verdicts`: a count.
  - `judge_mean`: mean of the valid scores; undefined without any.
  - `agreement`: share of the trajectories with the highest valid score that have a most frequent
    answer; on ties, all of these count. Reported in the analysis of arXiv:2603.21289. Undefined
    without votes or valid scores.

  With `correct`:

  - `pass@1`: share of correct trajectories.
  - `pass@G`: 1 if any trajectory is correct, else 0.
  - `maj@G`: probability that the most frequent answer is correct, drawn uniformly on a tie; 0
    without votes.
  - `label_accuracy`: whether the pseudo-label is correct; undefined without one.

  Args:
    answer_ids: equal numbers for equal answers of a group; -1 abstains.
    judge_scores: the Judge's scores; None without a Judge.
    judge_valid: whether the score could be read; NaN and scores outside of [0, 1] count as invalid
      too. None without a Judge.
    correct: whether the trajectory's answer equals the gold answer; None without gold answers.
    tie: `none` (no pseudo-label on a tie) or `first`.

  Returns:
    A `Measure` of `[B]` arrays for each metric.

  Raises:
    ValueError: an array has the wrong shape or type, or `tie` is unknown.
  """
  arrays = {
    "answer_ids": inputs.integers("answer_ids", answer_ids),
    **inputs.verdicts(judge_scores, judge_valid),
  }
  if correct is not None:
    arrays["correct"] = inputs.flags("correct", correct)
  inputs.same_group_shape(**arrays)
  return _group_metrics(**arrays, tie=tie)


@jax.jit
def summarize(measures: dict[str, Measure]) -> dict[str, Float[Array, ""]]:
  """Averages each metric over the groups where it is defined.

  Args:
    measures: from `group_metrics`; those of several batches may be concatenated along B.

  Returns:
    The mean of each metric, 0 if it is defined nowhere and never NaN; and as `<name>_count` the
    number of groups where it is defined, by which means of several batches can be combined.
  """
  summary = {}
  for name, (value, defined) in measures.items():
    count = jnp.sum(defined)
    summary[name] = jnp.sum(value, where=defined) / jnp.maximum(count, 1)
    summary[f"{name}_count"] = count
  return summary


@functools.partial(jax.jit, static_argnames="tie")
def _group_metrics(
  *,
  answer_ids: Int[Array, "B G"],
  judge_scores: Float[Array, "B G"] | None = None,
  judge_valid: Bool[Array, "B G"] | None = None,
  correct: Bool[Array, "B G"] | None = None,
  tie: str,
) -> dict[str, Measure]:
  votes = count_votes(answer_ids)
  has_label = votes.has_label(tie)
  G = answer_ids.shape[1]
  voters = jnp.sum(votes.voted, axis=1)
  measures = {
    "majority_share": _defined_everywhere(votes.max_count[:, 0] / G),
    "answer_entropy": Measure(_answer_entropy(votes), voters > 0),
    "distinct_answers": _defined_everywhere(votes.num_distinct[:, 0]),
    "abstentions": _defined_everywhere(G - voters),
    "label_share": _defined_everywhere(jnp.any(has_label, axis=1)),
  }
  if judge_scores is not None:
    scores, is_valid = valid_scores(judge_scores, judge_valid)
    measures |= {
      "invalid_verdicts": _defined_everywhere(jnp.sum(~is_valid, axis=1)),
      "judge_mean": _mean(scores, is_valid),
      "agreement": _agreement(votes, scores, is_valid),
    }
  if correct is not None:
    # On a tie all most frequent answers have the same number of trajectories, so that a mean over
    # these trajectories is a mean over the answers.
    majority = _mean(correct, votes.is_mode)
    measures |= {
      "pass@1": _defined_everywhere(jnp.mean(correct, axis=1)),
      "pass@G": _defined_everywhere(jnp.any(correct, axis=1)),
      "maj@G": _defined_everywhere(majority.value),
      "label_accuracy": _mean(correct, has_label),
    }
  return measures


def _defined_everywhere(value: Float[Array, " B"]) -> Measure:
  return Measure(value.astype(jnp.float32), jnp.ones(value.shape, bool))


def _mean(values: Float[Array, "B G"], where: Bool[Array, "B G"]) -> Measure:
  count = jnp.sum(where, axis=1)
  total = jnp.sum(values, axis=1, where=where, dtype=jnp.float32)
  return Measure(total / jnp.maximum(count, 1), count > 0)


def _answer_entropy(votes: Votes) -> Float[Array, " B"]:
  # A mean of -log p over the voters: those of one answer, a share p, add up to -p log p.
  voters = jnp.maximum(jnp.sum(votes.voted, axis=1, keepdims=True), 1)
  surprise = -jnp.log(jnp.maximum(votes.count, 1) / voters)
  return jnp.sum(surprise, axis=1, where=votes.voted) / voters[:, 0]


def _agreement(votes: Votes, scores: Float[Array, "B G"], is_valid: Bool[Array, "B G"]) -> Measure:
  best = jnp.max(scores, axis=1, keepdims=True, where=is_valid, initial=0.0)
  value, has_valid_score = _mean(votes.is_mode, is_valid & (scores == best))
  return Measure(value, has_valid_score & (votes.max_count[:, 0] > 0))
