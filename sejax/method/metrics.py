"""What to watch in a batch of groups: agreement, diversity, verdicts and, given gold, accuracy.

Gold answers enter here only, as `correct`, and nothing here reaches a reward.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from sejax.method import inputs
from sejax.method.consistency import Votes, count_votes
from sejax.method.modulation import readable

# The figures of `group_metrics` that need gold answers.
OF_GOLDS = ("pass@1", "pass@G", "maj@G", "label_accuracy")


class Measure(NamedTuple):
  """One figure per group.

  Attributes:
    value: the figure, 0 where it is undefined.
    defined: whether the group has one.
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
  """Figures of each group, with where they are defined.

  Always:

  - `majority_share`: votes for a most frequent answer over G.
  - `answer_entropy`: entropy of the answers over those who vote, in nats; where someone votes.
  - `distinct_answers`, `abstentions`: counts.
  - `label_share`: 1 where the group has a label, the answer that `majority` would reward (see
    `sejax.method.consistency.Votes.labelled`), else 0.

  With a Judge:

  - `invalid_verdicts`: a count.
  - `judge_mean`: mean of the valid scores; where there is one.
  - `agreement`: share of the Judge's favourite trajectories (highest valid score, all of them on a
    tie) that hold a most frequent answer (any of them on a tie), which arXiv:2603.21289 watches in
    its analysis; where someone votes and a verdict is valid.

  With `correct`:

  - `pass@1`: share of correct trajectories.
  - `pass@G`: 1 if any is correct, else 0.
  - `maj@G`: probability that a most frequent answer, drawn evenly on a tie, is correct; 0 where
    nobody votes.
  - `label_accuracy`: whether the label is correct; where there is one.

  Args:
    answer_ids: -1 where the trajectory abstains.
    judge_scores: on a scale from 0 to 1; None where there is no Judge.
    judge_valid: where a score could be read; NaN, infinite and off-scale ones are invalid too. None
      where there is no Judge.
    correct: whether the trajectory's answer is the gold one, or None.
    tie: `none` (no label on a tie) or `first`.

  Returns:
    A `Measure` of `[B]` arrays by name.

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
  """Means over the groups where each measure is defined, and how many those are.

  Args:
    measures: from `group_metrics`, or several joined along B.

  Returns:
    For each name its mean, 0 where no group defines it, and under `<name>_count` their number, so
    that means of several batches can be joined. Never NaN.
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
  labelled = votes.labelled(tie)
  G = answer_ids.shape[1]
  voters = jnp.sum(votes.voted, axis=1)
  measures = {
    "majority_share": _everywhere(votes.top[:, 0] / G),
    "answer_entropy": Measure(_answer_entropy(votes), voters > 0),
    "distinct_answers": _everywhere(votes.distinct[:, 0]),
    "abstentions": _everywhere(G - voters),
    "label_share": _everywhere(jnp.any(labelled, axis=1)),
  }
  if judge_scores is not None:
    scores, usable = readable(judge_scores, judge_valid)
    measures |= {
      "invalid_verdicts": _everywhere(jnp.sum(~usable, axis=1)),
      "judge_mean": _mean(scores, usable),
      "agreement": _agreement(votes, scores, usable),
    }
  if correct is not None:
    # Equal answers have equal counts, so a mean over the holders of the most frequent answers is
    # the even mean over those answers.
    majority = _mean(correct, votes.favoured)
    measures |= {
      "pass@1": _everywhere(jnp.mean(correct, axis=1)),
      "pass@G": _everywhere(jnp.any(correct, axis=1)),
      "maj@G": _everywhere(majority.value),
      "label_accuracy": _mean(correct, labelled),
    }
  return measures


def _everywhere(value: Float[Array, " B"]) -> Measure:
  return Measure(value.astype(jnp.float32), jnp.ones(value.shape, bool))


def _mean(values: Float[Array, "B G"], where: Bool[Array, "B G"]) -> Measure:
  count = jnp.sum(where, axis=1)
  total = jnp.sum(values, axis=1, where=where, dtype=jnp.float32)
  return Measure(total / jnp.maximum(count, 1), count > 0)


def _answer_entropy(votes: Votes) -> Float[Array, " B"]:
  # Each voter adds 1/n of its own -log p: over the holders of an answer that makes -p log p.
  voters = jnp.maximum(jnp.sum(votes.voted, axis=1, keepdims=True), 1)
  surprise = -jnp.log(jnp.maximum(votes.count, 1) / voters)
  return jnp.sum(surprise, axis=1, where=votes.voted) / voters[:, 0]


def _agreement(votes: Votes, scores: Float[Array, "B G"], usable: Bool[Array, "B G"]) -> Measure:
  best = jnp.max(scores, axis=1, keepdims=True, where=usable, initial=0.0)
  value, judged = _mean(votes.favoured, usable & (scores == best))
  return Measure(value, judged & (votes.top[:, 0] > 0))
