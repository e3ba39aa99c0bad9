"""What trajectories are rewarded for: the method, or a function named in the configuration.

A function of one's own is named by `train.reward_function="package.module.function"`. It takes the
`Evidence` of a batch and the source of its records, and returns one number in [0, 1] for each
trajectory, from which the penalty for a broken form is subtracted. The functions here are those
baselines of the paper's comparison that are no setting of the method.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import ml_collections
import numpy as np
from jaxtyping import Bool, Float, Int, Int32

from sejax import method
from sejax.data.records import Source
from sejax.text import answers


class Evidence(NamedTuple):
  """What is known of B groups of G trajectories without any label.

  Attributes:
    index: places of the records in the source; -1 for a row that only pads.
    questions: their texts.
    texts: the trajectories.
    answers: what was read from them; None where nothing could be.
    answer_ids: equal numbers for equal answers of a group, `ABSTAIN` for none.
    format_ok: whether the form was kept.
    judge_scores: in [0, 1]; 0 where none is valid, so without a Judge everywhere.
    judge_valid: whether the Judge's score is valid.
  """

  index: Int[np.ndarray, " B"]
  questions: Sequence[str]
  texts: Sequence[Sequence[str]]
  answers: Sequence[Sequence[str | None]]
  answer_ids: Int32[np.ndarray, "B G"]
  format_ok: Bool[np.ndarray, "B G"]
  judge_scores: Float[np.ndarray, "B G"]
  judge_valid: Bool[np.ndarray, "B G"]


RewardFunction = Callable[[Evidence, Source], Float[np.ndarray, "B G"]]


def judge_only(evidence: Evidence, source: Source) -> Float[np.ndarray, "B G"]:
  """The Judge's score alone, without votes: an ablation of arXiv:2603.21289."""
  del source
  return np.where(evidence.judge_valid, evidence.judge_scores, 0.0)


def supervised(evidence: Evidence, source: Source) -> Float[np.ndarray, "B G"]:
  """1 for the gold answer: GRPO with labels, the comparison's upper line.

  Raises:
    ValueError: a record has no gold answer.
  """
  rewards = np.zeros(evidence.answer_ids.shape)
  for b, index in enumerate(evidence.index):
    if index < 0:
      continue
    gold = source.gold(int(index))
    if gold is None:
      raise ValueError(f"record {index} of {source.name} has no gold answer; supervision needs one")
    rewards[b] = [answers.grade(answer, gold) for answer in evidence.answers[b]]
  return rewards


def control(evidence: Evidence, source: Source) -> Float[np.ndarray, "B G"]:
  """1 for all: what the form alone gives."""
  del source
  return np.ones(evidence.answer_ids.shape)


def find(name: str) -> RewardFunction | None:
  """Returns the function with a dotted name; None for the empty name, which means the method.

  Raises:
    ValueError: there is none.
  """
  if not name:
    return None
  module, _, function = name.rpartition(".")
  try:
    found = getattr(importlib.import_module(module), function)
  except (ImportError, AttributeError, ValueError) as error:
    raise ValueError(
      f"config.train.reward_function={name!r} is no function that can be imported: {error}"
    ) from None
  if not callable(found):
    raise ValueError(f"config.train.reward_function={name!r} is no function")
  return found


def reward_groups(
  evidence: Evidence,
  source: Source,
  options: ml_collections.ConfigDict,
  function: RewardFunction | None,
  *,
  judged: bool = True,
) -> method.Group:
  """Returns rewards and advantages, by the method or by a function in place of votes and verdicts.

  Args:
    evidence: of the batch.
    source: of its records.
    options: `config.method`.
    function: see above.
    judged: whether there is a Judge; without one every factor is 1.

  Raises:
    ValueError: the function's rewards have another shape or leave [0, 1].
  """
  if function is None:
    return method.group(
      evidence.answer_ids,
      evidence.format_ok,
      evidence.judge_scores if judged else None,
      evidence.judge_valid if judged else None,
      **options,
    )
  base = np.asarray(function(evidence, source), np.float32)
  shape = evidence.answer_ids.shape
  if base.shape != shape or not ((base >= 0) & (base <= 1)).all():
    raise ValueError(
      f"the reward function gave an array of shape {base.shape} with values from {base.min()} to"
      f" {base.max()}; it must be of shape {shape}, in [0, 1]"
    )
  return method.group_of_rewards(base, evidence.format_ok, **_shared(options))


def _shared(options: ml_collections.ConfigDict) -> dict[str, object]:
  """The method's options that do not belong to votes and verdicts."""
  return {name: options[name] for name in ("format_penalty", "beta", "clip_adv", "advantage")}
