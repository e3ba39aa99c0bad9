"""Fields and modules that were renamed since earlier versions.

Saved `config.json` files are read under the new names. An old name on the command line or in a
configuration file is refused with a message that gives the new one. An entry stays as long as runs
of its version can be resumed, see the changelog in `sejax/README.md`.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Any

from sejax.config.defaults import default, flatten

# New names of configuration fields by their old names.
FIELDS = {
  "eval.data": "eval.sets_path",
  "eval.problems": "eval.num_problems",
  "groups": "rewards.recorded",
  "log.groups": "log.sample_groups",
  "log.profile": "log.profile_steps",
  "optimizer.first_moment": "optimizer.first_moment_dtype",
  "optimizer.warmup": "optimizer.warmup_steps",
  "sampling.groups": "actor.max_concurrent_rows",
  "sampling.max_concurrent_prompts": "actor.max_concurrent_rows",
  "sampling.run": "sampling.decode_steps",
  "train.reward_function": "rewards.function",
}

# Old fields that counted prompts where the new ones count rows, one for each trajectory.
_IN_PROMPTS = ("sampling.groups", "sampling.max_concurrent_prompts")

# New names of modules that configuration files import, by their old names.
MODULES = {
  "sejax.presets": "sejax.config.presets",
  "sejax.quoting": "sejax.errors",
  "sejax.scoring": "sejax.rewards.reading",
  "sejax.validation": "sejax.config.validation",
}


def upgrade(values: Mapping[str, Any]) -> dict[str, Any]:
  """Renames the fields of a configuration of an earlier version.

  Args:
    values: values by dotted name, old or new.
  """
  values = dict(values)
  for name in _IN_PROMPTS:
    if values.get(name) is not None:
      values[name] *= values.get("group_size", default().group_size)
  return {FIELDS.get(name, name): value for name, value in values.items()}


def explain(name: str) -> str:
  """Returns the second half of the error about an unknown field: its new or the closest name."""
  if name in FIELDS:
    unit = ", which counts trajectories: multiply by group_size" if name in _IN_PROMPTS else ""
    return f"is now config.{FIELDS[name]}{unit}"
  known = list(flatten(default()))
  leaf = name.rpartition(".")[2]
  same_leaf = [field for field in known if field.rpartition(".")[2] == leaf]
  # Where the section is misspelt, the field of that name in the section with the closest name.
  meant = difflib.get_close_matches(name, same_leaf or known, 1) or same_leaf[:1]
  hint = f"; did you mean config.{meant[0]}?" if meant else "; see sejax/config/defaults.py"
  return f"is not a field of the configuration{hint}"


def explain_import(message: str) -> str:
  """Returns a hint to append to an import error's message; empty if no module was renamed."""
  for old, new in MODULES.items():
    leaf = re.escape(old.removeprefix("sejax."))
    if re.search(rf"\bsejax\.{leaf}\b|import name '{leaf}' from 'sejax'", message):
      return f"; {old} is now {new}"
  return ""
