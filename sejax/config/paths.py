"""The configuration fields that hold paths, and how these are resolved."""

import functools

import ml_collections

from sejax.config import workdir as workdir_lib
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
    ValueError: as `workdir.local_path`.
  """
  for name in PATHS:
    *sections, field = name.split(".")
    section = functools.reduce(ml_collections.ConfigDict.__getitem__, sections, config)
    section[field] = workdir_lib.local_path(f"config.{name}", section[field])


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


def with_local_models(
  config: ml_collections.ConfigDict, *, judged: bool
) -> ml_collections.ConfigDict:
  """Replaces hub names in `model.path` and `judge.path` by local directories.

  Args:
    judged: whether there is a Judge; without one, its model is not downloaded.

  Returns:
    A copy of the configuration, see `hub.local_directory`.

  Raises:
    ValueError: a path is neither a directory nor the name of a model on the hub.
  """
  config = config.copy_and_resolve_references()
  for name in ("model", "judge") if judged else ("model",):
    config[name].path = hub.local_directory(f"config.{name}.path", config[name].path)
  return config
