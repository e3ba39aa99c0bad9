"""CoCoV: votes where they agree, a verifier where they do not (arXiv:2606.03608).

With C the share of the most frequent answer: from `high` on, and between the two bounds, that
answer is the label. Up to `low`, at most `max_candidates` answers are looked at, by falling votes:
one is trusted if more than half of the verdicts on it accept it, and the most frequent trusted
answer is the label; without any, again the most frequent one. Advantages are those of pass@k, by
which one right answer of a group in which they are rare gains most; above `high`, right answers of
unusual length gain more.

The verifier here is the frozen Judge, and its own training is left out. It reads every trajectory,
so that the verdicts on an answer are those on all trajectories that have it, and not eight of one
text; an unreadable verdict accepts nothing, and counts. Abstentions are no candidates, unlike in
the authors' code, where they share the answer "". As there, a broken format costs nothing.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int

from sejax.data.records import Source
from sejax.rewards.evidence import Evidence
from sejax.rewards.functions import CannotReward, OwnAdvantages
from sejax.rewards.recipes import votes
from sejax.rewards.recipes.recipe import Recipe


def reward(
  evidence: Evidence,
  source: Source,
  *,
  low: float = 0.4,
  high: float = 0.6,
  max_candidates: int = 5,
  accept: float = 0.5,
  k: int = 4,
  diversity: float = 0.05,
  most_unusual: float = 2.0,
) -> OwnAdvantages:
  """Rewards 1 for the label of a trajectory's group, with pass@k advantages.

  Args:
    low: share of the most frequent answer up to which verdicts choose the label.
    high: share above which unusual lengths are rewarded.
    max_candidates: answers that may become a label by verdicts.
    accept: score from which on a verdict accepts an answer.
    k: of pass@k.
    diversity: advantage of a right answer for each standard deviation of its length.
    most_unusual: standard deviations that are rewarded at most.

  Raises:
    CannotReward: there is no Judge, or k is more than the trajectories of a group.
  """
  del source
  ids = evidence.answer_ids
  if evidence.verdicts is None:
    raise CannotReward("cocov needs the Judge; set config.judge.use=True")
  if not 1 <= k <= ids.shape[1]:
    raise CannotReward(f"config.rewards.options.k={k} must be in [1, group_size={ids.shape[1]}]")
  accepted = (evidence.verdicts >= accept).sum(axis=2)
  asked = np.full(ids.shape, evidence.verdicts.shape[2])
  label = choose_labels(ids, accepted, asked, low=low, max_candidates=max_candidates)
  correct = votes.has_answer(ids, label)
  share = votes.counts(ids).max(axis=1) / ids.shape[1]
  advantages = diverse_pass_at_k(
    correct,
    evidence.lengths,
    share > high,
    k=k,
    diversity=diversity,
    most_unusual=most_unusual,
  )
  return OwnAdvantages(correct, advantages)


def choose_labels(
  answer_ids: Int[np.ndarray, "B G"],
  accepted: Int[np.ndarray, "B G"],
  asked: Int[np.ndarray, "B G"],
  *,
  low: float,
  max_candidates: int,
) -> Int[np.ndarray, " B"]:
  """Returns the label of each group; `ABSTAIN` without an answer.

  Args:
    accepted: verdicts on each trajectory that accept it.
    asked: all verdicts on it.
    low: see `reward`, like the other.
  """
  labels = votes.first_mode(answer_ids)
  counts = votes.counts(answer_ids)
  for b in np.flatnonzero(counts.max(axis=1) / answer_ids.shape[1] <= low):
    # A stable sort by falling votes; each answer stands where it comes first.
    order = np.argsort(-counts[b], kind="stable")
    candidates = list(dict.fromkeys(answer_ids[b, order[counts[b, order] > 0]].tolist()))
    trusted = []
    for answer in candidates[:max_candidates]:
      has_it = answer_ids[b] == answer
      accepts = accepted[b, has_it].sum()
      if 2 * accepts > asked[b, has_it].sum():
        trusted.append((has_it.sum(), accepts, answer))
    if trusted:
      # Of equally frequent ones that with most accepting verdicts, and of these the first.
      labels[b] = max(trusted, key=lambda candidate: candidate[:2])[2]
  return labels


def pass_at_k(correct: Bool[np.ndarray, " G"], k: int) -> Float[np.ndarray, " G"]:
  """Returns the advantages of pass@k in a group: of a right and of a wrong answer.

  With F the chance that k trajectories of the group are all wrong, and sd = sqrt(F (1 - F)), a
  right one has F / sd, and a wrong one (F - F') / sd, F' being that chance if it is one of the k.
  """
  n, wrong = len(correct), int((~correct).sum())
  fails = math.comb(wrong, k) / math.comb(n, k)
  sd = math.sqrt(fails * (1 - fails))
  if sd < 1e-6:
    return np.zeros(n)
  fails_with_it = math.comb(wrong - 1, k - 1) / math.comb(n - 1, k - 1)
  return np.where(correct, fails, fails - fails_with_it) / sd


def diverse_pass_at_k(
  correct: Bool[np.ndarray, "B G"],
  lengths: Int[np.ndarray, "B G"],
  explores: Bool[np.ndarray, " B"],
  *,
  k: int,
  diversity: float,
  most_unusual: float,
) -> Float[np.ndarray, "B G"]:
  """Returns the advantages of each group; those of pass@k where it does not explore.

  Where it does, right answers of unusual length have more, all are standardized with the standard
  deviation of the group (n in the denominator), and none of a right answer falls below pass@k's.

  Args:
    lengths: tokens of each trajectory.
    explores: groups whose unusual lengths are rewarded.
    k: see `reward`, like the others.
  """
  advantages = np.stack([pass_at_k(row, k) for row in correct])
  for b in np.flatnonzero(explores & correct.any(axis=1)):
    right, plain = correct[b], advantages[b].copy()
    length = lengths[b, right].astype(float)
    unusual = np.abs(length - length.mean()) / (length.std() + 1e-5)
    x = plain.copy()
    x[right] += diversity * np.minimum(unusual, most_unusual)
    x = (x - x.mean()) / (x.std() + 1e-6)
    advantages[b] = np.where(right, np.maximum(x, plain), x)
  return advantages


RECIPE = Recipe(reward=reward, judged=True)
