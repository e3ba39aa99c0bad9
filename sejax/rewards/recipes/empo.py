"""EMPO: rewards the share of a trajectory's meaning class (arXiv:2504.05812, equations 3 to 7).

The reward is the share of the group's trajectories with the same answer, for groups whose entropy
is inside a band. The paper names no band, and its published runs have none: here it is an option.
With `high` = log n, groups in which no two agree earn nothing, as in the authors' rule for
mathematics (`get_empo_math_reward`). In the entropy each abstention is an answer of its own, as in
the authors' code; it earns 0, and not 1/n as in their published runs.
"""

import math

import numpy as np
from jaxtyping import Float

from sejax.data.records import Source
from sejax.rewards.evidence import Evidence
from sejax.rewards.functions import CannotReward
from sejax.rewards.recipes import votes
from sejax.rewards.recipes.recipe import GRPO, Recipe

_ROUNDING = 1e-9


def reward(
  evidence: Evidence, source: Source, *, low: float = -1.0, high: float = math.inf
) -> Float[np.ndarray, "B G"]:
  """Returns the share of each trajectory's answer, 0 in groups outside of the band.

  Args:
    low: groups with this entropy of answers or less earn nothing, in nats; below 0 is no bound.
    high: groups with this entropy or more earn nothing.

  Raises:
    CannotReward: the band is empty.
  """
  del source
  if not low < high:
    raise CannotReward(f"config.rewards.options.low={low} must be below high={high}")
  ids = evidence.answer_ids
  entropy = votes.entropy(ids, abstentions="own")[:, None]
  share = votes.counts(ids) / ids.shape[1]
  # Else sums of logarithms would fall to either side of a bound that they equal.
  inside = (low + _ROUNDING < entropy) & (entropy < high - _ROUNDING)
  return np.where(inside, share, 0.0)


RECIPE = Recipe(reward=reward, changes=GRPO)
