"""Rewards: reads answers and verdicts from texts, and computes rewards with reward functions."""

from sejax.rewards.baselines import control, judge_only, supervised
from sejax.rewards.evidence import Evidence, of_padding
from sejax.rewards.finding import find, options_of
from sejax.rewards.functions import (
  CannotReward,
  OwnAdvantages,
  RewardFunction,
  RewardFunctionError,
  is_marked,
  reward_groups,
  unbounded,
)
from sejax.rewards.reading import (
  Reading,
  Scored,
  Scoring,
  Verdicts,
  number_like,
  read_answers,
  read_verdicts,
  score_groups,
)

__all__ = [
  "CannotReward",
  "Evidence",
  "OwnAdvantages",
  "Reading",
  "RewardFunction",
  "RewardFunctionError",
  "Scored",
  "Scoring",
  "Verdicts",
  "control",
  "find",
  "is_marked",
  "judge_only",
  "number_like",
  "of_padding",
  "options_of",
  "read_answers",
  "read_verdicts",
  "reward_groups",
  "score_groups",
  "supervised",
  "unbounded",
]
