"""The checks of a configuration that are made before anything runs."""

import contextlib
import itertools
from collections.abc import Iterator

import jax
import ml_collections
import numpy as np
from ml_collections import config_dict

from sejax import config as config_lib
from sejax import method
from sejax.config import renames
from sejax.data import sources
from sejax.errors import quoted, shortened
from sejax.evaluation import benchmarks
from sejax.learner import optimizer
from sejax.models import lora
from sejax.sampling import Filters
from sejax.text import answers, prompts, verdicts

# Fields that take one of a few words.
_CHOICES = {
  "answers.equivalence": answers.EQUIVALENCES,
  "answers.unparsable": answers.UNPARSABLE,
  "data.on_bad_record": ("skip", "stop"),
  "judge.contradictory": verdicts.CONTRADICTORY,
  "judge.rubric": prompts.RUBRICS,
  "model.remat": ("nothing", "dots", "everything"),
  "model.dtype": ("auto", "float32", "bfloat16"),
  "checkpoint.export_dtype": ("bfloat16", "float32"),
  "optimizer.first_moment_dtype": optimizer.PRECISIONS,
  "optimizer.schedule": optimizer.SCHEDULES,
  "train.constant_groups": ("keep", "drop", "resample"),
}
# Fields that hold whole numbers, as many as one likes.
_WHOLE_NUMBERS = (
  "data.figures.levels",
  "data.patch_buckets",
  "data.prompt_buckets",
  "log.profile_steps",
  "train.response_buckets",
)
_TEXTS = ("eval.sets", "lora.targets")  # fields that hold texts, as many as one likes
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_FILTERS = ("temperature", "top_p", "top_k", "min_p")


def validate(config: ml_collections.ConfigDict, *, reads_data: bool = True) -> None:
  """Refuses configurations that cannot work.

  Args:
    config: the configuration.
    reads_data: whether its data must be there.

  Raises:
    ConfigError: naming the field, its value and what would work.
  """
  _validate_names(config)
  _validate_types(config)
  _require(
    config.group_size >= 2, "group_size", config.group_size, "at least 2: a group is compared"
  )
  _validate_sizes(config)
  repeats = config.judge.num_judge_repeats
  _require(repeats >= 1, "judge.num_judge_repeats", repeats, "at least 1")
  for name, allowed in _CHOICES.items():
    section, field = name.split(".")
    value = config[section][field]
    _require(value in allowed, name, value, f"one of {', '.join(allowed)}")
  with _named("config.judge.weights: "):
    prompts.Rubric(**config.judge.weights)
  with _named("config.lora."):
    lora.Options.of(config.lora)
  _validate_data(config.data)
  _validate_sampling(config)
  _validate_training(config)
  for name in ("clip_low", "clip_high"):
    value = config.loss[name]
    _require(0 <= value < 1, f"loss.{name}", value, "in [0, 1): the ratio is clipped around 1")
  if reads_data:
    with _named("config.data."):
      sources.check(config.data)
  with _named(""):
    for name in benchmarks.names(config.eval.sets):
      benchmarks.BENCHMARKS[name].protocol(config.eval.protocol)
  # The kernels check their own options, on shapes alone: nothing is compiled.
  with _named("config.method."):
    _try_group(config.method.to_dict())
  with _named("config.loss."):
    _try_loss(config.loss.to_dict())


def _validate_names(config: ml_collections.ConfigDict) -> None:
  """Every field is one that there is: a configuration file may set any."""
  known = config_lib.flatten(config_lib.default())
  for name in config_lib.flatten(config):
    if name not in known and not name.startswith("data.figures.families."):
      raise config_lib.ConfigError(f"config.{shortened(name)} {renames.explain(name)}")


