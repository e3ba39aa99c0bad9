"""Rewards: reads answers and verdicts from texts, and computes rewards with reward functions."""

from sejax.rewards.functions import (
  CannotReward,
  Evidence,
  RewardFunction,
  RewardFunctionError,
  control,
  find,
  judge_only,
  needs_gold,
  reward_groups,
  supervised,
)
from sejax.rewards.reading import (
  Reading,
  Scored,
  Scoring,
  Verdicts,
  read_answers,
  read_verdicts,
  score_groups,
)

__all__ = [
  "CannotReward",
  "Evidence",
  "Reading",
  "RewardFunction",
  "RewardFunctionError",
  "Scored",
  "Scoring",
  "Verdicts",
  "control",
  "find",
  "judge_only",
  "needs_gold",
  "read_answers",
  "read_verdicts",
  "reward_groups",
  "score_groups",
  "supervised",
]
