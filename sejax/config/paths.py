"""Paths in a configuration: which fields hold them, and how they are read."""

import functools

import ml_collections

from sejax.config import workdir as workdir_lib
from sejax.errors import ConfigError

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