def _validate_types(config: ml_collections.ConfigDict) -> None:
  """Every field is there, has a value unless it is optional, and tuples hold what they should.

  All other values have the type of their default, as ml_collections assigns no others.
  """
  for name, default in config_lib.flatten(config_lib.default()).items():
    if name.startswith("data.figures.families."):  # as many of them as one likes
      continue
    value = config
    for part in name.split("."):
      if part not in value:
        raise config_lib.ConfigError(
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
  """Batches divide into mini-batches and these into micro-batches."""
  sizes = {
    "batch_size": config.batch_size,
    "mini_batch_size": config.mini_batch_size,
    "train.micro_batch_size": config.train.micro_batch_size,
  }
  for name, value in sizes.items():
    _require(value >= 1, name, value, "at least 1")
  for (name, value), (part, size) in itertools.pairwise(sizes.items()):
    _require(value % size == 0, name, value, f"a multiple of {part}={size}")


def _validate_training(config: ml_collections.ConfigDict) -> None:
  train = config.train
  _require(train.epochs >= 1, "train.epochs", train.epochs, "at least 1")
  _require(train.steps is None or train.steps >= 1, "train.steps", train.steps, "at least 1")
  _require(train.resample_limit >= 1, "train.resample_limit", train.resample_limit, "at least 1")
  sizes, most = tuple(train.response_buckets), config.actor.max_tokens
  ascending = sizes == tuple(sorted(set(sizes))) and all(1 <= size <= most for size in sizes)
  _require(
    ascending, "train.response_buckets", sizes, f"ascending, in [1, actor.max_tokens={most}]"
  )
  for name, least in (
    ("eval.num_problems", 0),
    ("eval.every", 0),
    ("eval.batch_size", 1),
    ("checkpoint.every", 1),
    ("checkpoint.keep", 1),
    ("checkpoint.keep_best", 0),
    ("log.sample_groups", 0),
    ("lora.rank", 0),
    ("model.query_chunk", 1),
    ("model.logits_chunk", 1),
    ("optimizer.max_skipped", 1),
  ):
    section, field = name.split(".")
    _require(config[section][field] >= least, name, config[section][field], f"at least {least}")


def _validate_sampling(config: ml_collections.ConfigDict) -> None:
  for role in ("actor", "judge"):
    options = config[role]
    _require(options.max_tokens >= 1, f"{role}.max_tokens", options.max_tokens, "at least 1")
    try:
      Filters(**{name: options[name] for name in _FILTERS})
    except ValueError as error:
      said = str(error).removeprefix("filters.").replace(" is ", "=", 1).replace("; it", "", 1)
      raise config_lib.ConfigError(f"config.{role}.{said}") from None
  for name in ("max_concurrent_prompts", "decode_steps"):
    value = config.sampling[name]
    _require(value is None or value >= 1, f"sampling.{name}", value, "at least 1")


def _validate_data(data: ml_collections.ConfigDict) -> None:
  for name in ("prompt_buckets", "patch_buckets"):
    sizes = tuple(data[name])
    ascending = sizes and sizes[0] >= 1 and sizes == tuple(sorted(set(sizes)))
    _require(ascending, f"data.{name}", sizes, "ascending positive sizes, at least one")
  least = 1
  for name in ("min_pixels", "max_pixels"):
    _require(
      data[name] is None or data[name] >= least, f"data.{name}", data[name], f"at least {least}"
    )
    least = data[name] or least
  longest = data.prompt_buckets[-1]
  fits = 1 <= data.prompt_limit <= longest
  _require(fits, "data.prompt_limit", data.prompt_limit, f"in [1, {longest}], the largest bucket")
  share = data.max_bad_share
  _require(0 <= share <= 1, "data.max_bad_share", share, "in [0, 1]")
  for name in ("workers", "inspect_records", "inspect_limit"):
    _require(data[name] >= 0, f"data.{name}", data[name], "at least 0")


def _require(condition: bool, name: str, value: object, what: str) -> None:
  if not condition:
    raise config_lib.ConfigError(f"config.{name}={quoted(value)} must be {what}")


@contextlib.contextmanager
def _named(prefix: str) -> Iterator[None]:
  """Puts what tells the section before the complaint of whoever owns the options."""
  try:
    yield
  except ValueError as error:
    raise config_lib.ConfigError(f"{prefix}{error}") from None


def _try_group(options: dict) -> None:
  zeros = np.zeros((1, 2))
  ids, flags = zeros.astype(np.int32), zeros.astype(bool)
  jax.eval_shape(lambda: method.group(ids, flags, zeros, flags, **options))


def _try_loss(options: dict) -> None:
  tokens, sequences = np.zeros((1, 2), np.float32), np.zeros(1, np.float32)
  entropy = tokens if options["entropy_coef"] else None
  jax.eval_shape(
    lambda: method.grpo_loss(
      tokens, tokens, tokens, sequences, tokens.astype(bool), entropy=entropy, **options
    )
  )
