"""Saves a run's configuration, and checks it when the run resumes."""

import itertools
import json
import os
import posixpath
import re
from typing import Any

import jax
import ml_collections

from sejax import method, storage
from sejax.config.defaults import default, flatten
from sejax.config.paths import PATHS
from sejax.config.renames import upgrade
from sejax.errors import ConfigError, quoted
from sejax.models import hub

_FILE = "config.json"
_COMMITS = "commits"  # beside the sections
# Files of a run that has begun. A run that was refused has left only its configuration.
_CHECKPOINTS = "checkpoints/[0-9]*"
_RUN_FILES = ("metrics.jsonl*", _CHECKPOINTS, "*/problems.jsonl*")


def save(config: ml_collections.ConfigDict, workdir: storage.Path) -> None:
  """Writes the configuration to `config.json` in the workdir, with absolute paths.

  Only process 0 writes.
  """
  if jax.process_index() > 0:
    return
  plain = _plain(config)
  absolute = {
    name: os.path.abspath(path)  # A run may be resumed from another folder.
    for name, path in flatten(plain).items()
    if name in PATHS and path and not storage.is_remote(path) and os.path.exists(path)
  }
  saved = ml_collections.ConfigDict(plain)
  saved.update_from_flattened_dict(absolute)
  _write(saved.to_dict(), commits(workdir), workdir)


def commits(workdir: storage.Path) -> dict[str, str]:
  """Returns the commits of what a run has taken from the hub, see `hub.download`."""
  try:
    return json.loads((workdir / _FILE).read_bytes()).get(_COMMITS, {})
  except (FileNotFoundError, ValueError):  # None yet; or `require_same` says that it is torn.
    return {}


def save_commits(found: dict[str, str], workdir: storage.Path) -> None:
  """Adds commits to a saved configuration, so that the run goes on with what it has begun with.

  Only process 0 writes.
  """
  file = workdir / _FILE
  if jax.process_index() > 0 or not found or not file.exists():
    return
  plain = json.loads(file.read_bytes())
  before = plain.pop(_COMMITS, {})
  if before != before | found:
    _write(plain, before | found, workdir)


def _write(plain: dict[str, Any], of_hub: dict[str, str], workdir: storage.Path) -> None:
  text = json.dumps(plain | ({_COMMITS: of_hub} if of_hub else {}), indent=2, sort_keys=True)
  storage.write_text(workdir / _FILE, text + "\n")


def published(workdir: storage.Path) -> dict[str, Any]:
  """Returns a saved configuration without what is this machine's and nobody else's.

  That is logging, and of paths all but their last part; names on the hub stay.
  """
  plain = json.loads((workdir / _FILE).read_bytes())
  of_hub = plain.pop(_COMMITS, {})
  shown = ml_collections.ConfigDict({name: x for name, x in plain.items() if name != "log"})
  paths = {
    name: posixpath.basename(path.rstrip("/"))
    for name, path in flatten(shown).items()
    if name in PATHS and path and not hub.is_name(path)
  }
  shown.update_from_flattened_dict(paths)
  return shown.to_dict() | ({_COMMITS: of_hub} if of_hub else {})


def holds_run(workdir: storage.Path) -> bool:
  """Returns whether a run has begun in the workdir."""
  return any(itertools.chain.from_iterable(storage.glob(workdir, name) for name in _RUN_FILES))


# Patterns of fields that may differ when a run resumes: logging, checkpoints, reading of data,
# limits on errors, and fields that affect only memory and speed (and the order of sums).
_FREE = (
  r"log\.",
  r"checkpoint\.(?!best_by)",  # Scores of two kinds do not compare.
  r"sampling\.",
  r"compile_threads$",
  r"(actor|judge|eval)\.max_concurrent_rows$",
  r"model\.(remat|unroll|query_chunk|logits_chunk|fused_attention)$",
  r"optimizer\.max_skipped$",
  r"train\.stop_on_collapse$",
  r"data\.(workers|max_bad_share|on_bad_record|inspect_\w+)$",
  r"eval\.(sets|protocol|batch_size|every|allow_training_problems)$",
  r"rewards\.recorded$",
)
# Fields that training does not read, and fields that the evaluation of benchmarks does not read.
_FREE_IN_TRAINING = (r"eval\.(sets_path|predictions|extractor|instruction)$",)
_FREE_IN_EVALUATION = (
  r"(loss|method|optimizer|rewards|teacher|train)\.",
  r"eval\.(num_problems|split|path)$",
)


