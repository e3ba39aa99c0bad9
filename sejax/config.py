"""The run's configuration: every option with its default, and the checks made before anything runs.

`configs/*.py` start from `default()` and change what their run changes. The defaults are the
released run's values where it has one (method sections 2 to 6); where sejax by default does better
than the released code, the comment names the value that gives its behaviour.
"""

import inspect
import json
import pathlib
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
from ml_collections import config_dict

from sejax import method
from sejax.data import figures, sources
from sejax.text import answers


class ConfigError(ValueError):
  """A configuration that cannot work; it names the field, its value and what would work."""


def default() -> ml_collections.ConfigDict:
  """Returns the complete configuration with the released run's values."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.group_size = 8  # trajectories per prompt, G
  config.batch_size = 512  # prompts sampled per step
  config.mini_batch_size = 128  # prompts per optimizer step

  config.answers = ml_collections.ConfigDict()
  config.answers.equivalence = "canonical"  # released: "exact"
  config.answers.unparsable = "abstain"  # released: "vote"
  config.answers.released_extraction = False

  config.judge = ml_collections.ConfigDict()
  config.judge.num_judge_repeats = 1  # verdicts per trajectory; valid scores are averaged
  config.judge.released_reading = False

  # Passed on to `sejax.method.group` and `sejax.method.grpo_loss` as they stand.
  config.method = _keywords(method.group)
  config.loss = _keywords(method.grpo_loss, leave_out=("denominators", "entropy"))

  # Which problems; see `sejax.data.sources`.
  config.data = ml_collections.ConfigDict()
  config.data.source = "figures"  # built in; or parquet, jsonl, tfds
  config.data.path = ""  # a file, a directory in hub form, or where tfds sets were built
  config.data.split = "train"
  # Names the set in the keys of samples, by default after its file or directory; for tfds, the set.
  config.data.name = ""
  config.data.image_folder = ""  # what image paths are relative to; by default the data's folder

  config.data.figures = ml_collections.ConfigDict()  # see `sejax.data.figures.source`
  config.data.figures.size = 56  # pixels a side
  config.data.figures.families = dict.fromkeys(figures.FAMILIES, 1.0)  # how often each is drawn
  config.data.figures.levels = figures.LEVELS  # of difficulty
  config.data.figures.length = 100_000  # problems in the set
  config.data.figures.seed = 0

  # Recorded groups for --mode=rewards: JSON lines, see `sejax.scoring`.
  config.groups = ""
  return config


def validate(config: ml_collections.ConfigDict) -> None:
  """Refuses configurations that cannot work.

  Raises:
    ConfigError: naming the field, its value and what would work.
  """
  for field in default():
    if field not in config:
      raise ConfigError(
        f"the configuration has no field {field}; start from sejax.config.default()"
      )
  _require(
    config.group_size >= 2, "group_size", config.group_size, "at least 2: a group is compared"
  )
  for name in ("batch_size", "mini_batch_size"):
    _require(config[name] >= 1, name, config[name], "at least 1")
  _require(
    config.batch_size % config.mini_batch_size == 0,
    "batch_size",
    config.batch_size,
    f"a multiple of mini_batch_size={config.mini_batch_size}",
  )
  repeats = config.judge.num_judge_repeats
  _require(repeats >= 1, "judge.num_judge_repeats", repeats, "at least 1")
  choices = {"equivalence": answers.EQUIVALENCES, "unparsable": answers.UNPARSABLE}
  for name, allowed in choices.items():
    value = config.answers[name]
    _require(value in allowed, f"answers.{name}", value, f"one of {', '.join(allowed)}")
  for name in ("clip_low", "clip_high"):
    value = config.loss[name]
    _require(0 <= value < 1, f"loss.{name}", value, "in [0, 1): the ratio is clipped around 1")
  try:
    sources.check(config.data)
  except ValueError as error:
    raise ConfigError(f"config.data.{error}") from None
  _check_kernel("method", config.method, _try_group)
  _check_kernel("loss", config.loss, _try_loss)


def save(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Writes the resolved configuration to `config.json` in the workdir."""
  text = json.dumps(config.to_dict(), indent=2, sort_keys=True)
  (workdir / "config.json").write_text(text + "\n", encoding="utf-8")


def _keywords(function: Callable, leave_out: tuple[str, ...] = ()) -> ml_collections.ConfigDict:
  """The keyword-only options of a function with their defaults, so that each is written once."""
  options = ml_collections.ConfigDict()
  for name, parameter in inspect.signature(function).parameters.items():
    if parameter.kind is parameter.KEYWORD_ONLY and name not in leave_out:
      value = parameter.default
      options[name] = config_dict.placeholder(float) if value is None else value
  return options


def _require(condition: bool, name: str, value: object, what: str) -> None:
  if not condition:
    raise ConfigError(f"config.{name}={value!r} must be {what}")


def _check_kernel(
  section: str, options: ml_collections.ConfigDict, attempt: Callable[[dict], None]
) -> None:
  """Lets the kernel check its own options, on shapes alone: nothing is compiled."""
  try:
    attempt(options.to_dict())
  except ValueError as error:
    raise ConfigError(f"config.{section}.{error}") from None


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
