"""Checks of a configuration's values before anything runs.

Checks that need the model directory are in `sejax.rollout.checks`.
"""

import contextlib
import functools
import math
import sys
from collections.abc import Iterator
from typing import Any, get_args

import jax
import ml_collections
import numpy as np
from ml_collections import config_dict

from sejax import config as config_lib
from sejax import method
from sejax.config import renames
from sejax.data import sources, views
from sejax.errors import ConfigError, OptionError, shortened
from sejax.evaluation import benchmarks
from sejax.learner import optimizer
from sejax.method import inputs
from sejax.models import lora
from sejax.models.transformer.config import Remat
from sejax.rewards import functions
from sejax.text import answers, prompts, verdicts

# Fields with a fixed set of values.
_CHOICES = {
  "answers.equivalence": answers.EQUIVALENCES,
  "answers.unparsable": answers.UNPARSABLE,
  "data.on_bad_record": ("skip", "stop"),
  "judge.contradictory": verdicts.CONTRADICTORY,
  "judge.rubric": prompts.RUBRICS,
  "model.remat": get_args(Remat),
  "model.dtype": ("auto", "float32", "bfloat16"),
  "checkpoint.best_by": ("heldout", "reward", "collapse"),
  "checkpoint.export_dtype": ("bfloat16", "float32"),
  "optimizer.first_moment_dtype": optimizer.PRECISIONS,
  "optimizer.schedule": optimizer.SCHEDULES,
  "train.constant_groups": ("keep", "drop", "resample"),
  "train.overlap": (0, 1),
}
# Fields that hold a tuple of whole numbers, of any length.
_WHOLE_NUMBERS = (
  "data.figures.levels",
  "data.patch_buckets",
  "data.prompt_buckets",
  "log.profile_steps",
  "train.response_buckets",
)
_TEXTS = ("eval.sets", "lora.targets")  # fields that hold a tuple of texts, of any length
# What the value of a field must be, by the type of its default.
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
# Smallest value of each number, and what a message adds about the reason.
_MINIMUM = {
  "group_size": (2, ": a group is compared"),
  "actor.max_tokens": (1, ""),
  "checkpoint.every": (1, ""),
  "compile_threads": (0, ""),
  "checkpoint.keep": (1, ""),
  "checkpoint.keep_best": (0, ""),
  "data.inspect_limit": (0, ""),
  "data.inspect_records": (0, ""),
  "data.workers": (0, ""),
  "eval.batch_size": (1, ""),
  "eval.every": (0, ""),
  "eval.num_problems": (0, ""),
  "actor.max_concurrent_rows": (1, ""),
  "eval.max_concurrent_rows": (1, ""),
  "judge.max_concurrent_rows": (1, ""),
  "judge.max_tokens": (1, ""),
  "judge.num_judge_repeats": (1, ""),
  "log.sample_groups": (0, ""),
  "lora.rank": (0, ": 0 trains all weights"),
  "model.logits_chunk": (1, ""),
  "model.query_chunk": (1, ""),
  "optimizer.max_skipped": (1, ""),
  "optimizer.warmup_steps": (0, ""),
  "sampling.cache_tokens": (1, ""),
  "sampling.decode_steps": (1, ""),
  "train.epochs": (1, ""),
  "train.resample_limit": (1, ""),
  "train.steps": (1, ""),
}


def validate(config: ml_collections.ConfigDict, *, reads_data: bool = True) -> None:
  """Checks all values of a configuration.

  Args:
    reads_data: whether to check that the data set exists.

  Raises:
    ConfigError: a value cannot work; the message names the field, its value and what would work.
  """
  _validate_names(config)
  _validate_types(config)
  _validate_choices(config)
  _validate_sizes(config)
  _validate_minimum(config)
  _validate_data(config.data)
  for role in ("actor", "judge"):
    _validate_filters(role, config[role])
  at = config.actor.certainty_temperature
  at_is_good = at is None or 0 < at < math.inf
  _require(at_is_good, "actor.certainty_temperature", at, "a finite number above 0, or None")
  _validate_training(config)
  lora.Options.of(config.lora)
  prompts.Rubric(**config.judge.weights)
  if reads_data:
    sources.check(config.data)
  for name in benchmarks.names(config.eval.sets):
    benchmarks.BENCHMARKS[name].protocol(config.eval.protocol)
  # These functions check their own options. They are traced on shapes only, nothing is compiled.
  with options_of_section("method"):
    _trace_group(config.method.to_dict(), config.actor.max_tokens)
  weights = config.method.reward_weights
  used = not weights or config.rewards.function
  _require(used, "method.reward_weights", weights, "() without config.rewards.function")
  with options_of_section("loss"):
    _trace_loss(config.loss.to_dict())
  with options_of_section("optimizer"):
    optimizer.make(config.optimizer.to_dict(), steps=sys.maxsize)


