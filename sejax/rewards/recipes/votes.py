"""Shares of answers in their groups, as arrays of the host.

`sejax.method.consistency` counts votes in compiled functions, which do not know abstentions as
answers; recipes differ in what they make of them.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from sejax.method.consistency import ABSTAIN


def counts(answer_ids: Int[np.ndarray, "B G"]) -> Int[np.ndarray, "B G"]:
  """Returns how many trajectories of its group have a trajectory's answer; 0 if it abstains."""
  answer_ids = np.asarray(answer_ids)
  same = answer_ids[:, :, None] == answer_ids[:, None, :]
  return np.where(answer_ids == ABSTAIN, 0, same.sum(axis=2))


def entropy(answer_ids: Int[np.ndarray, "B G"], *, abstentions: str) -> Float[np.ndarray, " B"]:
  """Returns the entropy of the answers' shares in each group, in nats.

  Args:
    abstentions: `one` counts all abstentions of a group as one answer, `own` each as its own.
  """
  group_size = answer_ids.shape[1]
  count = counts(answer_ids)
  abstains = answer_ids == ABSTAIN
  together = abstains.sum(axis=1, keepdims=True) if abstentions == "one" else 1
  count = np.where(abstains, together, count)
  # Each of an answer's voters adds an equal share of its term.
  return -np.log(count / group_size).mean(axis=1)


def first_mode(answer_ids: Int[np.ndarray, "B G"]) -> Int[np.ndarray, " B"]:
  """Returns the most frequent answer of each group, the first on a tie; `ABSTAIN` without any."""
  most = counts(answer_ids).argmax(axis=1)
  return np.take_along_axis(np.asarray(answer_ids), most[:, None], axis=1)[:, 0]


def has_answer(
  answer_ids: Int[np.ndarray, "B G"], answer: Int[np.ndarray, " B"]
) -> Bool[np.ndarray, "B G"]:
  """Returns whether each trajectory has a group's answer; never where that is `ABSTAIN`."""
  return (answer_ids == answer[:, None]) & (answer[:, None] != ABSTAIN)
