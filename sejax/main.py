"""The command line: `sejax` or `python -m sejax.main`; `--help` lists modes, flags and statuses.

    sejax --config=FILE --workdir=DIR [--config.a.b=x]

`flags` defines the flags and the modes, `config.arguments` parses them, and `config.launch` runs a
mode.
"""

import os
import sys
from collections.abc import Sequence

from sejax import flags
from sejax.text import terminal


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a command and returns its exit status; an unexpected error is raised.

  Args:
    argv: the name of the program, and its arguments; None: those of this process.
  """
  argv = sys.argv if argv is None else argv
  terminal.prepare()
  if flags.asks_for_help(argv[1:]):
    print(flags.help_text(), end="")
    return 0
  from sejax.config import launch  # It imports jax, for which help need not wait.

  return launch.launch(argv)


def command() -> None:
  """Runs the command of this process and exits with its status; unexpected errors are printed."""
  # As with `python -m`, so that reward functions are found beside what the user works on.
  if os.getcwd() not in sys.path:
    sys.path.insert(0, os.getcwd())
  if flags.asks_for_help(sys.argv[1:]):
    sys.exit(main())
  from sejax.config import launch

  launch.exit_with(main)


if __name__ == "__main__":
  command()