def _validate_names(config: ml_collections.ConfigDict) -> None:
  """Checks that every field exists, because a configuration file can add any."""
  known = config_lib.flatten(config_lib.default())
  for name in config_lib.flatten(config):
    if name not in known and not name.startswith(("data.figures.families.", "rewards.options.")):
      raise ConfigError(f"config.{shortened(name)} {renames.explain(name)}")


def _validate_types(config: ml_collections.ConfigDict) -> None:
  """Checks that no field is missing, that only optional ones are None, and the types in tuples.

  The type of all other values is that of their default, because ml_collections refuses others.
  """
  for name, default in config_lib.flatten(config_lib.default()).items():
    if name.startswith("data.figures.families."):  # A run may use any selection of families.
      continue
    value = config
    for part in name.split("."):
      if part not in value:
        raise ConfigError(
          f"the configuration has no field {name}; start from sejax.config.default()"
        )
      value = value[part]
    is_optional = isinstance(default, config_dict.FieldReference)
    _require(value is not None or is_optional, name, value, _KINDS.get(type(default), "a tuple"))
    if name in _WHOLE_NUMBERS:
      _require(all(type(x) is int for x in value), name, value, "whole numbers")
    if name in _TEXTS:
      _require(all(isinstance(x, str) for x in value), name, value, "texts, such as 'a,b'")


def _validate_sizes(config: ml_collections.ConfigDict) -> None:
  """Checks that batches split into mini-batches evenly, and are not smaller than micro-batches."""
  sizes = {
    "batch_size": config.batch_size,
    "mini_batch_size": config.mini_batch_size,
    "train.micro_batch_size": config.train.micro_batch_size,
  }
  for name, value in sizes.items():
    _require(value >= 1, name, value, "at least 1")
  whole, part = config.batch_size, config.mini_batch_size
  _require(
    whole % part == 0, "batch_size", whole, f"a multiple of mini_batch_size={part}; or lower that"
  )
  micro = config.train.micro_batch_size
  _require(micro <= part, "train.micro_batch_size", micro, f"at most mini_batch_size={part}")


def _validate_choices(config: ml_collections.ConfigDict) -> None:
  """Checks fields with a fixed set of values."""
  for name, allowed in _CHOICES.items():
    value = _value(config, name)
    _require(value in allowed, name, value, f"one of {', '.join(map(str, allowed))}")


def _validate_minimum(config: ml_collections.ConfigDict) -> None:
  """Checks that numbers are not too small; optional ones may be None."""
  for name, (minimum, reason) in _MINIMUM.items():
    value = _value(config, name)
    _require(value is None or value >= minimum, name, value, f"at least {minimum}{reason}")


def _validate_training(config: ml_collections.ConfigDict) -> None:
  """Checks the response buckets, the overlap, and the range in which the loss clips ratios."""
  sizes, largest = tuple(config.train.response_buckets), config.actor.max_tokens
  ascending = sizes == tuple(sorted(set(sizes))) and all(1 <= size <= largest for size in sizes)
  _require(
    ascending, "train.response_buckets", sizes, f"ascending, in [1, actor.max_tokens={largest}]"
  )
  limit = config.train.stop_on_collapse
  in_range = limit is None or 0 < limit <= 1
  _require(in_range, "train.stop_on_collapse", limit, "in (0, 1], or None")
  views.Options.of(config.data.view)
  for name in ("start", "end"):
    share = config.teacher[name]
    _require(0 <= share <= 1, f"teacher.{name}", share, "in [0, 1]")
  _require(
    not (config.teacher.use and config.train.overlap),
    "train.overlap",
    config.train.overlap,
    "0 with teacher.use=True: the teacher follows the policy after each step",
  )
  repeats = config.judge.num_judge_repeats
  _require(
    not config.judge.expected or repeats == 1,
    "judge.num_judge_repeats",
    repeats,
    "1 with judge.expected=True: a score is not sampled then, and all would be equal",
  )
  correction = config.loss.rollout_correction
  _require(
    not config.train.overlap or correction != "none",
    "loss.rollout_correction",
    correction,
    "another with train.overlap=1, such as token_truncate: the policy that samples is not the one"
    " that is updated",
  )
  if config.loss.objective in ("grpo", "gspo", "clip_cov"):
    for name in ("clip_low", "clip_high"):
      value = config.loss[name]
      in_range = value is None or 0 <= value < 1
      _require(in_range, f"loss.{name}", value, "in [0, 1): the ratio is clipped around 1")


