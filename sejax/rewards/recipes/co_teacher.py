"""Co-rewarding-II: the label is the vote of a slowly moving average of the policy.

The teacher samples as many trajectories of the same question, and an answer earns 1 if it equals
the most frequent one of these, the first on a tie (arXiv:2508.00410). How the average moves is in
`sejax.learner.teacher`. Where no answer of the teacher can be read, no trajectory earns anything;
the authors' code ends with an error there.
"""

import numpy as np
from jaxtyping import Float

from sejax.data.records import Source
from sejax.rewards.evidence import Evidence
from sejax.rewards.functions import CannotReward
from sejax.rewards.recipes import votes
from sejax.rewards.recipes.recipe import GRPO, Recipe


def reward(evidence: Evidence, source: Source) -> Float[np.ndarray, "B G"]:
  """Returns 1 for the teacher's label, else 0.

  Raises:
    CannotReward: there is no teacher.
  """
  del source
  if evidence.teacher_ids is None:
    raise CannotReward("co_teacher needs a teacher; set config.teacher.use=True")
  label = votes.first_mode(evidence.teacher_ids)
  return votes.has_answer(evidence.answer_ids, label).astype(np.float32)


RECIPE = Recipe(reward=reward, changes=GRPO | {"teacher.use": True})