def save_if_new(config: ml_collections.ConfigDict, workdir: storage.Path) -> None:
  """Saves the configuration, unless a run has begun in the workdir."""
  if not holds_run(workdir):
    save(config, workdir)


def require_same(
  config: ml_collections.ConfigDict, workdir: storage.Path, *, evaluates: bool = False
) -> None:
  """Checks that a run is resumed with the configuration that it was begun with.

  Fields may differ that only affect logging, the frequency of checkpoints, error handling of data,
  memory or speed. So may the size of micro-batches, unless the objective depends on it, the number
  of steps, if neither learning rate nor teacher depend on it, and the choice of benchmarks. Does
  nothing if no run has begun.

  Args:
    evaluates: whether the run is `--mode=evaluate`, to which other fields matter than to training.

  Raises:
    ConfigError: a field differs; the message names it and both values.
  """
  file = workdir / _FILE
  if not file.exists() or not holds_run(workdir):
    return
  saved = json.loads(file.read_bytes())
  saved.pop(_COMMITS, None)
  # Fields that did not exist in the run's version count as their defaults.
  before = flatten(_plain(default())) | upgrade(flatten(saved))
  now = flatten(_plain(config))
  before, now = _with_loss_defaults(before), _with_loss_defaults(now)
  free = [*_FREE, *(_FREE_IN_EVALUATION if evaluates else _FREE_IN_TRAINING)]
  if config.optimizer.schedule == "constant" and (evaluates or not config.teacher.use):
    free.append(r"train\.(steps|epochs)$")
  if evaluates or not method.OBJECTIVES[config.loss.objective].per_micro_batch:
    # Both decide which groups share a micro-batch.
    free += [r"train\.micro_batch_size$", r"mesh\."]
  differing = [
    name
    for name in sorted({*before, *now})
    if not re.match("|".join(free), name) and not _is_same(name, before.get(name), now.get(name))
  ]
  if differing:
    name = differing[0]
    others = ", ".join(differing[1:4]) + (" and more" if len(differing) > 4 else "")
    more = f" (others differ, too: {others})" if others else ""
    way_on = "" if evaluates else ", where config.model.path may be what --mode=export leaves here"
    raise ConfigError(
      f"{workdir} holds a run with config.{name}={quoted(before.get(name))}, not"
      f" {quoted(now.get(name))}{more}; give the same configuration or another --workdir{way_on}"
    )


def require_steps(steps: int, workdir: storage.Path) -> None:
  """Checks that a run does not end before its last checkpoint.

  Args:
    steps: training steps of the whole run.

  Raises:
    ValueError: a checkpoint is of a later step.
  """
  names = [path.name for path in storage.glob(workdir, _CHECKPOINTS)]
  saved = max((int(name) for name in names if name.isdigit()), default=0)
  if saved > steps:
    raise ValueError(
      f"{workdir} holds a checkpoint of step {saved}, and this run has {steps} steps;"
      f" give config.train.steps={saved} or more, or another --workdir"
    )


def _with_loss_defaults(values: dict[str, Any]) -> dict[str, Any]:
  """Returns flat values in which an objective's own defaults stand in place of None.

  Runs that began before objectives could be chosen have saved them.
  """
  own = method.OBJECTIVES[values["loss.objective"]]
  defaults = {
    "loss.clip_low": own.clip_low,
    "loss.clip_high": own.clip_high,
    "loss.aggregation": own.aggregation,
  }
  return values | {name: x for name, x in defaults.items() if values[name] is None}


def _is_same(name: str, before: Any, now: Any) -> bool:
  """Whether two values of a field are the same; paths are compared after resolving them."""
  if name in PATHS and before and now:
    return _absolute(before) == _absolute(now)
  return before == now


def _absolute(path: str) -> str:
  return path if storage.is_remote(path) else os.path.realpath(os.path.expanduser(path))


def _plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the configuration as it is read back from JSON: tuples become lists."""
  return json.loads(json.dumps(config.to_dict()))
