"""Reward functions: the method's own reward, built-in baselines, and user-defined functions.

`config.rewards.function = "package.module.function"` replaces the method's reward. The function
receives the `Evidence` of a batch and the source of its records, and returns a reward in [0, 1] for
each trajectory, or K of them as an array `[K, B, G]`, which `config.method.reward_weights` weighs;
the format penalty, which is at most 0, is added afterwards. If it has a parameter `prover`, it also
receives the run's `Prover`, with which the metrics grade answers. An exception in a reward function
is raised as `RewardFunctionError` with its traceback, except for `CannotReward`, which ends the run
with its message alone.

The functions in this module are baselines of the paper's comparison (arXiv:2603.21289) that cannot
be expressed as options of the method.
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

from sejax import method
from sejax.data.records import BadRecord, Source
from sejax.errors import one_line, quoted
from sejax.text.equivalence import Prover


class Evidence(NamedTuple):
  """Input of a reward function: everything known about B groups of G trajectories without labels.

  Attributes:
    index: positions of the records in the source; -1 in padding rows.
    questions: texts of the records.
    texts: the trajectories, B lists of G.
    answers: answers extracted from the trajectories; None if there is none.
    answer_ids: within a group, equal answers have equal ids; `ABSTAIN` if there is no answer.
    format_ok: whether the trajectory has the required output format.
    judge_scores: the Judge's scores in [0, 1]; 0 if not valid, hence everywhere without a Judge.
    judge_valid: whether the Judge gave a valid score.
    lengths: tokens of each trajectory; None if they are not known.
  """

  index: Int[np.ndarray, " B"]
  questions: Sequence[str]
  texts: Sequence[Sequence[str]]
  answers: Sequence[Sequence[str | None]]
  answer_ids: Int32[np.ndarray, "B G"]
  format_ok: Bool[np.ndarray, "B G"]
  judge_scores: Float[np.ndarray, "B G"]
  judge_valid: Bool[np.ndarray, "B G"]
  lengths: Int32[np.ndarray, "B G"] | None = None


RewardFunction = Callable[[Evidence, Source], Float[np.ndarray, "*K B G"]]

# Options of the method that also hold for rewards from a function.
SHARED_OPTIONS = tuple(
  name
  for name, parameter in inspect.signature(method.group_of_rewards).parameters.items()
  if parameter.kind is parameter.KEYWORD_ONLY
)


class CannotReward(ValueError):  # noqa: N818 (it is raised on purpose, and says what is wrong)
  """A reward function raises this to end the run with a one-line message and no traceback."""


class RewardFunctionError(RuntimeError):
  """Wraps an unexpected exception of a reward function or its module, which is its `__cause__`."""

  def __init__(self, name: str, cause: Exception):
    super().__init__(f"{name} raised {type(cause).__name__}: {one_line(cause)}")


def judge_only(evidence: Evidence, source: Source) -> Float[np.ndarray, "B G"]:
  """Returns the Judge's score as the reward, without self-consistency (arXiv:2603.21289)."""
  del source
  return np.where(evidence.judge_valid, evidence.judge_scores, 0.0)


