"""Co-rewarding-I: the label is the vote of another view of the same question (arXiv:2508.00410).

There the question is rephrased. Here its picture is mildly changed and the wording kept, see
`sejax.data.views`: each problem is two groups of a batch, an answer of one earns 1 if it equals the
most frequent answer of the other, the first on a tie, and each group has its own advantages. A
batch holds half as many problems, so that the budget is that of the other recipes.
"""

import numpy as np
from jaxtyping import Float

from sejax.data.records import Source
from sejax.rewards.evidence import Evidence
from sejax.rewards.functions import CannotReward
from sejax.rewards.recipes import votes
from sejax.rewards.recipes.recipe import GRPO, Recipe


def reward(evidence: Evidence, source: Source) -> Float[np.ndarray, "B G"]:
  """Returns 1 for the label of the other view, else 0.

  Raises:
    CannotReward: there is no second view.
  """
  del source
  if evidence.view_ids is None:
    raise CannotReward("co_view needs a second view; set config.data.view.use=True")
  label = votes.first_mode(evidence.view_ids)
  return votes.has_answer(evidence.answer_ids, label).astype(np.float32)


RECIPE = Recipe(reward=reward, changes=GRPO | {"data.view.use": True})
