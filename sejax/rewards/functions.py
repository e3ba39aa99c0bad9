"""What trajectories are rewarded for: the method, or a function named in the configuration.

A function of one's own is named by `rewards.function="package.module.function"`. It takes the
`Evidence` of a batch and the source of its records, and returns one number in [0, 1] for each
trajectory, from which the penalty for a broken form is subtracted. One with a parameter `prover` is
given the run's `Prover`, which grades as the metrics do. What goes wrong in a function is raised as
a `RewardFunctionError` with its traceback; `CannotReward` alone ends a run in one line. The
functions here are those baselines of the paper's comparison that are no setting of the method.
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

from sejax import method
from sejax.data.records import BadRecord, Source
from sejax.errors import quoted, said
from sejax.text.equivalence import Prover


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


class CannotReward(ValueError):  # noqa: N818 (it is raised on purpose, and says what is wrong)
  """Raised by a reward function to end the run with this message and no traceback."""


class RewardFunctionError(RuntimeError):
  """A reward function, or its module, raised what it did not mean to; that is the cause."""

  def __init__(self, name: str, cause: Exception):
    super().__init__(f"{name} raised {type(cause).__name__}: {said(cause)}")


def judge_only(evidence: Evidence, source: Source) -> Float[np.ndarray, "B G"]:
  """The Judge's score alone, without votes: an ablation of arXiv:2603.21289."""
  del source
  return np.where(evidence.judge_valid, evidence.judge_scores, 0.0)


def supervised(evidence: Evidence, source: Source, prover: Prover) -> Float[np.ndarray, "B G"]:
  """1 for the gold answer: GRPO with labels, the comparison's upper line.

  Raises:
    CannotReward: a record has no gold answer, or none that can be read.
  """
  rows = np.flatnonzero(evidence.index >= 0)
  try:
    golds = [source.gold(int(index)) for index in evidence.index[rows]]
  except BadRecord as error:
    raise CannotReward(f"{error}; supervision needs a gold answer of every record") from None
  if None in golds:
    index = evidence.index[rows[golds.index(None)]]
    raise CannotReward(f"record {index} of {source.name} has no gold answer; supervision needs one")
  rewards = np.zeros(evidence.answer_ids.shape)
  rewards[rows] = prover.grade([evidence.answers[b] for b in rows], golds)
  return rewards


def control(evidence: Evidence, source: Source) -> Float[np.ndarray, "B G"]:
  """1 for all: what the form alone gives."""
  del source
  return np.ones(evidence.answer_ids.shape)


def find(name: str, prover: Prover) -> RewardFunction | None:
  """Returns the function with a dotted name; None for the empty name, which means the method.

  Args:
    name: as `package.module.function`.
    prover: is bound to the function's parameter of this name, if it has one.

  Raises:
    ValueError: there is none.
    RewardFunctionError: its module cannot be imported for a fault of its own.
  """
  if not name:
    return None
  no_function = f"config.rewards.function={quoted(name)} is no function"
  module, _, function = name.rpartition(".")
  if not module or not all(part.isidentifier() for part in name.split(".")):
    raise ValueError(f"{no_function}; name one as package.module.function")
  try:
    found = getattr(importlib.import_module(module), function, None)
  except ModuleNotFoundError as error:
    if error.name is None or not f"{module}.".startswith(f"{error.name}."):
      raise RewardFunctionError(f"the module {module}", error) from error
    raise ValueError(f"{no_function} that can be imported: {error}") from None
  except Exception as error:
    raise RewardFunctionError(f"the module {module}", error) from error
  if found is None:
    raise ValueError(f"{no_function} that can be imported: {module} has no {function}")
  if not callable(found):
    raise ValueError(no_function)
  try:
    takes_prover = "prover" in inspect.signature(found).parameters
  except (TypeError, ValueError):  # Functions that are written in C may not say.
    takes_prover = False
  return functools.partial(found, prover=prover) if takes_prover else found


def needs_gold(function: RewardFunction | None) -> bool:
  """Whether a function that `find` gave is `supervised`; what others need is not known."""
  return getattr(function, "func", function) is supervised


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
    CannotReward: the function says so.
    RewardFunctionError: the function raised anything else.
    ValueError: what it returned is no array of the right shape and of numbers in [0, 1].
  """
  if function is None:
    return method.group(
      evidence.answer_ids,
      evidence.format_ok,
      evidence.judge_scores if judged else None,
      evidence.judge_valid if judged else None,
      **options,
    )
  name = f"the reward function {_name(function)}"
  try:
    returned = function(evidence, source)
  except CannotReward:
    raise
  except Exception as error:
    raise RewardFunctionError(name, error) from error
  base = _checked(returned, evidence.answer_ids.shape, name)
  return method.group_of_rewards(base, evidence.format_ok, **_shared(options))


def _name(function: RewardFunction) -> str:
  """Returns the dotted name of a function, or of what was made callable."""
  while isinstance(function, functools.partial):
    function = function.func
  named = function if hasattr(function, "__qualname__") else type(function)
  return f"{named.__module__}.{named.__qualname__}"


def _checked(returned: Any, shape: tuple[int, ...], name: str) -> Float32[np.ndarray, "B G"]:
  """Returns a function's rewards as an array.

  Raises:
    ValueError: naming the function, what it returned, and what it must return.
  """
  wanted = f"it must be of shape {shape}, in [0, 1]"
  try:
    array = np.asarray(returned)
  except Exception as error:  # Whatever a list of unequal rows, or another library's array, says.
    raise ValueError(
      f"{name} returned {type(returned).__name__}, which is no array ({said(error)}); {wanted}"
    ) from None
  if array.shape != shape:
    what = f"an array of shape {array.shape}" if array.shape else quoted(returned)
    raise ValueError(f"{name} returned {what}; {wanted}")
  kinds = (jnp.bool_, jnp.integer, jnp.floating)
  if not any(jnp.issubdtype(array.dtype, kind) for kind in kinds):
    raise ValueError(f"{name} returned an array of type {array.dtype}, not of numbers; {wanted}")
  outside = np.argwhere(~((array >= 0) & (array <= 1)))  # NaN too
  if outside.size:
    b, g = outside[0].tolist()
    raise ValueError(f"{name} returned {array[b, g]} for trajectory {g} of group {b}; {wanted}")
  return array.astype(np.float32)


def _shared(options: ml_collections.ConfigDict) -> dict[str, object]:
  """The method's options that do not belong to votes and verdicts."""
  return {name: options[name] for name in ("format_penalty", "beta", "clip_adv", "advantage")}
