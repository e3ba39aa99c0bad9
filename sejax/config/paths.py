"""The configuration fields that hold paths, and how these are resolved."""

import functools
import json
from collections.abc import Sequence

import ml_collections

from sejax import storage
from sejax.models import hub

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
  config: ml_collections.ConfigDict, names: Sequence[str]
) -> ml_collections.ConfigDict:
  """Replaces paths in buckets, and names on the hub, by those of local copies.

  Args:
    names: fields that are read; others stay as they are. So does the Judge's where none is used.

  Returns:
    A copy of the configuration. What comes from the hub has its commit as revision.

  Raises:
    ValueError: a path cannot be read, or is neither a directory nor the name of a model on the hub.
  """
  config = config.copy_and_resolve_references()
  for name in names:
    if name == "judge.path" and not config.judge.use:
      continue
    path = storage.local_copy(f"config.{name}", _get(config, name))
    if _is_on_hub(config, name, path):
      revision = (_MODELS | _DATA_SETS)[name]
      kind = "model" if name in _MODELS else "dataset"
      asked = _get(config, revision) if revision else ""
      snapshot = hub.download(f"config.{name}", path, asked, kind=kind)
      if revision:
        _set(config, revision, snapshot.revision)
      if name == "data.path":  # Its folder is named after the commit.
        config.data.name = config.data.name or path.rpartition("/")[2]
      path = snapshot.path
    elif name in _MODELS:
      hub.require_directory(f"config.{name}", path)
    _set(config, name, path)
  return config


def _is_on_hub(config: ml_collections.ConfigDict, name: str, path: str) -> bool:
  """Whether the path in a field is taken for a name on the hub."""
  is_parquet = name in _DATA_SETS and config.data.source == "parquet"
  return (name in _MODELS or is_parquet) and hub.is_name(path)


def keep_revisions(config: ml_collections.ConfigDict, workdir: storage.Path) -> None:
  """Sets revisions that are empty to those that a run in the workdir began with, in place."""
  file = workdir / "config.json"
  if not file.exists():
    return
  saved = ml_collections.ConfigDict(json.loads(file.read_bytes()))
  for name, revision in (_MODELS | _DATA_SETS | {"eval.sets_path": "eval.revision"}).items():
    # Earlier versions saved none.
    if revision is None or revision.split(".")[1] not in saved.get(revision.split(".")[0], {}):
      continue
    if not _get(config, revision) and _get(saved, name) == _get(config, name) != "":
      _set(config, revision, _get(saved, revision))


def with_revisions(
  config: ml_collections.ConfigDict, local: ml_collections.ConfigDict
) -> ml_collections.ConfigDict:
  """Returns a configuration with the revisions of one that `with_local_inputs` returned."""
  config = config.copy_and_resolve_references()
  for revision in filter(None, (_MODELS | _DATA_SETS).values()):
    _set(config, revision, _get(local, revision))
  return config


def _get(config: ml_collections.ConfigDict, name: str) -> str:
  return functools.reduce(ml_collections.ConfigDict.__getitem__, name.split("."), config)


def _set(config: ml_collections.ConfigDict, name: str, value: str) -> None:
  section, _, field = name.rpartition(".")
  _get(config, section)[field] = value
