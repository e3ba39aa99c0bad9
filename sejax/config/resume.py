"""The saved configuration of a run, and which fields may differ when the run resumes."""

import itertools
import json
import pathlib
import re
from typing import Any

import jax
import ml_collections

from sejax.config.defaults import default, flatten
from sejax.config.paths import PATHS
from sejax.config.renames import upgrade
from sejax.errors import ConfigError, quoted

# What there is of a run that has begun; one that was refused left its configuration alone.
_MADE = ("metrics.jsonl", "checkpoints/[0-9]*", "*/problems.jsonl")


def save(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Writes the resolved configuration to `config.json` in the workdir; process 0 does."""
  if jax.process_index() > 0:
    return
  plain = _plain(config)
  absolute = {
    name: str(pathlib.Path(path).absolute())  # A run may go on from another folder.
    for name, path in flatten(plain).items()
    if name in PATHS and path and pathlib.Path(path).exists()
  }
  saved = ml_collections.ConfigDict(plain)
  saved.update_from_flattened_dict(absolute)
  text = json.dumps(saved.to_dict(), indent=2, sort_keys=True)
  new = workdir / "config.json.new"  # Another process may be reading the old one.
  new.write_text(text + "\n", encoding="utf-8")
  new.replace(workdir / "config.json")


def holds_run(workdir: pathlib.Path) -> bool:
  """Returns whether anything of a run is in the workdir."""
  return any(itertools.chain.from_iterable(workdir.glob(name) for name in _MADE))


# Fields that may differ when a run goes on: what is logged and saved, how data are read, what moves
# memory and time alone (sums may take another order), and when to give up.
_FREE = (
  r"log\.",
  r"checkpoint\.",
  r"mesh\.",
  r"sampling\.",
  r"model\.(remat|unroll|query_chunk|logits_chunk|fused_attention)$",
  r"train\.micro_batch_size$",
  r"optimizer\.max_skipped$",
  r"data\.(workers|max_bad_share|on_bad_record|inspect_\w+)$",
  r"eval\.(sets|protocol|batch_size|every|allow_training_problems)$",
  r"rewards\.recorded$",
)
# Training does not read these, and the evaluation of benchmarks not those.
_FREE_IN_TRAINING = (r"eval\.(sets_path|predictions|extractor|instruction)$",)
_FREE_IN_EVALUATION = (
  r"(loss|method|optimizer|rewards|train)\.",
  r"eval\.(num_problems|split|path)$",
)


def save_if_new(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Saves the configuration, unless the workdir holds that of a run which has begun."""
  if not holds_run(workdir):
    save(config, workdir)


def require_same(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, *, evaluates: bool = False
) -> None:
  """Refuses to go on in the workdir of a run with another configuration.

  What is logged, how often it is saved, how data are read, and what changes memory and speed alone
  may differ; so may the number of steps, as long as the learning rate does not depend on it, and
  which benchmarks are evaluated.

  Args:
    config: that is given now.
    evaluates: whether the run is a model's on benchmarks; their data must then be the same.

  Raises:
    ConfigError: naming the fields that differ.
  """
  file = workdir / "config.json"
  if not file.exists() or not holds_run(workdir):
    return
  # A field that the run's version did not have has its default value.
  before = flatten(_plain(default())) | upgrade(
    flatten(json.loads(file.read_text(encoding="utf-8")))
  )
  now = flatten(_plain(config))
  free = [*_FREE, *(_FREE_IN_EVALUATION if evaluates else _FREE_IN_TRAINING)]
  if config.optimizer.schedule == "constant":
    free.append(r"train\.(steps|epochs)$")
  differing = [
    name
    for name in sorted({*before, *now})
    if not re.match("|".join(free), name) and not _is_same(name, before.get(name), now.get(name))
  ]
  if differing:
    name = differing[0]
    more = f", and {len(differing) - 1} more fields" if len(differing) > 1 else ""
    raise ConfigError(
      f"{workdir} holds a run with config.{name}={quoted(before.get(name))}, not"
      f" {quoted(now.get(name))}{more}; give the same configuration or another --workdir"
    )


def _is_same(name: str, before: Any, now: Any) -> bool:
  if name in PATHS and before and now:
    return pathlib.Path(before).expanduser().resolve() == pathlib.Path(now).expanduser().resolve()
  return before == now


def _plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
  return json.loads(json.dumps(config.to_dict()))
