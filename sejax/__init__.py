"""sejax: vision-language models that improve without labels, by judging themselves, in JAX."""

import sys

# Before anything that an older Python cannot read, so that this is all it says.
if sys.version_info < (3, 11):  # noqa: UP036
  sys.exit("sejax: Python %d.%d is too old; install Python 3.11 or newer" % sys.version_info[:2])  # noqa: UP031

__version__ = "0.2.0"
