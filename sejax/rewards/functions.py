"""Reward functions: what they receive and return, and how rewards become advantages.

`config.rewards.function = "package.module.function"` replaces the method's reward. The function
receives the `Evidence` of a batch and the source of its records. It returns a reward in [0, 1] for
each trajectory, or K of them as an array `[K, B, G]`, which `config.method.reward_weights` weighs;
or, if it is marked as `unbounded`, any finite numbers; or `OwnAdvantages`. The format penalty,
which is at most 0, is added to rewards afterwards. Keyword-only parameters are options, which
`config.rewards.options` sets. If it has a parameter `prover`, it also receives the run's `Prover`,
with which the metrics grade answers. See `finding` for several functions.

An exception in a reward function is raised as `RewardFunctionError` with its traceback, except for
`CannotReward`, which ends the run with its message alone. Functions must accept padding rows, and
are tried on one before the run.
"""

import functools
import inspect
import os
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32

from sejax import method
from sejax.data.records import Source
from sejax.errors import one_line, quoted
from sejax.method import inputs
from sejax.rewards.evidence import Evidence


class OwnAdvantages(NamedTuple):
  """What a reward function returns whose advantages do not follow from its rewards alone.

  Then `config.method.advantage` has no effect, and the format penalty and the punishment of
  overlong trajectories change the rewards alone.

  Attributes:
    rewards: for metrics, and to find groups whose rewards are all equal.
    advantages: A, weight of each trajectory in the policy loss; any finite numbers.
  """

  rewards: Float[np.ndarray, "B G"]
  advantages: Float[np.ndarray, "B G"]


RewardFunction = Callable[[Evidence, Source], Float[np.ndarray, "*K B G"] | OwnAdvantages]

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
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
    super().__init__(f"{name} raised {type(cause).__name__}: {one_line(cause)}{_place(cause)}")


def _place(error: Exception) -> str:
  """Returns file and line of the user's code in which an error arose; empty if they are unknown."""
  installed = map(sysconfig.get_path, ("stdlib", "purelib", "platlib"))
  others = (_PACKAGE, *(path + os.sep for path in installed), "<")
  frames = [
    frame
    for frame in traceback.extract_tb(error.__traceback__)
    if not frame.filename.startswith(others)
  ]
  return f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""


class _BadRewards(ValueError):  # noqa: N818
  """Raised if what a function returned is not an array of rewards."""


def unbounded(function: RewardFunction) -> RewardFunction:
  """Marks a reward function whose rewards may be any finite numbers, not only those in [0, 1]."""
  function.unbounded = True
  return function


def is_marked(function: RewardFunction | None, mark: str) -> bool:
  """Whether a function returned by `finding.find` is marked as `unbounded` or `needs_gold`."""
  return bool(getattr(_unwrapped(function), mark, False))


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
    OptionError: there are not as many weights as rewards, an option needs lengths that are not
      known, or advantages are to be whitened that are the function's own.
    ValueError: the function did not return a `[B, G]` or `[K, B, G]` array of numbers in [0, 1].
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
  returned = call(function, evidence, source)
  if isinstance(returned, OwnAdvantages) and options["advantage"] in method.WHITENED:
    wanted = f"another one: {name_of(function)} has advantages of its own, which are not whitened"
    raise inputs.OptionError("advantage", options["advantage"], wanted)
  group = method.group_of_rewards(
    returned.rewards if isinstance(returned, OwnAdvantages) else returned,
    evidence.format_ok,
    evidence.lengths,
    max_tokens,
    not is_marked(function, "unbounded"),
    **{name: options[name] for name in SHARED_OPTIONS},
  )
  if isinstance(returned, OwnAdvantages):
    return group._replace(advantage=returned.advantages)
  return group


def call(
  function: RewardFunction, evidence: Evidence, source: Source
) -> Float32[np.ndarray, "*K B G"] | OwnAdvantages:
  """Calls a reward function and checks what it returns.

  Raises:
    ValueError: as `reward_groups`, which also names the others.
  """
  name = f"the reward function {name_of(function)}"
  try:
    returned = function(evidence, source)
  except (CannotReward, RewardFunctionError, _BadRewards):
    raise
  except Exception as error:
    raise RewardFunctionError(name, error) from error
  shape, is_unbounded = evidence.answer_ids.shape, is_marked(function, "unbounded")
  if isinstance(returned, OwnAdvantages):
    return _checked_own(returned, shape, name, is_unbounded=is_unbounded)
  return _checked(returned, shape, name, is_unbounded=is_unbounded)


def _checked_own(
  returned: OwnAdvantages, shape: tuple[int, ...], name: str, *, is_unbounded: bool
) -> OwnAdvantages:
  """Does what `_checked` does for rewards with advantages of their own."""
  rewards = _checked(returned.rewards, shape, name, is_unbounded=is_unbounded)
  advantages = _checked(returned.advantages, shape, f"{name}, as advantages,", is_unbounded=True)
  if rewards.ndim != 2 or advantages.ndim != 2:
    raise _BadRewards(f"{name} returned several rewards with advantages of its own; return one")
  return OwnAdvantages(rewards, advantages)


def _unwrapped(function: RewardFunction | None) -> RewardFunction | None:
  while isinstance(function, functools.partial):
    function = function.func
  return function


def name_of(function: RewardFunction) -> str:
  """Returns the dotted name of a function, or of the class of a callable object."""
  function = _unwrapped(function)
  owner = function if hasattr(function, "__qualname__") else type(function)
  return f"{owner.__module__}.{owner.__qualname__}"


def _checked(
  returned: Any, shape: tuple[int, ...], name: str, *, is_unbounded: bool
) -> Float32[np.ndarray, "*K B G"]:
  """Converts what a reward function returned to an array and validates it.

  Args:
    shape: of a reward, (B, G).
    name: what to call the function in messages.
    is_unbounded: whether all finite numbers are accepted.

  Raises:
    ValueError: it has the wrong shape or type, or values out of range.
  """
  sizes = ", ".join(map(str, shape))
  wanted = f"it must be of shape ({sizes}) or (K, {sizes})"
  try:
    array = np.asarray(returned)
  except Exception as error:  # ragged lists and other libraries' arrays raise various types
    raise _BadRewards(
      f"{name} returned {type(returned).__name__}, which is not an array ({one_line(error, 100)});"
      f" {wanted}"
    ) from None
  if array.shape[-2:] != shape or array.ndim > 3 or array.size == 0:
    what = f"an array of shape {array.shape}" if array.shape else quoted(returned)
    raise _BadRewards(f"{name} returned {what}; {wanted}")
  kinds = (jnp.bool_, jnp.integer, jnp.floating)
  if not any(jnp.issubdtype(array.dtype, kind) for kind in kinds):
    raise _BadRewards(f"{name} returned an array of type {array.dtype}, not of numbers; {wanted}")
  with np.errstate(over="ignore"):
    rounded = array.astype(np.float32)
  good = np.isfinite(rounded) if is_unbounded else (array >= 0) & (array <= 1)
  outside = np.argwhere(~good)  # NaN too
  if outside.size:
    *number, b, g = outside[0].tolist()
    found = array[tuple(outside[0])]
    which = f"as reward {number[0]} " if number else ""
    numbers = "finite" if is_unbounded else "in [0, 1], unless the function is rewards.unbounded"
    raise _BadRewards(
      f"{name} returned {found} {which}for trajectory {g} of group {b}; it must be {numbers}"
    )
  return rounded
