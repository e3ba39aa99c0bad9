"""Self-consistency: how much a group of trajectories agrees with each one's final answer.

Answers come as integer labels that mean nothing outside their group: every rule counts equal
labels, so permuting a group permutes its result and renaming its labels changes nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sejax.method import inputs

ABSTAIN = -1
"""Label of a trajectory without a readable answer: it does not vote, but stays in G."""

RULES = ("frequency", "threshold", "majority", "dirichlet")
TIES = ("none", "first")


class Votes(NamedTuple):
  """The votes of each group, counted.

  Attributes:
    voted: whether the trajectory has an answer.
    count: trajectories of the group with this trajectory's answer; 0 where it abstains.
    top: the largest count of the group; 0 where all abstain.
    distinct: number of distinct answers, abstentions left out.
    first: whether the trajectory holds the first seen of the most frequent answers.
  """

  voted: Bool[Array, "B G"]
  count: Int[Array, "B G"]
  top: Int[Array, "B 1"]
  distinct: Int[Array, "B 1"]
  first: Bool[Array, "B G"]

  @property
  def favoured(self) -> Bool[Array, "B G"]:
    """Trajectories that hold a most frequent answer, all of them on a tie."""
    return self.voted & (self.count == self.top)

  def labelled(self, tie: str) -> Bool[Array, "B G"]:
    """Trajectories that hold the group's label, the answer that counts as right.

    Args:
      tie: `none`, the label is the most frequent answer if it is the only one and has two votes or
        more, and there is none on a tie or where all differ; or `first`, it is the first seen of
        the most frequent answers, by the order of the trajectories, however few votes it has.

    Raises:
      ValueError: `tie` is neither.
    """
    inputs.one_of("tie", tie, TIES)
    if tie == "first":
      return self.first
    # As many trajectories hold a most frequent answer as that answer has votes: it is the only one.
    unique = jnp.sum(self.favoured, axis=1, keepdims=True) == self.top
    return self.favoured & unique & (self.top >= 2)


def count_votes(answer_ids: Int[Array, "B G"]) -> Votes:
  """Counts equal answers within each group by comparing its trajectories pairwise."""
  answer_ids = jnp.asarray(answer_ids, jnp.int32)
  voted = answer_ids != ABSTAIN
  same = (answer_ids[:, :, None] == answer_ids[:, None, :]) & voted[:, None, :]
  count = jnp.sum(same, axis=2, dtype=jnp.int32)
  seen_before = jnp.any(jnp.tril(same, k=-1), axis=2)
  leader = jnp.argmax(count, axis=1, keepdims=True)  # the first of several
  return Votes(
    voted=voted,
    count=count,
    top=jnp.max(count, axis=1, keepdims=True),
    distinct=jnp.sum(voted & ~seen_before, axis=1, keepdims=True, dtype=jnp.int32),
    first=voted & (answer_ids == jnp.take_along_axis(answer_ids, leader, axis=1)),
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
  """Self-consistency reward r of every trajectory (arXiv:2603.21289).

  With p(a) the share of all G trajectories that answer a:

  - `frequency`: r_k = p(a_k), as the paper's text has it.
  - `threshold`: where max p is strictly above `threshold`, 1 for that answer and 0 for the rest;
    else p(a_k). The released run.
  - `majority`: 1 for the single most frequent answer if it has two votes or more, 0 for the rest;
    0 for all on a tie or where all differ. With `tie="first"` the first seen of the most frequent
    answers gets the 1 instead, which is what the code of the baseline MM-UPT (arXiv:2505.22453)
    does, also where all differ. That depends on the order of the trajectories.
  - `dirichlet`: with K distinct answers and pi(a) = (count + alpha) / (G + alpha K), the confidence
    C = 1 - H(pi) / log K, clipped to [0, 1], times
    sigmoid(dirichlet_beta (log pi(a_k) - log max pi + margin)); C = 1 for K = 1. H is in nats. In
    the paper's released code, but unused by its run.

  Args:
    answer_ids: labels; `ABSTAIN` (-1) does not vote, gets r = 0 and stays in G.
    rule: one of `RULES`.
    tie: one of `TIES`, for `majority`; no other rule depends on it.
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
      return jnp.where(votes.labelled(tie), 1.0, 0.0)
    case "dirichlet":
      return _dirichlet(votes, alpha, dirichlet_beta, margin)


def _frequency(votes: Votes) -> Float[Array, "B G"]:
  return votes.count.astype(jnp.float32) / votes.count.shape[1]


def _threshold(votes: Votes, threshold: float) -> Float[Array, "B G"]:
  # "Strictly above" is decided on integers: the number of counts whose share is not above the
  # threshold is the least count whose share is. A float32 division could fall on either side of it.
  G = votes.count.shape[1]
  enough = sum(count / G <= threshold for count in range(G + 1))
  winner = jnp.where(votes.favoured, 1.0, 0.0)
  return jnp.where(votes.top >= enough, winner, _frequency(votes))


def _dirichlet(votes: Votes, alpha: float, beta: float, margin: float) -> Float[Array, "B G"]:
  count, top = votes.count.astype(jnp.float32), votes.top.astype(jnp.float32)
  pi = (count + alpha) / (votes.count.shape[1] + alpha * votes.distinct)
  # The sum over distinct answers, taken over voters: each adds its share of its answer's term.
  terms = jnp.where(votes.voted, -pi * jnp.log(pi) / jnp.maximum(count, 1.0), 0.0)
  entropy = jnp.sum(terms, axis=1, keepdims=True)
  log_distinct = jnp.log(jnp.maximum(votes.distinct, 2).astype(jnp.float32))
  confidence = jnp.where(votes.distinct > 1, jnp.clip(1.0 - entropy / log_distinct, 0.0, 1.0), 1.0)
  lag = jnp.log((count + alpha) / (top + alpha))  # log pi(a_k) - log max pi, exactly 0 at the top.
  return jnp.where(votes.voted, confidence * jax.nn.sigmoid(beta * (lag + margin)), 0.0)
