"""Baselines of the paper's comparison (arXiv:2603.21289) that are no options of the method."""

import numpy as np
from jaxtyping import Float

from sejax.data.records import BadRecord, Source
from sejax.rewards.evidence import Evidence
from sejax.rewards.functions import CannotReward
from sejax.text.equivalence import Prover


def judge_only(evidence: Evidence, source: Source) -> Float[np.ndarray, "B G"]:
  """Returns the Judge's score as the reward, without self-consistency (arXiv:2603.21289)."""
  del source
  return np.where(evidence.judge_valid, evidence.judge_scores, 0.0)


def supervised(evidence: Evidence, source: Source, prover: Prover) -> Float[np.ndarray, "B G"]:
  """Rewards 1 for the gold answer: supervised GRPO, the upper bound of the comparison.

  Raises:
    CannotReward: the gold answer of a record is missing or unreadable.
  """
  rows = np.flatnonzero(evidence.index >= 0)
  try:
    golds = [source.gold(int(index)) for index in evidence.index[rows]]
  except BadRecord as error:
    raise CannotReward(f"{error}; supervision needs a gold answer of every record") from None
  if None in golds:
    index = evidence.index[rows[golds.index(None)]]
    raise CannotReward(f"record {index} of {source.name} has no gold answer; supervision needs one")
  rewards = np.zeros(evidence.answer_ids.shape)
  if len(rows):
    rewards[rows] = prover.grade([evidence.answers[b] for b in rows], golds)
  return rewards


supervised.needs_gold = True


def control(evidence: Evidence, source: Source) -> Float[np.ndarray, "B G"]:
  """Rewards every trajectory with 1, so that only the format penalty gives a training signal."""
  del source
  return np.ones(evidence.answer_ids.shape)
