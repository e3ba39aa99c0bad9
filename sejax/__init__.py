"""sejax: vision-language models that improve without labels, by judging themselves, in JAX.

For scripts there are five functions, see `sejax.api`:

- `load_model`: loads a model from a directory or the hub;
- `sample`: samples several answers to each of some questions;
- `vote_and_judge`: what the method makes of one question;
- `reward`: rewards and advantages of given texts;
- `grade`: which answers are right.
"""

import importlib
import sys
from typing import TYPE_CHECKING

# Before anything that an older Python cannot read, so that this is all it says.
if sys.version_info < (3, 11):  # noqa: UP036
  sys.exit("sejax: Python %d.%d is too old; install Python 3.11 or newer" % sys.version_info[:2])  # noqa: UP031

__version__ = "0.2.0"

if TYPE_CHECKING:
  from sejax.api import LoadedModel, grade, load_model, reward, sample, vote_and_judge

__all__ = [
  "LoadedModel",
  "__version__",
  "grade",
  "load_model",
  "reward",
  "sample",
  "vote_and_judge",
]


def __dir__() -> list[str]:
  return sorted({*globals(), *__all__})


def __getattr__(name: str) -> object:
  """Imports a function of `sejax.api` when it is first used, as that takes seconds."""
  if name in __all__:
    return getattr(importlib.import_module("sejax.api"), name)
  raise AttributeError(f"module 'sejax' has no attribute '{name}'")
