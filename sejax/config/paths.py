"""The configuration fields that hold paths, and how these are resolved."""

import functools
import os
from collections.abc import MutableMapping, Sequence

import ml_collections

from sejax import storage
from sejax.errors import quoted
from sejax.models import hub
from sejax.parallel import processes

_DOWNLOAD_SECONDS = 6 * 3600.0  # that a host may take longer than another
# Fields whose value is a path: two spellings of the same path are the same value.
PATHS = (
  "data.image_folder",
  "data.path",
  "eval.sets_path",
  "eval.extractor",
  "eval.path",
  "eval.predictions",
  "rewards.recorded",
  "judge.path",
  "model.path",
)
# Those that training reads.
OF_TRAINING = ("model.path", "judge.path", "data.path", "data.image_folder", "eval.path")
# Those that may be names on the hub, and the field with the revision.
_MODELS = {"model.path": "model.revision", "judge.path": "judge.revision", "eval.extractor": None}
_DATA_SETS = {"data.path": "data.revision", "eval.path": "eval.revision"}


def expand_paths(config: ml_collections.ConfigDict) -> None:
  """Replaces a leading `~` by the home directory in all paths, in place.

  Raises:
    ValueError: as `storage.expand`.
  """
  for name in PATHS:
    _set(config, name, storage.expand(f"config.{name}", _get(config, name)))


def require_model(
  config: ml_collections.ConfigDict, wanted: str = "give a model directory, or its name on the hub"
) -> None:
  """Checks that `model.path` is set.

  Args:
    wanted: what to give, as the message says.

  Raises:
    ValueError: it is empty.
  """
  if not config.model.path:
    raise ValueError(f"config.model.path is empty; {wanted}")


def with_local_inputs(
  config: ml_collections.ConfigDict, names: Sequence[str], commits: MutableMapping[str, str]
) -> ml_collections.ConfigDict:
  """Replaces paths in buckets, and names on the hub, by those of local copies.

  A collective operation, which ends when every host has its copies.

  Args:
    names: fields that are read; others stay as they are. So does the Judge's where none is used.
    commits: of what the run has taken from the hub so far, see `hub.download`; more are added.

  Returns:
    A copy of the configuration.

  Raises:
    ValueError: a path cannot be read, or is neither a directory nor the name of a model on the hub.
  """
  config = config.copy_and_resolve_references()
  for name in names:
    if name == "judge.path" and not config.judge.use:
      continue
    path = _copy(config, name)
    if _is_on_hub(config, name, path):
      revision = (_MODELS | _DATA_SETS)[name]
      kind = "model" if name in _MODELS else "dataset"
      asked = _get(config, revision) if revision else ""
      if name == "data.path":  # Its folder is named after the commit.
        config.data.name = config.data.name or path.rpartition("/")[2]
      path = hub.download(f"config.{name}", path, asked, kind=kind, commits=commits)
    elif name in _MODELS:
      hub.require_directory(f"config.{name}", path)
    _set(config, name, path)
  processes.wait_for_all(_DOWNLOAD_SECONDS)
  return config


def _copy(config: ml_collections.ConfigDict, name: str) -> str:
  """Returns a local path with what the path in a field names, if that is in a bucket.

  Raises:
    ValueError: it cannot be read, or would take a whole bucket.
  """
  path, field = _get(config, name).rstrip("/"), f"config.{name}"
  folder, _, last = path.rpartition("/")
  if not storage.is_remote(path):
    return _get(config, name)
  is_data = name in _DATA_SETS
  if is_data and config.data.source == "tfds":  # Of all data sets that were built there, one.
    return os.path.dirname(storage.local_copy(field, f"{path}/{config.data.name}"))
  # Pictures are relative to the file of a data set, and lines that wait are beside a file.
  whole = is_data and config.data.source == "jsonl" and not config.data.image_folder
  if not whole and not (name == "eval.predictions" and storage.Path(f"{path}.parts").exists()):
    return storage.local_copy(field, path)
  if folder.count("/") < 3:
    raise ValueError(
      f"{field}={quoted(path)} lies at the top of its bucket, all of which would be copied; put it"
      " into a folder with its pictures, or give config.data.image_folder"
    )
  return os.path.join(storage.local_copy(field, folder), last)


def _is_on_hub(config: ml_collections.ConfigDict, name: str, path: str) -> bool:
  """Whether the path in a field is taken for a name on the hub."""
  is_parquet = name in _DATA_SETS and config.data.source == "parquet"
  return (name in _MODELS or is_parquet) and hub.is_name(path)


def _get(config: ml_collections.ConfigDict, name: str) -> str:
  return functools.reduce(ml_collections.ConfigDict.__getitem__, name.split("."), config)


def _set(config: ml_collections.ConfigDict, name: str, value: str) -> None:
  section, _, field = name.rpartition(".")
  _get(config, section)[field] = value
