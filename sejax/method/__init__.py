"""The method of arXiv:2603.21289 as pure jitted functions: rewards, advantages, loss and metrics.

Shapes: B groups (prompts) of G trajectories each, R response tokens. Nothing of sejax outside of
this package is imported here.
"""

from sejax.method.advantages import WHITENED, whiten
from sejax.method.aggregation import Denominators, denominators
from sejax.method.consistency import ABSTAIN
from sejax.method.groups import Group, group, group_of_rewards
from sejax.method.losses import policy_loss
from sejax.method.metrics import GOLD_METRICS, Measure, group_metrics, summarize
from sejax.method.objectives import OBJECTIVES
from sejax.method.rollout_correction import mismatch, mismatch_parts

__all__ = [
  "ABSTAIN",
  "GOLD_METRICS",
  "OBJECTIVES",
  "WHITENED",
  "Denominators",
  "Group",
  "Measure",
  "denominators",
  "group",
  "group_metrics",
  "group_of_rewards",
  "mismatch",
  "mismatch_parts",
  "policy_loss",
  "summarize",
  "whiten",
]
