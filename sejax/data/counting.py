"""Counts the usable records of a data set, which gives the number of training steps per epoch.

Before training, every record is decoded and tokenized once; only the slowest part, cutting images
into patches, is left out. The count is saved in the workdir: a restart does not count again, and
has the same number of steps even if images have been repaired in the meantime.
"""

import collections
import dataclasses
import hashlib
import json
import math
import os
from typing import Any

import grain
import jax
import ml_collections
import tqdm
from absl import logging

from sejax import storage
from sejax.data import pipeline
from sejax.data.prepare import Dropped, Preparer
from sejax.parallel import hosts

FILE = "usable_records.json"
_AHEAD = 64  # checked records are small, unlike examples with patches


def num_steps(
  train: ml_collections.ConfigDict,
  data: ml_collections.ConfigDict,
  preparer: Preparer,
  workdir: storage.Path,
  *,
  batch_size: int,
  seed: int,
) -> int:
  """Returns the number of training steps: `train.steps` if set, else that of `train.epochs`.

  It is rounded up: the last batch is filled with records of the next epoch.

  Args:
    train: section `config.train`.
    data: section `config.data`.
    preparer: makes the run's examples.
    workdir: where the number of usable records is saved.
    batch_size: prompts per step, over all processes.
    seed: of the order in which records are checked.

  Raises:
    ValueError: no record is usable.
  """
  if train.steps is not None:
    return train.steps
  usable = count_usable(data, preparer, workdir, seed=seed)
  return math.ceil(train.epochs * usable / batch_size)


def count_usable(
  data: ml_collections.ConfigDict, preparer: Preparer, workdir: storage.Path, *, seed: int
) -> int:
  """Returns the number of usable records, from the workdir or by checking all of them.

  A collective operation: each process checks its share.

  Args:
    data: the configuration's section.
    preparer: makes the run's examples.
    workdir: where the number is saved.
    seed: of the order in which records are checked.

  Raises:
    ValueError: no record is usable.
  """
  source, file = preparer.source, workdir / FILE
  identity = _identity(data, preparer)
  # Only process 0 decides: on a network file system the others might see the file later.
  saved = hosts.gather_json(_read_count(file, identity))[0]
  if saved is not None:
    return saved
  if _all_representatives_fit(preparer):
    own_dropped = {}
  else:
    own_dropped = _count_dropped(preparer, seed, data.workers)
  dropped = sum(map(collections.Counter, hosts.gather_json(own_dropped)), collections.Counter())
  usable = len(source) - dropped.total()
  if not usable:
    raise ValueError(
      f"none of {len(source)} records of {source.name} gives an example:"
      f" {pipeline.tally(dropped)}; see --mode=inspect"
    )
  if dropped:
    logging.info("%d of %d records can be used: %s", usable, len(source), pipeline.tally(dropped))
  if jax.process_index() == 0:
    content = {"usable": usable, "records": len(source), "dropped": dropped, "identity": identity}
    storage.write_text(file, json.dumps(content, indent=2) + "\n")
  return usable


def _all_representatives_fit(preparer: Preparer) -> bool:
  """Whether the source names a few records that represent all others, and all these are usable."""
  representatives = getattr(preparer.source, "representatives", None)
  if representatives is None:
    return False
  preparer = dataclasses.replace(preparer, source=representatives())
  return not any(isinstance(preparer.tokenize(i), Dropped) for i in range(len(preparer.source)))


def _count_dropped(preparer: Preparer, seed: int, workers: int) -> dict[str, int]:
  """Counts the dropped records of this process's share, by kind.

  Raises:
    ValueError: none of the first `pipeline.PATIENCE` records is usable.
  """
  process, processes = jax.process_index(), jax.process_count()
  # Shuffled, so that the first `PATIENCE` records are a random sample.
  records = grain.MapDataset.range(len(preparer.source)).shuffle(seed)[process::processes]
  dropped = collections.Counter()
  checks = pipeline.in_parallel(records.map(_UsableCheck(preparer)), workers, _AHEAD)
  bar = tqdm.tqdm(checks, "records", len(records), delay=1, disable=process > 0)
  for seen, check in enumerate(bar, start=1):
    if not isinstance(check, Dropped):
      continue
    dropped[check.kind] += 1
    if seen == dropped.total() == pipeline.PATIENCE:
      raise ValueError(pipeline.none_usable(preparer.source, seen, dropped, check))
  return dropped


@dataclasses.dataclass(frozen=True)
class _UsableCheck:
  """Returns True for a usable record, else why it is dropped; a class because it is pickled."""

  preparer: Preparer

  def __call__(self, index: int) -> Dropped | bool:
    tokenized = self.preparer.tokenize(index)
    # True, because grain skips elements that are None.
    return tokenized if isinstance(tokenized, Dropped) else True


def _identity(data: ml_collections.ConfigDict, preparer: Preparer) -> str:
  """Returns a hash of everything that determines which records are usable."""
  names = ("source", "path", "split", "name", "image_folder", "figures")
  section = data.to_dict()
  facts: dict[str, Any] = {name: section[name] for name in names}
  # Absolute, so that `data` and `./data` are the same set.
  facts["path"] = os.path.abspath(data.path) if data.path else ""
  facts |= {"set": preparer.source.name, "records": len(preparer.source)}
  for field in dataclasses.fields(preparer):
    if field.name != "source":
      facts[f"preparer.{field.name}"] = getattr(preparer, field.name)
  return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _read_count(file: storage.Path, identity: str) -> int | None:
  """Returns the saved count if it belongs to this data set and configuration, else None."""
  if jax.process_index() > 0 or not file.exists():
    return None
  try:
    content = json.loads(file.read_text(encoding="utf-8"))
    return int(content["usable"]) if content["identity"] == identity else None
  except (ValueError, KeyError, TypeError) as error:
    logging.warning("%s is damaged (%s), so records are counted again", file, error)
    return None
