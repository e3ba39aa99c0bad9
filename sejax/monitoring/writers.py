"""Writes the logs of a run: JSON lines, TensorBoard event files and Weights & Biases.

There are three files of JSON lines in the workdir. Each line is an object with a `step`:

- `metrics.jsonl`: one line per step; the same in every repetition of a configuration, unless
  grading ran out of time (`undecided_grades`);
- `timing.jsonl`: one line per step; seconds, tokens per second and whatever else depends on the
  machine;
- `groups.jsonl`: some groups of a step with their texts, one line per group, for the report.

See `sejax.monitoring.metrics` for the fields of the first two, `sejax.reports.training` for those
of the third.

A line has been passed to the operating system when its call returns. In a bucket, lines are written
by the first call that comes `storage.lines.INTERVAL` after the last write, by `Logs.flush`, and at
the run's end; a killed run loses those that wait. The lines of a step must be written before its
checkpoint, see `Logs.flush`, so that a resumed run finds all lines up to its first step.
"""

import contextlib
import importlib
import itertools
import json
import math
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections
from absl import logging

from sejax import storage
from sejax.errors import one_line, quoted
from sejax.monitoring import events

METRICS, TIMING, GROUPS = "metrics.jsonl", "timing.jsonl", "groups.jsonl"
EVENTS = "tensorboard"  # TensorBoard's --logdir


class Logs:
  """Writes the logs of a run; a context manager. Calls on processes other than 0 do nothing.

  `resume` must be called before anything is logged.
  """

  def __init__(
    self,
    workdir: storage.Path,
    log: ml_collections.ConfigDict,
    hyperparameters: Mapping[str, Any],
  ):
    """Starts the Weights & Biases run if `log.wandb_project` is set; opens no files yet.

    Args:
      workdir: an existing directory.
      log: the configuration's section, which selects the logs.
      hyperparameters: the whole configuration as plain values, which Weights & Biases stores.

    Raises:
      ValueError: Weights & Biases is not installed (on every process), or refuses access.
    """
    self._workdir = workdir
    self._files = {name: storage.LineFile(workdir / name) for name in (METRICS, TIMING, GROUPS)}
    self._log, self._hyperparameters = log, hyperparameters
    self._wandb = _import_wandb(log.wandb_project)
    self._is_writer = jax.process_index() == 0
    self._resumed = False
    self._events: events.EventFile | None = None
    self._wandb_run: Any = None
    if self._wandb and self._is_writer:
      with self._wandb_errors():
        self._wandb_run = self._start_wandb_run()

  def __enter__(self) -> "Logs":
    return self

  def __exit__(self, *error: object) -> None:
    with contextlib.ExitStack() as stack:  # All are closed, also if one raises; the last first.
      if self._wandb_run:
        stack.callback(self._wandb_run.finish, exit_code=int(error[0] is not None))
      if self._events:
        stack.callback(self._events.close)
      for file in self._files.values():
        stack.callback(file.close)

  def resume(self, step: int) -> None:
    """Removes the lines of later steps, and an incomplete last line of a killed run.

    Args:
      step: index of the last completed step; -1 for a new run.

    Raises:
      ValueError: a line other than the last is not a JSON object with a step.
    """
    self._resumed = True
    if not self._is_writer:
      return
    for file in self._files.values():
      _truncate_after(file, step)
    if self._log.tensorboard:
      self._events = events.EventFile(self._workdir / EVENTS, step + 1)

  def flush(self) -> None:
    """Writes what waits to be written to a bucket; to be called before a checkpoint is saved."""
    for file in self._files.values():
      file.flush()
    if self._events:
      self._events.flush()

  def metrics(self, step: int, values: Mapping[str, Any]) -> None:
    """Logs scalars by name; NaN and infinities become null in the JSON line.

    Raises:
      RuntimeError: `resume` was not called before; the same holds for `timing` and `groups`.
    """
    self._scalars(METRICS, step, values)

  def timing(self, step: int, values: Mapping[str, Any]) -> None:
    """Logs scalars that depend on the machine, otherwise as `metrics` does."""
    self._scalars(TIMING, step, values)

  def groups(self, step: int, groups: Sequence[Mapping[str, Any]]) -> None:
    """Logs groups of a step, with the fields that `sejax.reports.training` describes."""
    self._append(GROUPS, [{"step": step} | dict(group) for group in groups])

  def _scalars(self, name: str, step: int, values: Mapping[str, Any]) -> None:
    scalars = {key: float(value) for key, value in values.items()}
    self._append(name, [{"step": step} | scalars])
    if self._events:
      self._events.write(step, scalars)
    if self._wandb_run:
      try:
        # As a value, not as the `step` argument: W&B drops steps below the last one that it has,
        # and a resumed run logs some steps again.
        self._wandb_run.log({"step": step} | scalars)
      except Exception as error:  # All metrics are in the JSON lines, so the run can go on.
        logging.warning("Weights & Biases gets no more metrics of this process: %s", error)
        self._wandb_run = None

  def _append(self, name: str, records: Sequence[dict[str, Any]]) -> None:
    if not self._resumed:
      raise RuntimeError("Logs.resume must be called before anything is logged")
    if self._is_writer:
      text = "".join(json.dumps(_json_value(record), allow_nan=False) + "\n" for record in records)
      self._files[name].append(text)

  @contextlib.contextmanager
  def _wandb_errors(self) -> Iterator[None]:
    """Turns any exception of Weights & Biases into a ValueError of one line."""
    try:
      yield
    except Exception as error:
      raise ValueError(
        f"config.log.wandb_project={quoted(self._log.wandb_project)} cannot be logged to"
        f" ({one_line(error)}); run `wandb login`, set WANDB_MODE=offline, or"
        " leave the project empty"
      ) from None

  def _start_wandb_run(self) -> Any:
    """Starts a Weights & Biases run, or continues that of the same workdir."""
    id_file = self._workdir / "wandb_id.txt"
    if not id_file.exists():
      storage.write_text(id_file, uuid.uuid4().hex + "\n")
    run = self._wandb.init(
      project=self._log.wandb_project,
      id=id_file.read_text(encoding="utf-8").strip(),
      resume="allow",
      dir=tempfile.mkdtemp() if storage.is_remote(self._workdir) else str(self._workdir),
      config=self._hyperparameters,
    )
    run.define_metric("*", step_metric="step")
    return run


