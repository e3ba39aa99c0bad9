"""How many records of a set can be used, which decides how many steps the epochs of a run have.

All are looked at once, before the run begins: decoded and tokenized, but not cut into patches,
which takes longest. The number is kept in the workdir, so that a restart need not count again, and
has as many steps even if pictures have been mended since.
"""

import collections
import dataclasses
import hashlib
import json
import math
import os
import pathlib
from typing import Any

import grain
import jax
import ml_collections
import tqdm
from absl import logging

from sejax.data import pipeline
from sejax.data.prepare import Dropped, Preparer
from sejax.parallel import hosts

FILE = "usable_records.json"
_AHEAD = 64  # records that wait to be counted; unlike examples they are small


def num_steps(config: ml_collections.ConfigDict, preparer: Preparer, workdir: pathlib.Path) -> int:
  """Returns the number of batches of a run: `train.steps`, or else those of its epochs.

  Epochs are as many batches as hold every usable record `train.epochs` times; the last is filled up
  from the next epoch.

  Args:
    config: the run's.
    preparer: of its examples.
    workdir: where the number of usable records is kept.

  Raises:
    ValueError: no record can be used.
  """
  if config.train.steps is not None:
    return config.train.steps
  return math.ceil(config.train.epochs * usable(config, preparer, workdir) / config.batch_size)


def usable(config: ml_collections.ConfigDict, preparer: Preparer, workdir: pathlib.Path) -> int:
  """Returns how many records of a set give an example, as remembered or by looking at them.

  All processes call it together; each looks at its share.

  Args:
    config: the run's, whose section `data` says where the set is.
    preparer: of its examples.
    workdir: where the number is remembered.

  Raises:
    ValueError: none does.
  """
  source, file = preparer.source, workdir / FILE
  identity = _identity(config, preparer)
  # Process 0 answers for all: others might see the file a moment later.
  remembered = hosts.gather_json(_remembered(file, identity))[0]
  if remembered is not None:
    return remembered
  own = {} if _all_alike_fit(preparer) else _count(preparer, config.seed, config.data.workers)
  dropped = sum(map(collections.Counter, hosts.gather_json(own)), collections.Counter())
  found = len(source) - dropped.total()
  if not found:
    raise ValueError(
      f"none of {len(source)} records of {source.name} gives an example:"
      f" {pipeline.tally(dropped)}; see --mode=inspect"
    )
  if dropped:
    logging.info("%d of %d records can be used: %s", found, len(source), pipeline.tally(dropped))
  if jax.process_index() == 0:
    told = {"usable": found, "records": len(source), "dropped": dropped, "identity": identity}
    # A restart may come while it is written, and an export may write it beside a run.
    new = file.with_name(f"{FILE}.{os.getpid()}")
    new.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    new.replace(file)
  return found


def _all_alike_fit(preparer: Preparer) -> bool:
  """Whether a source tells of few records to which all are alike, and these can be used."""
  alike = getattr(preparer.source, "alike", None)
  if alike is None:
    return False
  preparer = dataclasses.replace(preparer, source=alike())
  return not any(isinstance(preparer.read(i), Dropped) for i in range(len(preparer.source)))


def _count(preparer: Preparer, seed: int, workers: int) -> dict[str, int]:
  """Returns how many records of this process's share are dropped, by kind.

  Raises:
    ValueError: none of the first `pipeline.PATIENCE` can be used.
  """
  process, processes = jax.process_index(), jax.process_count()
  # Shuffled, so that the first are a random part of the set.
  records = grain.MapDataset.range(len(preparer.source)).shuffle(seed)[process::processes]
  dropped = collections.Counter()
  looks = pipeline.in_parallel(
    records.map(_Look(preparer)), workers, threads=os.cpu_count() or 1, ahead=_AHEAD
  )
  bar = tqdm.tqdm(looks, "records", len(records), delay=1, disable=process > 0)
  for seen, look in enumerate(bar, start=1):
    if not isinstance(look, Dropped):
      continue
    dropped[look.kind] += 1
    if seen == dropped.total() == pipeline.PATIENCE:
      raise ValueError(pipeline.nothing_usable(preparer.source, seen, dropped, look))
  return dropped


@dataclasses.dataclass(frozen=True)
class _Look:
  """Says why a record gives no example, or True where it does; a class, to travel to workers."""

  preparer: Preparer

  def __call__(self, index: int) -> Dropped | bool:
    read = self.preparer.read(index)
    return read if isinstance(read, Dropped) else True  # grain leaves out elements that are None


def _identity(config: ml_collections.ConfigDict, preparer: Preparer) -> str:
  """Returns a hash of all that decides which records can be used."""
  names = ("source", "path", "split", "name", "image_folder", "figures")
  data = config.data.to_dict()
  facts: dict[str, Any] = {name: data[name] for name in names}
  facts["path"] = os.path.abspath(data["path"]) if data["path"] else ""  # however it is spelt
  facts |= {"set": preparer.source.name, "records": len(preparer.source)}
  for field in dataclasses.fields(preparer):
    if field.name != "source":
      facts[f"preparer.{field.name}"] = getattr(preparer, field.name)
  return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _remembered(file: pathlib.Path, identity: str) -> int | None:
  """Returns the number that a file holds for a set; None where it holds none."""
  if jax.process_index() > 0 or not file.exists():
    return None
  try:
    told = json.loads(file.read_text(encoding="utf-8"))
    return int(told["usable"]) if told["identity"] == identity else None
  except (ValueError, KeyError, TypeError) as error:
    logging.warning("%s is damaged (%s), so records are counted again", file, error)
    return None
