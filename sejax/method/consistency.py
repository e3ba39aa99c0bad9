"""Self-consistency rewards: how many trajectories of a group agree with each one's answer.

Answers are integer ids that are only compared within their group: permuting a group permutes its
rewards, and renumbering its ids changes nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sejax.method import inputs

ABSTAIN = -1
"""Answer id of a trajectory without a readable answer: it does not vote, but counts in G."""

RULES = ("frequency", "threshold", "majority", "dirichlet")
TIES = ("none", "first")


class Votes(NamedTuple):
  """Vote counts of each group.

  Attributes:
    voted: whether the trajectory has an answer.
    count: number of trajectories in the group with the same answer; 0 if it abstains.
    max_count: votes of the group's most frequent answer; 0 if all abstain.
    num_distinct: number of distinct answers in the group, without abstentions.
    is_first_mode: whether the trajectory has the most frequent answer of the group; on a tie, the
      one that comes first in the order of the trajectories.
  """

  voted: Bool[Array, "B G"]
  count: Int[Array, "B G"]
  max_count: Int[Array, "B 1"]
  num_distinct: Int[Array, "B 1"]
  is_first_mode: Bool[Array, "B G"]

  @property
  def is_mode(self) -> Bool[Array, "B G"]:
    """Whether a trajectory has a most frequent answer of its group; on a tie, any of them."""
    return self.voted & (self.count == self.max_count)

  def has_label(self, tie: str) -> Bool[Array, "B G"]:
    """Whether a trajectory has the group's pseudo-label, the answer that counts as right.

    Args:
      tie: "none": the pseudo-label is the single most frequent answer with at least two votes;
        there is none on a tie or if all answers differ. "first": on a tie, also among single
        votes, it is the answer that comes first in the order of the trajectories.

    Raises:
      ValueError: `tie` is not one of `TIES`.
    """
    inputs.one_of("tie", tie, TIES)
    if tie == "first":
      return self.is_first_mode
    # With a single most frequent answer, as many trajectories have one as that answer has votes.
    is_unique = jnp.sum(self.is_mode, axis=1, keepdims=True) == self.max_count
    return self.is_mode & is_unique & (self.max_count >= 2)


def count_votes(answer_ids: Int[Array, "B G"]) -> Votes:
  """Counts the votes of each group by comparing its answers pairwise; -1 abstains."""
  answer_ids = jnp.asarray(answer_ids, jnp.int32)
  voted = answer_ids != ABSTAIN
  is_same = (answer_ids[:, :, None] == answer_ids[:, None, :]) & voted[:, None, :]
  count = jnp.sum(is_same, axis=2, dtype=jnp.int32)
  seen_before = jnp.any(jnp.tril(is_same, k=-1), axis=2)
  first_mode = jnp.argmax(count, axis=1, keepdims=True)  # argmax takes the first on a tie.
  return Votes(
    voted=voted,
    count=count,
    max_count=jnp.max(count, axis=1, keepdims=True),
    num_distinct=jnp.sum(voted & ~seen_before, axis=1, keepdims=True, dtype=jnp.int32),
    is_first_mode=voted & (answer_ids == jnp.take_along_axis(answer_ids, first_mode, axis=1)),
  )


def self_consistency(
  answer_ids: Int[Array, "B G"],
  *,
  rule: str,
  tie: str = "none",
  threshold: float,
  alpha: float,
  dirichlet_beta: float,
  margin: float,
) -> Float[Array, "B G"]:
  """Returns the self-consistency reward r of each trajectory (arXiv:2603.21289).

  With p(a) the share of all G trajectories that have the answer a:

  - `frequency`: r_k = p(a_k), the formula in the paper's text.
  - `threshold`: 1 for the answer with p strictly above `threshold` and 0 for all others; p(a_k) if
    there is no such answer. The released run.
  - `majority`: 1 for the single most frequent answer if it has at least two votes, 0 for all
    others; 0 for all on a tie or if all answers differ. With `tie="first"` the first of the most
    frequent answers in the order of the trajectories gets the 1, also if all answers differ, as in
    the code of the baseline MM-UPT (arXiv:2505.22453).
  - `dirichlet`: with K distinct answers and pi(a) = (count + alpha) / (G + alpha K), the confidence
    C = 1 - H(pi) / log K, clipped to [0, 1], times
    sigmoid(dirichlet_beta (log pi(a_k) - log max pi + margin)); C = 1 for K = 1. H is in nats. In
    the paper's released code, but unused by its run.

  Args:
    answer_ids: `ABSTAIN` (-1) does not vote, gets r = 0 and counts in G.
    rule: one of `RULES`.
    tie: one of `TIES`; only `majority` depends on it.
    threshold: share in [0.5, 1]; below one half two answers could both be above it.
    alpha: pseudo-count of every distinct answer, above 0.
    dirichlet_beta: sharpness of the sigmoid, above 0.
    margin: offset in log pi within which an answer still counts as most frequent.

  Returns:
    r in [0, 1].

  Raises:
    ValueError: an option is unknown or out of its range.
  """
  inputs.one_of("self_consistency", rule, RULES)
  inputs.one_of("tie", tie, TIES)
  inputs.between("threshold", threshold, 0.5, 1.0)
  inputs.positive("alpha", alpha)
  inputs.positive("dirichlet_beta", dirichlet_beta)
  inputs.finite("margin", margin)
  votes = count_votes(answer_ids)
  match rule:
    case "frequency":
      return _frequency(votes)
    case "threshold":
      return _threshold(votes, threshold)
    case "majority":
      return jnp.where(votes.has_label(tie), 1.0, 0.0)
    case "dirichlet":
      return _dirichlet(votes, alpha, dirichlet_beta, margin)


def _frequency(votes: Votes) -> Float[Array, "B G"]:
  return votes.count.astype(jnp.float32) / votes.count.shape[1]


def _threshold(votes: Votes, threshold: float) -> Float[Array, "B G"]:
  # The smallest vote count whose share is strictly above the threshold, in Python floats: a float32
  # division on the device could round to either side of the threshold.
  G = votes.count.shape[1]
  min_count = next(count for count in range(G + 2) if count / G > threshold)
  winner_takes_all = jnp.where(votes.is_mode, 1.0, 0.0)
  return jnp.where(votes.max_count >= min_count, winner_takes_all, _frequency(votes))


def _dirichlet(votes: Votes, alpha: float, beta: float, margin: float) -> Float[Array, "B G"]:
  count, max_count = votes.count.astype(jnp.float32), votes.max_count.astype(jnp.float32)
  pi = (count + alpha) / (votes.count.shape[1] + alpha * votes.num_distinct)
  # The entropy is a sum over distinct answers; here each of an answer's `count` voters adds an
  # equal share of the answer's term.
  terms = jnp.where(votes.voted, -pi * jnp.log(pi) / jnp.maximum(count, 1.0), 0.0)
  entropy = jnp.sum(terms, axis=1, keepdims=True)
  log_distinct = jnp.log(jnp.maximum(votes.num_distinct, 2).astype(jnp.float32))
  confidence = jnp.clip(1.0 - entropy / log_distinct, 0.0, 1.0)
  confidence = jnp.where(votes.num_distinct > 1, confidence, 1.0)
  # log pi(a_k) - log max pi as the log of a ratio, which is exactly 0 for the most frequent answer.
  log_ratio = jnp.log((count + alpha) / (max_count + alpha))
  return jnp.where(votes.voted, confidence * jax.nn.sigmoid(beta * (log_ratio + margin)), 0.0)