def supervised(evidence: Evidence, source: Source, prover: Prover) -> Float[np.ndarray, "B G"]:
  """Rewards 1 for the gold answer: supervised GRPO, the upper bound of the comparison.

  Raises:
    CannotReward: the gold answer of a record is missing or unreadable.
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
  """Rewards every trajectory with 1, so that only the format penalty gives a training signal."""
  del source
  return np.ones(evidence.answer_ids.shape)


def find(name: str, prover: Prover) -> RewardFunction | None:
  """Imports the reward function of a dotted name; None for an empty name, the method's reward.

  Args:
    name: `package.module.function`.
    prover: bound to the function's parameter `prover`, if it has one.

  Raises:
    ValueError: there is no such function.
    RewardFunctionError: its module raises an exception when it is imported.
  """
  if not name:
    return None
  no_function = f"config.rewards.function={quoted(name)} is not a function"
  module, _, attribute = name.rpartition(".")
  if not module or not all(part.isidentifier() for part in name.split(".")):
    raise ValueError(f"{no_function}; name one as package.module.function")
  try:
    function = getattr(importlib.import_module(module), attribute, None)
  except ModuleNotFoundError as error:
    # Is it the named module that is missing, or one that it imports?
    if error.name is None or not f"{module}.".startswith(f"{error.name}."):
      raise RewardFunctionError(f"the module {module}", error) from error
    raise ValueError(f"{no_function} that can be imported: {error}") from None
  except Exception as error:
    raise RewardFunctionError(f"the module {module}", error) from error
  if function is None:
    raise ValueError(f"{no_function} that can be imported: {module} has no {attribute}")
  if not callable(function):
    raise ValueError(no_function)
  try:
    takes_prover = "prover" in inspect.signature(function).parameters
  except (TypeError, ValueError):  # functions written in C may have no signature
    takes_prover = False
  return functools.partial(function, prover=prover) if takes_prover else function


def needs_gold(function: RewardFunction | None) -> bool:
  """Whether a function returned by `find` needs gold answers: only `supervised` is known to."""
  return getattr(function, "func", function) is supervised


def reward_groups(
  evidence: Evidence,
  source: Source,
  options: Mapping[str, Any],
  function: RewardFunction | None,
  *,
  judged: bool = True,
  max_tokens: int | None = None,
) -> method.Group:
  """Computes rewards and advantages of a batch, with the method's reward or a reward function.

  Training calls this, as a reward function may need the records. Where there are only texts,
  `score_groups` computes the method's reward; both call `method.group`.

  Args:
    evidence: what is known about the batch.
    source: the source of the batch's records.
    options: of `method.group`.
    function: the reward function; None uses the method's reward.
    judged: whether there is a Judge; without one, every modulation factor is 1.
    max_tokens: the longest trajectory, for the punishment of overlong ones.

  Raises:
    CannotReward: raised by the function.
    RewardFunctionError: the function raised any other exception.
    ValueError: the function did not return a `[B, G]` or `[K, B, G]` array of numbers in [0, 1], or
      there are not as many weights; or an option needs lengths that are not known.
  """
  if function is None:
    return method.group(
      evidence.answer_ids,
      evidence.format_ok,
      evidence.judge_scores if judged else None,
      evidence.judge_valid if judged else None,
      evidence.lengths,
      max_tokens,
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
  return method.group_of_rewards(
    base,
    evidence.format_ok,
    evidence.lengths,
    max_tokens,
    **{name: options[name] for name in SHARED_OPTIONS},
  )


def _name(function: RewardFunction) -> str:
  """Returns the dotted name of a function, or of the class of a callable object."""
  while isinstance(function, functools.partial):
    function = function.func
  owner = function if hasattr(function, "__qualname__") else type(function)
  return f"{owner.__module__}.{owner.__qualname__}"


def _checked(returned: Any, shape: tuple[int, ...], name: str) -> Float32[np.ndarray, "*K B G"]:
  """Converts what a reward function returned to an array and validates it.

  Raises:
    ValueError: it has the wrong shape or type, or values outside [0, 1].
  """
  sizes = ", ".join(map(str, shape))
  wanted = f"it must be of shape ({sizes}) or (K, {sizes}), in [0, 1]"
  try:
    array = np.asarray(returned)
  except Exception as error:  # ragged lists and other libraries' arrays raise various types
    raise ValueError(
      f"{name} returned {type(returned).__name__}, which is not an array ({one_line(error, 100)});"
      f" {wanted}"
    ) from None
  if array.shape[-2:] != shape or array.ndim > 3 or array.size == 0:
    what = f"an array of shape {array.shape}" if array.shape else quoted(returned)
    raise ValueError(f"{name} returned {what}; {wanted}")
  kinds = (jnp.bool_, jnp.integer, jnp.floating)
  if not any(jnp.issubdtype(array.dtype, kind) for kind in kinds):
    raise ValueError(f"{name} returned an array of type {array.dtype}, not of numbers; {wanted}")
  outside = np.argwhere(~((array >= 0) & (array <= 1)))  # NaN too
  if outside.size:
    *number, b, g = outside[0].tolist()
    found = array[tuple(outside[0])]
    which = f"as reward {number[0]} " if number else ""
    raise ValueError(f"{name} returned {found} {which}for trajectory {g} of group {b}; {wanted}")
  return array.astype(np.float32)
