"""When does label-free training help, and when does it collapse? The study, in one command.

    python -m experiments.study.run --workdir=runs/study [--hours=2] [--workers=2]
    python -m experiments.study.run --plan
    python -m experiments.study.run --summary [--workdir=runs/study]

Measures the starts and runs the cells that `WORKDIR/results.json` does not have yet, several at
once, each on a core of its own, and adds each result to it. Rerun the command to resume; a copy of
`results.json` in another workdir goes on there. At the end it writes `table.md` and, with
matplotlib (extra `notebook`), `map.svg` and `dynamics.svg`. `--plan` prints what is to run and how
long that takes, `--summary` every number of the study's page; without a workdir, both read the
committed results.
"""

import pathlib
import signal

import jax
from absl import app, flags, logging

from experiments.study import cells, plots, summary, workers
from experiments.study.results import FILE, Study, load
from sejax import storage
from sejax.parallel.lock import Lock
from sejax.storage import write_text

_HERE = pathlib.Path(__file__).resolve().parent

_WORKDIR = flags.DEFINE_string("workdir", None, "Of the runs and `results.json`.")
_HOURS = flags.DEFINE_float("hours", None, "Begin nothing after so long; None: run everything.")
_WORKERS = flags.DEFINE_integer("workers", 2, "Parts measured at once.", lower_bound=1)
_CELLS = flags.DEFINE_list("cells", None, "Only these cells, by name; None: all.")
_PLAN = flags.DEFINE_bool("plan", False, "Print what is to run, and stop.")
_SUMMARY = flags.DEFINE_bool("summary", False, "Print what is known, and stop.")


def main(argv: list[str]) -> int:
  """Runs, or says what is known."""
  del argv
  logging.set_verbosity(logging.WARNING)  # jax tells of every backend that is not there
  workdir = pathlib.Path(_WORKDIR.value).resolve() if _WORKDIR.value else _HERE
  if _PLAN.value or _SUMMARY.value:
    found = load(workdir / FILE)
    lines = summary.plan(found) if _PLAN.value else summary.lines(Study.of(found))
    print("\n".join(lines))
    return 0
  if not _WORKDIR.value:
    raise app.UsageError("--workdir is needed to run the study")
  if _WORKERS.value > (cores := len(workers.available_cores())):
    raise app.UsageError(f"--workers={_WORKERS.value} must be at most {cores}, the number of cores")
  names = [cell.name for cell in cells.cells()]
  if _CELLS.value and (unknown := set(_CELLS.value) - set(names)):
    raise app.UsageError(f"no cell is named {', '.join(sorted(unknown))}; --plan lists them")
  names = [*cells.STARTS, *(name for name in names if name in (_CELLS.value or names))]
  jax.config.update("jax_platforms", "cpu")  # All runs are on the CPU, wherever they are.
  for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.default_int_handler)
  with Lock(storage.Path(workdir)):
    whole = workers.run(workdir, names, _WORKERS.value, _HOURS.value)
  study = Study.of(load(workdir / FILE))
  write_text(workdir / "table.md", summary.table(study))
  plots.draw(workdir, study)
  print("\n".join(summary.lines(study)))
  return 0 if whole else 1


if __name__ == "__main__":
  app.run(main)
