"""What a run leaves behind while it goes: JSON lines, TensorBoard event files, Weights & Biases.

Three files of JSON lines in the workdir, a line per step (a line per group in the last), every line
an object with its `step`:

- `metrics.jsonl`: what the run's configuration decides, the same in every repetition, unless
  grading ran out of time (`undecided_grades`);
- `timing.jsonl`: seconds, tokens per second and whatever else depends on the machine;
- `groups.jsonl`: some of the step's groups with their texts, for the report.

`sejax.monitoring.metrics` explains the fields of the first two, `sejax.reports.training` those of
the third.

A line is on its way to the disk when its call returns. A step's lines are to be written before its
checkpoint is, so that a restart finds every line up to the step that it continues from.
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

from sejax.errors import quoted, said
from sejax.monitoring import events

METRICS, TIMING, GROUPS = "metrics.jsonl", "timing.jsonl", "groups.jsonl"
EVENTS = "tensorboard"  # the directory to give to TensorBoard


class Logs:
  """Writes one run's logs; a context manager. Only process 0 writes, the others' calls do nothing.

  `resume` says where the run starts or continues, and comes before anything is written.
  """

  def __init__(self, workdir: pathlib.Path, config: ml_collections.ConfigDict):
    """Opens the run of Weights & Biases, if that is wanted, and no file yet.

    Args:
      workdir: the run's directory, which exists.
      config: the run's configuration; `log` says where metrics go beside the JSON lines.

    Raises:
      ValueError: Weights & Biases is wanted and not installed, on every process; or does not let
        this user in.
    """
    self._workdir = workdir
    self._config = config
    self._wandb = _import_wandb(config.log.wandb_project)
    self._writes = jax.process_index() == 0
    self._resumed = False
    self._events: events.EventFile | None = None
    self._tracked: Any = None
    if self._wandb and self._writes:
      with self._wandb_errors():
        self._tracked = self._track()

  def __enter__(self) -> "Logs":
    return self

  def __exit__(self, *error: object) -> None:
    if self._events:
      self._events.close()
    if self._tracked:
      self._tracked.finish(exit_code=int(error[0] is not None))

  def resume(self, step: int) -> None:
    """Drops whatever was written of later steps, and a last line that was torn by a kill.

    Args:
      step: the last step that the restored checkpoint contains; -1 where the run starts anew.

    Raises:
      ValueError: a line other than the last is no JSON object with a step.
    """
    self._resumed = True
    if not self._writes:
      return
    for name in (METRICS, TIMING, GROUPS):
      _cut(self._workdir / name, step)
    if self._config.log.tensorboard:
      self._events = events.EventFile(self._workdir / EVENTS, step + 1)

  def metrics(self, step: int, values: Mapping[str, Any]) -> None:
    """Logs scalars by name; those that are not finite are null in the JSON line.

    Raises:
      RuntimeError: `resume` was not called; so in `timing` and `groups`.
    """
    self._scalars(METRICS, step, values)

  def timing(self, step: int, values: Mapping[str, Any]) -> None:
    """Logs scalars that differ from one repetition to the next, as `metrics` does."""
    self._scalars(TIMING, step, values)

  def groups(self, step: int, groups: Sequence[Mapping[str, Any]]) -> None:
    """Logs groups of a step, see `sejax.reports.training` for their fields; `step` is added."""
    self._append(GROUPS, [{"step": step} | dict(group) for group in groups])

  def _scalars(self, name: str, step: int, values: Mapping[str, Any]) -> None:
    scalars = {key: float(value) for key, value in values.items()}
    self._append(name, [{"step": step} | scalars])
    if self._events:
      self._events.write(step, scalars)
    if self._tracked:
      try:
        # Not as its own step argument, below which it drops what a restart writes again.
        self._tracked.log({"step": step} | scalars)
      except Exception as error:  # The JSON lines have it all; a run is worth more than its copy.
        logging.warning("Weights & Biases gets no more metrics of this process: %s", error)
        self._tracked = None

  def _append(self, name: str, records: Sequence[dict[str, Any]]) -> None:
    if not self._resumed:
      raise RuntimeError("Logs.resume comes before anything is logged")
    if self._writes:
      text = "".join(json.dumps(_plain(record), allow_nan=False) + "\n" for record in records)
      with (self._workdir / name).open("ab") as file:
        file.write(text.encode())

  @contextlib.contextmanager
  def _wandb_errors(self) -> Iterator[None]:
    """Says in one line, whatever class it is of, why Weights & Biases cannot be used."""
    try:
      yield
    except Exception as error:
      raise ValueError(
        f"config.log.wandb_project={quoted(self._config.log.wandb_project)} cannot be logged to"
        f" ({said(error)}); run `wandb login`, set WANDB_MODE=offline, or"
        " leave the project empty"
      ) from None

  def _track(self) -> Any:
    """Opens the run of Weights & Biases, the same one after a restart."""
    identity = self._workdir / "wandb_id.txt"
    if not identity.exists():
      identity.write_text(uuid.uuid4().hex + "\n", encoding="utf-8")
    run = self._wandb.init(
      project=self._config.log.wandb_project,
      id=identity.read_text(encoding="utf-8").strip(),
      resume="allow",
      dir=str(self._workdir),
      config=self._config.to_dict(),
    )
    run.define_metric("*", step_metric="step")
    return run


def read(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  """Yields the records of a file of JSON lines, none where there is no file.

  Raises:
    ValueError: naming the file and the line that is no JSON object with a step. A last line without
      its end is left out: it is being written, or its writer was killed.
  """
  return (record for record, _ in _lines(path))


def _lines(path: pathlib.Path) -> Iterator[tuple[dict[str, Any], int]]:
  """Yields each record with the place in the file where its line ends."""
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
        whole = isinstance(record["step"], int)
      except (ValueError, TypeError, KeyError, IndexError):
        whole = False
      if not whole:
        raise ValueError(f"{path}:{number} is no JSON object with a step; remove the line")
      yield record, end


def _cut(path: pathlib.Path, step: int) -> None:
  """Shortens a file to the lines before the first of a later step."""
  keep = 0
  for record, end in _lines(path):
    if record["step"] > step:
      break
    keep = end
  if path.exists():
    with path.open("r+b") as file:
      file.truncate(keep)


def _plain(value: Any) -> Any:
  """Returns the value as strict JSON has it: arrays are lists, what is not finite is null."""
  if hasattr(value, "tolist"):
    value = value.tolist()
  if isinstance(value, Mapping):
    return {key: _plain(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_plain(item) for item in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def _import_wandb(project: str) -> Any:
  if not project:
    return None
  try:
    return importlib.import_module("wandb")
  except ImportError:
    raise ValueError(
      f"config.log.wandb_project={quoted(project)} needs the package wandb, which is not installed;"
      " run `pip install wandb`, or leave the project empty"
    ) from None
