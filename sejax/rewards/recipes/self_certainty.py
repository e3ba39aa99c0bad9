"""Self-certainty: rewards what the policy is sure of, token by token; Intuitor (arXiv:2505.19590).

The reward is the mean over a trajectory's tokens of KL(uniform || p) plus a constant, measured by
the sampler on the logits that it draws from, and detached. The authors' two implementations differ
in the temperature: verl-intuitor measures at that of sampling, as here by default, and
open-r1-intuitor at 1: `actor.certainty_temperature=1`. Both advantages are GRPO's.
"""

import numpy as np
from jaxtyping import Float

from sejax.data.records import Source
from sejax.rewards.evidence import Evidence
from sejax.rewards.functions import unbounded
from sejax.rewards.recipes.recipe import GRPO, Recipe


@unbounded
def reward(evidence: Evidence, source: Source) -> Float[np.ndarray, "B G"]:
  """Returns the self-certainty of each trajectory, in nats; an answer is not needed."""
  del source
  return evidence.self_certainty


RECIPE = Recipe(reward=reward, changes=GRPO)
