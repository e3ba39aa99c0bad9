"""The configuration fields that hold paths, and how these are resolved."""

import functools
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


def expand_paths(config: ml_collections.ConfigDict) -> None:
  """Replaces a leading `~` by the home directory in all paths, in place.

  Raises:
    ValueError: as `storage.expand`.
  """
  for name in PATHS:
    *sections, field = name.split(".")
    section = functools.reduce(ml_collections.ConfigDict.__getitem__, sections, config)
    section[field] = storage.expand(f"config.{name}", section[field])


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


# Paths that training reads.
OF_TRAINING = ("model.path", "judge.path", "data.path", "data.image_folder", "eval.path")
_MODELS = ("model.path", "judge.path", "eval.extractor")


def with_local_inputs(
  config: ml_collections.ConfigDict, names: Sequence[str]
) -> ml_collections.ConfigDict:
  """Replaces paths in buckets, and names of models on the hub, by those of local copies.

  Args:
    names: fields that are read; others may stay as they are. The Judge's model is not copied where
      none is used.

  Returns:
    A copy of the configuration, see `hub.local_directory` and `storage.local_copy`.

  Raises:
    ValueError: a path cannot be read, or is neither a directory nor the name of a model on the hub.
  """
  config = config.copy_and_resolve_references()
  for name in names:
    if name == "judge.path" and not config.judge.use:
      continue
    section, field = name.split(".")
    path = storage.local_copy(f"config.{name}", config[section][field])
    config[section][field] = (
      hub.local_directory(f"config.{name}", path) if name in _MODELS else path
    )
  return config
