"""Measures the study's starts and cells in processes, several at once, each on its own core."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from typing import Any

from experiments.study import cells, results
from sejax.storage import write_text

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_TRIES = 2  # of a start or a cell that fails


class Workers:
  """Measures starts and cells, each in a process, on one core per worker.

  One core, as sums over several are added in another order, which changes samples.
  `concurrent.futures.ProcessPoolExecutor` would keep a process, and its memory, for many cells.
  """

  def __init__(self, workdir: pathlib.Path, workers: int):
    self._workdir = workdir
    self._free = list(available_cores())[:workers]
    self._running: dict[str, subprocess.Popen] = {}
    self._mutex, self._stopped = threading.Lock(), False

  def pin(self) -> None:
    """Gives the calling thread, and the processes that it starts, a core of its own."""
    with self._mutex:
      core = self._free.pop()
    if hasattr(os, "sched_setaffinity"):  # Linux; elsewhere processes share the cores.
      os.sched_setaffinity(0, {core})

  def measure(self, name: str) -> dict[str, Any] | None:
    """Returns the result of a start or a cell; None if it failed, which is said, or was stopped."""
    file = self._workdir / "parts" / f"{name}.json"
    for attempt in range(1, _TRIES + 1):
      if file.exists():
        break
      status = self._run(name)
      if self._stopped:
        return None
      if status:
        log = self._workdir / "logs" / f"{name}.log"
        print(f"{name} failed, try {attempt} of {_TRIES}; see {log}", flush=True)
    if not file.exists():
      return None
    found = json.loads(file.read_text(encoding="utf-8"))
    results.require_conditions(name, found, file)
    return found

  def stop(self) -> None:
    """Ends all that runs, and waits; it goes on from its checkpoints another time."""
    with self._mutex:
      self._stopped = True
      for process in self._running.values():
        with contextlib.suppress(ProcessLookupError):  # It has just ended.
          os.killpg(process.pid, signal.SIGTERM)

  def _run(self, name: str) -> int:
    command = [sys.executable, "-m", "experiments.study.measure", str(self._workdir), name]
    environment = os.environ | {
      "JAX_COMPILATION_CACHE_DIR": str(self._workdir / "programs"),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1",
      "JAX_PLATFORMS": "cpu",
    }
    with (self._workdir / "logs" / f"{name}.log").open("a", encoding="utf-8") as log:
      with self._mutex:
        if self._stopped:
          return 1
        self._running[name] = process = subprocess.Popen(
          command,
          cwd=_ROOT,
          env=environment,
          stdout=log,
          stderr=log,
          start_new_session=True,  # Ctrl-C is for this process, which ends the others.
        )
      try:
        return process.wait()
      finally:
        with self._mutex:
          del self._running[name]


def available_cores() -> list[int]:
  """Returns the cores that this process may use."""
  if hasattr(os, "sched_getaffinity"):
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))


def run(workdir: pathlib.Path, names: list[str], workers: int, hours: float | None) -> bool:
  """Measures what has no result yet, and returns whether all have one.

  Args:
    names: starts and cells, in the order in which they are begun.
    workers: how many at once.
    hours: after which none is begun; None: no limit.

  Raises:
    ValueError: as `load`.
  """
  for folder in ("logs", "parts", "programs"):
    (workdir / folder).mkdir(exist_ok=True)
  known, began = results.load(workdir / results.FILE), time.monotonic()
  team, mutex = Workers(workdir, workers), threading.Lock()

  def work(name: str) -> bool:
    if hours is not None and time.monotonic() - began > 3600 * hours:
      return False
    found = team.measure(name)
    if found is None:
      return False
    with mutex:
      known["starts" if name in cells.STARTS else "cells"][name] = found
      write_text(workdir / results.FILE, results.to_json(known))
      print(f"{time.monotonic() - began:6.0f} s  {name}", flush=True)
    return True

  done = {*known["starts"], *known["cells"]}
  with concurrent.futures.ThreadPoolExecutor(workers, initializer=team.pin) as pool:
    futures = [pool.submit(work, name) for name in names if name not in done]
    try:
      whole = all([future.result() for future in futures])  # noqa: C419, waits for all
    except BaseException:  # Ctrl-C, or the disk is full.
      pool.shutdown(wait=False, cancel_futures=True)
      team.stop()
      raise
  return whole
