"""The configuration of a run: defaults, presets, validation, saving, resuming, command line."""

from sejax.config.defaults import FEWER_WEIGHTS, LESS_MEMORY, default, flatten
from sejax.config.paths import OF_TRAINING, PATHS, expand_paths, with_local_inputs
from sejax.config.resume import (
  commits,
  holds_run,
  published,
  require_same,
  require_steps,
  save,
  save_commits,
  save_if_new,
)
from sejax.errors import ConfigError

__all__ = [
  "FEWER_WEIGHTS",
  "LESS_MEMORY",
  "OF_TRAINING",
  "PATHS",
  "ConfigError",
  "commits",
  "default",
  "expand_paths",
  "flatten",
  "holds_run",
  "published",
  "require_same",
  "require_steps",
  "save",
  "save_commits",
  "save_if_new",
  "with_local_inputs",
]
