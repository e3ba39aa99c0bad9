"""TTRV: the share of an answer, less the entropy of its group (arXiv:2510.06783, equations 3 to 7).

The reward is share - 0.75 H / log M with M distinct answers, as in the authors' code; the paper's
has H itself. The second term is the same for all trajectories of a group, so that it cancels in an
advantage that is centred in the group, GRPO's among them: what remains is the share alone. As in
the authors' code, all abstentions together are one more answer in H and M; they have no share.
"""

import numpy as np
from jaxtyping import Float

from sejax.data.records import Source
from sejax.method.consistency import ABSTAIN
from sejax.rewards.evidence import Evidence
from sejax.rewards.functions import unbounded
from sejax.rewards.recipes import votes
from sejax.rewards.recipes.recipe import GRPO, Recipe


@unbounded
def reward(
  evidence: Evidence, source: Source, *, entropy_weight: float = 0.75
) -> Float[np.ndarray, "B G"]:
  """Returns the share of each trajectory's answer less the group's normalized entropy.

  Args:
    entropy_weight: of the normalized entropy, which is in [0, 1].
  """
  del source
  ids = evidence.answer_ids
  distinct = np.array([len(set(row)) for row in ids.tolist()])
  entropy = votes.entropy(ids, abstentions="one") / np.log(np.maximum(distinct, 2))
  share = np.where(ids == ABSTAIN, 0, votes.counts(ids)) / ids.shape[1]
  return share - entropy_weight * entropy[:, None]


RECIPE = Recipe(reward=reward, changes=GRPO)
