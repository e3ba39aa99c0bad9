"""Finds reward functions by their dotted names, and binds their options."""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from sejax.data.records import Source
from sejax.errors import quoted
from sejax.rewards.evidence import Evidence
from sejax.rewards.functions import (
  CannotReward,
  OwnAdvantages,
  RewardFunction,
  RewardFunctionError,
  call,
  is_marked,
  name_of,
)
from sejax.text.equivalence import Prover


def find(
  names: str, prover: Prover, options: Mapping[str, Any] | None = None
) -> RewardFunction | None:
  """Imports the reward function of a dotted name; None for an empty name, the method's reward.

  Several names, with commas between them, give a function that returns the rewards of all.

  Args:
    names: `package.module.function`.
    prover: bound to the function's parameter `prover`, if it has one.
    options: values of keyword-only parameters; each goes to every function that has it.

  Raises:
    ValueError: there is no such function, or none has such an option.
    RewardFunctionError: its module raises an exception when it is imported.
  """
  options = dict(options or {})
  functions = [_imported(name.strip()) for name in names.split(",")] if names else []
  accepted = {name for function in functions for name in options_of(function)}
  for name in options:
    if name not in accepted:
      offered = ", ".join(sorted(accepted)) or "none"
      raise ValueError(
        f"config.rewards.options has {quoted(name)}, which no reward function takes; those of"
        f" config.rewards.function={quoted(names)} are: {offered}"
      )
  bound = [_bound(function, prover, options) for function in functions]
  if len(bound) < 2:
    return bound[0] if bound else None
  return _Several(bound)


class _Several:
  """The rewards of several functions, as one function."""

  def __init__(self, functions: Sequence[RewardFunction]):
    self._functions = functions
    self.unbounded = any(is_marked(function, "unbounded") for function in functions)
    self.needs_gold = any(is_marked(function, "needs_gold") for function in functions)

  def __call__(self, evidence: Evidence, source: Source) -> Float32[np.ndarray, "K B G"]:
    parts = [call(function, evidence, source) for function in self._functions]
    for function, part in zip(self._functions, parts, strict=True):
      if isinstance(part, OwnAdvantages):
        raise CannotReward(
          f"config.rewards.function has several functions, and {name_of(function)} has advantages"
          " of its own; name it alone"
        )
    return np.concatenate([part if part.ndim == 3 else part[None] for part in parts])


def _imported(name: str) -> Callable:
  """Returns the function of a dotted name.

  Raises:
    ValueError: there is none.
    RewardFunctionError: its module raises an exception when it is imported.
  """
  no_function = f"config.rewards.function={quoted(name)} is not a function"
  module, _, attribute_name = name.rpartition(".")
  if not module or not all(part.isidentifier() for part in name.split(".")):
    raise ValueError(f"{no_function}; name one as package.module.function")
  try:
    function = getattr(importlib.import_module(module), attribute_name, None)
  except ModuleNotFoundError as error:
    # Is it the named module that is missing, or one that it imports?
    if error.name is None or not f"{module}.".startswith(f"{error.name}."):
      raise RewardFunctionError(f"the module {module}", error) from error
    raise ValueError(f"{no_function} that can be imported: {error}") from None
  except Exception as error:
    raise RewardFunctionError(f"the module {module}", error) from error
  if function is None:
    raise ValueError(f"{no_function} that can be imported: {module} has no {attribute_name}")
  if not callable(function):
    raise ValueError(no_function)
  return function


def _parameters(function: Callable) -> Mapping[str, inspect.Parameter]:
  try:
    return inspect.signature(function).parameters
  except (TypeError, ValueError):  # functions written in C may have no signature
    return {}


def options_of(function: Callable) -> dict[str, Any]:
  """Returns the options of a reward function, its keyword-only parameters, with their defaults.

  None stands for an option without a default.
  """
  return {
    name: None if parameter.default is parameter.empty else parameter.default
    for name, parameter in _parameters(function).items()
    if parameter.kind is parameter.KEYWORD_ONLY and name != "prover"
  }


def _bound(function: Callable, prover: Prover, options: Mapping[str, Any]) -> RewardFunction:
  """Returns the function with its options, and with the prover if it takes one."""
  bound = {name: value for name, value in options.items() if name in options_of(function)}
  if "prover" in _parameters(function):
    bound["prover"] = prover
  return functools.partial(function, **bound) if bound else function
