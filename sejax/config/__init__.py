"""The configuration of a run: defaults, presets, validation, saving and resuming."""

from sejax.config.defaults import FEWER_WEIGHTS, LESS_MEMORY, default, flatten
from sejax.config.paths import (
  OF_TRAINING,
  PATHS,
  expand_paths,
  keep_revisions,
  with_local_inputs,
  with_revisions,
)
from sejax.config.resume import holds_run, require_same, save, save_if_new
from sejax.errors import ConfigError

__all__ = [
  "FEWER_WEIGHTS",
  "LESS_MEMORY",
  "OF_TRAINING",
  "PATHS",
  "ConfigError",
  "default",
  "expand_paths",
  "flatten",
  "holds_run",
  "keep_revisions",
  "require_same",
  "save",
  "save_if_new",
  "with_local_inputs",
  "with_revisions",
]
