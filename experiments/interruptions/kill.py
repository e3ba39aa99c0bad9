"""Kills the main job at random moments, goes on each time, and compares with a run left in peace.

    python -m experiments.interruptions.kill --runs_dir=runs/interruptions [--kills=20]

Signals are SIGKILL at any moment of the run, SIGKILL while a checkpoint is being written, SIGTERM,
SIGINT (Ctrl-C) and SIGHUP, in turn. Whatever a run leaves must have the same bits: metrics, sample
groups, held-out problems, the exported model, and parameters and moments of the last checkpoint.
Ends with one JSON line; exit status 1 where a run differs.
"""

import hashlib
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import app, flags

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_WORKDIR = flags.DEFINE_string("runs_dir", None, "Where the runs are written; must be new.")
_KILLS = flags.DEFINE_integer("kills", 20, "How often a run is interrupted.", lower_bound=1)
_SEED = flags.DEFINE_integer("kill_seed", 0, "Of the moments.")

# The main job, short, with a checkpoint after every step, so that there are many to be caught in.
STEPS = 6
KINDS = ("SIGKILL", "SIGKILL while saving", "SIGTERM", "SIGINT", "SIGHUP")
_CHANGES = {
  "batch_size": 4,
  "mini_batch_size": 2,
  "group_size": 4,
  "train.micro_batch_size": 2,
  "train.steps": STEPS,
  "model.unroll": False,  # quicker to compile
  "optimizer.learning_rate": 1e-3,
  "eval.num_problems": 4,
  "eval.batch_size": 4,
  "checkpoint.every": 1,
}


def start(workdir: pathlib.Path, **options: Any) -> subprocess.Popen:
  """Starts the main job, or goes on with it.

  Args:
    workdir: of the run; what it prints is beside it.
    options: of `subprocess.Popen`; by default all that it prints goes to the log.
  """
  command = [sys.executable, "-m", "sejax.main", f"--config={_ROOT / 'configs' / 'tiny.py'}"]
  command += [f"--config.{name}={value}" for name, value in _CHANGES.items()]
  # Without XLA's own caches, which are of GPUs, what one run has compiled is found by the next in
  # a copy of its folder too: their path is a part of each program's key.
  environment = os.environ | {"JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none"}
  with (workdir.parent / f"{workdir.name}.log").open("ab") as log:
    return subprocess.Popen(
      [*command, f"--workdir={workdir}"],
      **({"stdout": log, "stderr": subprocess.STDOUT, "cwd": _ROOT, "env": environment} | options),
    )


def finish(workdir: pathlib.Path) -> float:
  """Lets a run come to its end; returns its seconds.

  Raises:
    RuntimeError: it failed.
  """
  began = time.monotonic()
  process = start(workdir)
  if process.wait():
    raise RuntimeError(f"the run in {workdir} ended with status {process.returncode}")
  return time.monotonic() - began


def interrupt(workdir: pathlib.Path, number: signal.Signals, due: Callable[[], bool]) -> bool:
  """Starts or goes on with a run, and signals as soon as `due`; returns whether it was running.

  Raises:
    RuntimeError: it failed by itself, or after a signal that lets it finish a step.
  """
  process = start(workdir)
  while process.poll() is None and not due():
    time.sleep(0.002)
  caught = process.poll() is None
  process.send_signal(number)
  status = process.wait()
  # Before its first step a process ends at once.
  if status not in ((0, -number, 128 + number) if caught else (0,)):
    raise RuntimeError(f"the run in {workdir} ended with status {status}")
  return caught


def after(seconds: float) -> Callable[[], bool]:
  """Due so many seconds from now."""
  end = time.monotonic() + seconds
  return lambda: time.monotonic() > end


def while_saving(workdir: pathlib.Path) -> Callable[[], bool]:
  """Due as soon as a checkpoint is being written by the process that is started next.

  What an earlier one left unfinished does not count.
  """

  def unfinished() -> set[pathlib.Path]:
    return set((workdir / "checkpoints").glob("*orbax-checkpoint-tmp*"))

  old = unfinished()
  return lambda: bool(unfinished() - old)


def results(workdir: pathlib.Path) -> dict[str, str]:
  """Returns digests of all that a finished run must leave the same."""
  summary = json.loads((workdir / "summary.json").read_text(encoding="utf-8"))
  files = ("metrics.jsonl", "groups.jsonl", "model/model.safetensors")
  found = {name: _digest((workdir / name).read_bytes()) for name in files}
  found["held-out"] = _digest(json.dumps([summary["before"], summary["after"]]).encode())
  state = ocp.StandardCheckpointer().restore(workdir / "checkpoints" / str(STEPS) / "state")
  arrays = [np.asarray(x).tobytes() for x in jax.tree.leaves(state)]
  found["checkpoint"] = _digest(b"".join(arrays))
  return found


def _digest(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()[:16]


def logged(workdir: pathlib.Path) -> int:
  """Returns the number of steps in the metrics."""
  file = workdir / "metrics.jsonl"
  return file.read_bytes().count(b"\n") if file.exists() else 0


def disturbed(workdir: pathlib.Path, kinds: Iterator[str], rng: random.Random, most: float) -> int:
  """Makes a run with interruptions, until it ends or there are no more; returns their number.

  Args:
    workdir: of the run.
    kinds: of interruptions to come.
    rng: of moments.
    most: seconds of a run, within which moments are drawn.
  """
  done = 0
  for kind in kinds:
    began = time.monotonic()
    saving = kind == "SIGKILL while saving"
    due = while_saving(workdir) if saving else after(rng.uniform(0, most))
    if not interrupt(workdir, signal.Signals[kind.split()[0]], due):
      return done
    done += 1
    print(
      f"{kind:<21} after {time.monotonic() - began:5.1f} s: {logged(workdir)} steps", flush=True
    )
  finish(workdir)
  return done


def main(argv: list[str]) -> None:
  """Interrupts, compares and prints."""
  del argv
  root, rng = pathlib.Path(_WORKDIR.value).resolve(), random.Random(_SEED.value)
  root.mkdir(parents=True)
  reference, cache = root / "reference", "compilation_cache"
  finish(reference)
  expected = results(reference)
  print(f"undisturbed: {expected}", flush=True)

  def compare(name: str, kinds: Iterator[str], most: float) -> tuple[int, float, bool]:
    workdir, began = root / name, time.monotonic()
    shutil.copytree(reference / cache, workdir / cache)
    done = disturbed(workdir, kinds, rng, most)
    found = results(workdir)
    print(f"{name}: {'the same bits' if found == expected else found}", flush=True)
    return done, time.monotonic() - began, found == expected

  _, most, same = compare("again", iter(()), 0.0)
  left, runs = _KILLS.value, 0
  while left:
    kinds = itertools.islice(itertools.cycle(KINDS), left)
    done, _, equal = compare(f"run_{runs}", kinds, most)
    left, runs, same = left - done, runs + 1, same and equal
  print(json.dumps({"interruptions": _KILLS.value, "runs": runs, "same": same}))
  sys.exit(not same)


if __name__ == "__main__":
  flags.mark_flag_as_required("runs_dir")
  app.run(main)
