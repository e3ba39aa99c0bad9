"""The paper as jitted kernels: votes and verdicts in; rewards, advantages and the loss out."""

from sejax.method.consistency import ABSTAIN
from sejax.method.groups import Group, group, group_of_rewards
from sejax.method.losses import Denominators, denominators, grpo_loss
from sejax.method.metrics import OF_GOLDS, Measure, group_metrics, summarize

__all__ = [
  "ABSTAIN",
  "OF_GOLDS",
  "Denominators",
  "Group",
  "Measure",
  "denominators",
  "group",
  "group_metrics",
  "group_of_rewards",
  "grpo_loss",
  "summarize",
]
