"""Writes the logs of a run: JSON lines, TensorBoard event files and Weights & Biases.

There are three files of JSON lines in the workdir. Each line is an object with a `step`:

- `metrics.jsonl`: one line per step; the same in every repetition of a configuration, unless
  grading ran out of time (`undecided_grades`);
- `timing.jsonl`: one line per step; seconds, tokens per second and whatever else depends on the
  machine;
- `groups.jsonl`: some groups of a step with their texts, one line per group, for the report.

See `sejax.monitoring.metrics` for the fields of the first two, `sejax.reports.training` for those
of the third.

A line has been passed to the operating system when its call returns. The lines of a step must be
written before its checkpoint, so that a resumed run finds all lines up to its first step.
"""

import contextlib
import importlib
import json
import math
import pathlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections
from absl import logging

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
    workdir: pathlib.Path,
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
    if self._events:
      self._events.close()
    if self._wandb_run:
      self._wandb_run.finish(exit_code=int(error[0] is not None))

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
    for name in (METRICS, TIMING, GROUPS):
      _truncate_after(self._workdir / name, step)
    if self._log.tensorboard:
      self._events = events.EventFile(self._workdir / EVENTS, step + 1)

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
      with (self._workdir / name).open("ab") as file:
        file.write(text.encode())

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
      id_file.write_text(uuid.uuid4().hex + "\n", encoding="utf-8")
    run = self._wandb.init(
      project=self._log.wandb_project,
      id=id_file.read_text(encoding="utf-8").strip(),
      resume="allow",
      dir=str(self._workdir),
      config=self._hyperparameters,
    )
    run.define_metric("*", step_metric="step")
    return run


def read(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  """Yields the records of a log file; none if the file does not exist.

  A last line without a line break is left out: it is being written, or its writer was killed.

  Raises:
    ValueError: another line is not a JSON object with a step.
  """
  return (record for record, _ in _lines(path))


def _lines(path: pathlib.Path) -> Iterator[tuple[dict[str, Any], int]]:
  """Yields each record with the byte offset of the end of its line."""
  if not path.exists():
    return
  end = 0
  with path.open("rb") as file:
    for number, line in enumerate(file, 1):
      if not line.endswith(b"\n"):
        return
      end += len(line)
      try:
        record = json.loads(line)
        is_valid = isinstance(record["step"], int)
      except (ValueError, TypeError, KeyError, IndexError):
        is_valid = False
      if not is_valid:
        raise ValueError(f"{path}:{number} is not a JSON object with a step; remove the line")
      yield record, end


def _truncate_after(path: pathlib.Path, step: int) -> None:
  """Truncates a log file before the first line of a later step."""
  size = 0
  for record, end in _lines(path):
    if record["step"] > step:
      break
    size = end
  if path.exists():
    with path.open("r+b") as file:
      file.truncate(size)


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