def read(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
  """Yields the records of a log file in the order of their steps; none if there is no file.

  A last line without a line break is left out: it is being written, or its writer was killed.

  Raises:
    ValueError: another line is not a JSON object with a step.
  """
  return (record for record, _ in _lines(storage.LineFile(path)))


def _lines(file: storage.LineFile) -> Iterator[tuple[dict[str, Any], bytes]]:
  """Yields each record with its line."""
  for place, line in file.read():
    if not line.endswith(b"\n"):
      continue
    try:
      record = json.loads(line)
      is_valid = isinstance(record["step"], int)
    except (ValueError, TypeError, KeyError, IndexError):
      is_valid = False
    if not is_valid:
      raise ValueError(f"{place} is not a JSON object with a step; remove the line")
    yield record, line


def _truncate_after(file: storage.LineFile, step: int) -> None:
  """Truncates a log file before the first line of a later step."""
  if file.exists():
    lines = itertools.takewhile(lambda item: item[0]["step"] <= step, _lines(file))
    file.rewrite(line for _, line in lines)


def _json_value(value: Any) -> Any:
  """Converts a value to strict JSON: arrays become lists, NaN and infinities become null."""
  if hasattr(value, "tolist"):
    value = value.tolist()
  if isinstance(value, Mapping):
    return {key: _json_value(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_json_value(item) for item in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def _import_wandb(project: str) -> Any:
  """Returns the module wandb; None if no project is configured."""
  if not project:
    return None
  try:
    return importlib.import_module("wandb")
  except ImportError:
    raise ValueError(
      f"config.log.wandb_project={quoted(project)} needs the package wandb, which is not installed;"
      " run `pip install wandb`, or leave the project empty"
    ) from None