def _validate_filters(role: str, options: ml_collections.ConfigDict) -> None:
  """Checks what `sampling.Filters` also checks, to name the field of the role in the message."""
  for name, is_good, wanted in (
    ("temperature", 0 <= options.temperature < math.inf, "a finite number, 0 or above"),
    ("top_k", options.top_k is None or options.top_k >= 1, "None (off) or at least 1"),
    ("top_p", 0 < options.top_p <= 1, "above 0 and at most 1 (off)"),
    ("min_p", 0 <= options.min_p <= 1, "from 0 (off) to 1"),
  ):
    _require(is_good, f"{role}.{name}", options[name], wanted)


def _validate_data(data: ml_collections.ConfigDict) -> None:
  """Checks the sizes and limits of section `data`."""
  for name in ("prompt_buckets", "patch_buckets"):
    sizes = tuple(data[name])
    ascending = sizes and sizes[0] >= 1 and sizes == tuple(sorted(set(sizes)))
    _require(ascending, f"data.{name}", sizes, "ascending positive sizes, at least one")
  if data.source == "figures":  # Else a set of one's own would be ignored.
    wanted = "empty for data.source=figures, which are drawn; or give data.source=jsonl"
    _require(not data.path, "data.path", data.path, wanted)
  minimum = 1
  for name in ("min_pixels", "max_pixels"):
    value = data[name]
    _require(value is None or value >= minimum, f"data.{name}", value, f"at least {minimum}")
    minimum = value or minimum
  longest = data.prompt_buckets[-1]
  fits = 1 <= data.prompt_limit <= longest
  _require(fits, "data.prompt_limit", data.prompt_limit, f"in [1, {longest}], the largest bucket")
  share = data.max_bad_share
  _require(0 <= share <= 1, "data.max_bad_share", share, "in [0, 1]")


def _value(config: ml_collections.ConfigDict, name: str) -> Any:
  """Returns the value of a field by its dotted name."""
  return functools.reduce(ml_collections.ConfigDict.__getitem__, name.split("."), config)


def _require(condition: bool, name: str, value: object, wanted: str) -> None:
  """Raises OptionError unless the condition holds."""
  if not condition:
    raise OptionError(name, value, wanted)


@contextlib.contextmanager
def options_of_section(section: str) -> Iterator[None]:
  """Adds the section to errors about options, as functions know only the option's own name.

  Raises:
    OptionError: the enclosed code raised one that lacks the section.
  """
  try:
    yield
  except inputs.OptionError as error:
    raise OptionError(f"{section}.{error.name}", error.value, error.wanted) from None


def _trace_group(options: dict, max_tokens: int) -> None:
  """Traces `method.group` and `group_of_rewards` with options of `config.method`."""
  zeros = np.zeros((1, 2))
  ids, flags = zeros.astype(np.int32), zeros.astype(bool)
  jax.eval_shape(lambda: method.group(ids, flags, zeros, flags, ids, max_tokens, **options))
  several = np.zeros((len(options["reward_weights"]) or 1, 1, 2))
  shared = {name: options[name] for name in functions.SHARED_OPTIONS}
  jax.eval_shape(lambda: method.group_of_rewards(several, flags, ids, max_tokens, **shared))


def _trace_loss(options: dict) -> None:
  """Traces `method.policy_loss` with options of `config.loss`."""
  tokens, sequences = np.zeros((1, 2), np.float32), np.zeros(1, np.float32)
  arrays = {
    "advantage": sequences,
    "mask": tokens.astype(bool),
    **dict.fromkeys(("logp", "old_logp", "ref_logp", "behaviour_logp", "entropy"), tokens),
  }
  jax.eval_shape(lambda: method.policy_loss(**arrays, key=jax.random.key(0), **options))
