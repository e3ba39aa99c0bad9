"""EvoLMM's solver: a power of the answer's share, less for many words (arXiv:2511.16672).

The reward is share^0.7 (1 - 0.1 min(1, max(0, (w - 6) / 6))), w the words before the answer, as in
the authors' code; the paper has no cap at 1. Its proposer, who writes the questions, and its
running baseline are left out: questions are the data's, and advantages those of the group.
"""

import numpy as np
from jaxtyping import Float, Int

from sejax.data.records import Source
from sejax.rewards.evidence import Evidence
from sejax.rewards.functions import CannotReward
from sejax.rewards.recipes import votes
from sejax.rewards.recipes.recipe import GRPO, Recipe
from sejax.text import boxes


def reward(
  evidence: Evidence,
  source: Source,
  *,
  power: float = 0.7,
  length_weight: float = 0.1,
  target_words: int = 6,
) -> Float[np.ndarray, "B G"]:
  """Returns the solver's reward; 0 without an answer.

  Args:
    power: of the share of the trajectory's answer.
    length_weight: largest part of the reward that words cost, in [0, 1].
    target_words: words before the answer that cost nothing; twice as many cost all.

  Raises:
    CannotReward: an option is out of its range.
  """
  del source
  words = np.array([[words_before_answer(text) for text in group] for group in evidence.texts], int)
  return of_counts(
    votes.counts(evidence.answer_ids),
    words,
    power=power,
    length_weight=length_weight,
    target_words=target_words,
  )


def of_counts(
  count: Int[np.ndarray, "B G"],
  words: Int[np.ndarray, "B G"],
  *,
  power: float,
  length_weight: float,
  target_words: int,
) -> Float[np.ndarray, "B G"]:
  """Returns the rewards of trajectories by the votes for their answers and the words before them.

  Raises:
    CannotReward: an option is out of its range.
  """
  for name, value, is_good, wanted in (
    ("power", power, power > 0, "above 0"),
    ("length_weight", length_weight, 0 <= length_weight <= 1, "in [0, 1]"),
    ("target_words", target_words, target_words > 0, "above 0"),
  ):
    if not is_good:
      raise CannotReward(f"config.rewards.options.{name}={value} must be {wanted}")
  share = count / count.shape[1]
  excess = np.clip((words - target_words) / target_words, 0.0, 1.0)
  return share**power * (1 - length_weight * excess)


def words_before_answer(text: str) -> int:
  r"""Returns the words before the last `\boxed{`, or all words without any."""
  before, opener, after = text.rpartition(boxes.OPENER)
  return len((before if opener else after).split())


RECIPE = Recipe(reward=reward, changes=GRPO)
