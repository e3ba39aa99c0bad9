"""Paths in a configuration: which fields hold them, and how they are read."""

import functools

import ml_collections

from sejax.config import workdir as workdir_lib
from sejax.errors import ConfigError
from sejax.models import hub

# Where files are: other spellings of one place are the same.
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
  """Puts the home directory in the place of `~` in all paths of a configuration.

  Raises:
    ConfigError: a path is of another machine.
  """
  for name in PATHS:
    *sections, field = name.split(".")
    section = functools.reduce(ml_collections.ConfigDict.__getitem__, sections, config)
    try:
      section[field] = workdir_lib.local_path(f"config.{name}", section[field])
    except ValueError as error:
      raise ConfigError(str(error)) from None


def with_local_models(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Returns the configuration with directories in the place of the hub's names, see `hub.local_directory`.

  Raises:
    ValueError: the model's path or the Judge's is neither a directory nor a name.
  """
  config = config.copy_and_resolve_references()
  for name in ("model", "judge"):
    try:
      config[name].path = hub.local_directory(config[name].path)
    except ValueError as error:
      raise ValueError(f"config.{name}.path={error}") from None
  return config
