"""Measures one part of the study in a process of its own: a start, or a cell.

    python -m experiments.study.measure WORKDIR NAME

A start answers the held-out figures and judges its answers. A cell trains by the main job's command
until all its tokens are sampled, and its checkpoints nearest to equal shares of them answer the
same figures. The result is written to `WORKDIR/parts/NAME.json`, and a cell's checkpoints are
removed. A cell that was stopped goes on from its last checkpoint.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Bool, Float, Int

from configs import tiny
from experiments.study.cells import FULL, PROBLEMS, READ_OFFS, STARTS, TOKENS, Cell, conditions
from experiments.tiny_vlm import abilities
from sejax import models
from sejax.evaluation import metrics
from sejax.evaluation.answering import Answers
from sejax.monitoring import writers
from sejax.storage import write_text

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_BINS = 50  # in which the metrics of a run's steps are averaged
_CHECKPOINTS = 60  # in a run
_RECENT = 10  # steps of which the collapse score at a read-off is the mean
# Steps that a run is given, as a multiple of those that it is likely to take, as trajectories may
# get shorter; it is stopped when its tokens are sampled. A teacher's schedule covers all steps.
_ROOM, _ROOM_TAUGHT = 4, 1.5
_POLL_SECONDS = 1
CURVES = (
  "pass@1",
  "maj@G",
  "label_accuracy",
  "majority_share",
  "sampled_entropy",
  "response_length",
  "agreement",
  "judge_mean",
  "collapse_score",
  "reward",
  "kl",
  "format",
  "truncated",
)


def configuration(cell: Cell) -> ml_collections.ConfigDict:
  """Returns the configuration that a cell trains by, but for the number of steps."""
  config = tiny.get_config(cell.recipe or None)
  config.update_from_flattened_dict(cell.changes)
  return config


def read_off(answered: abilities.Sampled) -> dict[str, str]:
  """Returns by measure a string of digits, one per held-out figure in the source's order.

  `pass_at_1` is how many of eight samples are right. `maj_at_8` is 0 where the majority is wrong,
  else the number of tied answers, of which the right one is one. `greedy` is 1 where it is right.
  """
  group, greedy = answered.group, answered.greedy
  majority = metrics.maj_at_n(group.answer_ids, group.correct)
  tied = np.where(majority > 0, np.rint(1 / np.maximum(majority, 1e-3)), 0)
  return {
    "pass_at_1": _digits(group.correct.sum(axis=1)),
    "maj_at_8": _digits(tied),
    "greedy": _digits(greedy.correct[:, 0]),
  }


def _digits(values: Any) -> str:
  return "".join(str(int(value)) for value in values)


def measure_start(name: str) -> dict[str, Any]:
  """Returns what a start can do, as Actor and as Judge."""
  config = configuration(Cell(name, FULL, 0))
  with abilities.Evaluator(config, PROBLEMS) as evaluator:
    answered = evaluator.answer(evaluator.load(), judge=True)
  measures = abilities.measures(answered.group, answered.greedy)
  return {
    "read": read_off(answered) | {"length": round(float(answered.group.lengths.mean()), 2)},
    "measures": {name: [round(x, 4) for x in estimate] for name, estimate in measures.items()},
    "scores": scores(answered.group),
  }


def scores(answers: Answers) -> dict[str, list[int]]:
  """Returns by valid score of the Judge how many wrong and how many right answers got it."""
  found = np.unique(answers.judge_scores[answers.judge_valid])
  return {f"{score:g}": _split(answers, score) for score in found}


def _split(answers: Answers, score: float) -> list[int]:
  right: Bool[np.ndarray, "N G"] = answers.correct
  given = answers.judge_valid & (answers.judge_scores == score)
  return [int((given & ~right).sum()), int((given & right).sum())]


def command(cell: Cell, folder: pathlib.Path) -> list[str]:
  """Returns the command that trains a cell, by the command line of the main job.

  Args:
    folder: the run's workdir.
  """
  file = _ROOT / "configs" / "tiny.py"
  room = _ROOM_TAUGHT if cell.taught else _ROOM
  changes = cell.changes | {
    "train.steps": int(room * cell.steps),
    "checkpoint.every": max(cell.steps // _CHECKPOINTS, 1),
    "log.tensorboard": False,
    "log.compilation_cache": False,  # All runs share one, by the environment.
    "log.sample_groups": 0,
  }
  return [
    sys.executable,
    "-m",
    "sejax.main",
    f"--workdir={folder}",
    f"--config={file}" + (f":{cell.recipe}" if cell.recipe else ""),
    *(f"--config.{name}={value}" for name, value in changes.items()),
  ]


def train(cell: Cell, folder: pathlib.Path) -> list[dict[str, Any]]:
  """Trains a cell until its tokens are sampled, and returns the metrics of all its steps.

  Args:
    folder: the run's workdir. A run in it goes on.

  Raises:
    RuntimeError: the run failed, or its steps did not sample all tokens.
  """
  file = folder / writers.METRICS
  if not _is_trained(folder):
    # Steps after the last checkpoint stand in the file until the run has taken them back.
    stale = file.stat().st_mtime_ns if file.exists() else None
    run = subprocess.Popen(command(cell, folder), cwd=_ROOT)
    try:
      while run.poll() is None:
        time.sleep(_POLL_SECONDS)
        changed = file.exists() and file.stat().st_mtime_ns != stale
        if changed and _sampled(file) >= TOKENS:
          run.terminate()  # It saves the step in progress.
          run.wait()
    except SystemExit:
      run.wait()  # It was stopped, too.
      raise
    if not _is_trained(folder):
      raise RuntimeError(
        f"{cell.name} ended with status {run.returncode} and {_sampled(file)} of {TOKENS} tokens"
      )
  return list(writers.read(file))


def _is_trained(folder: pathlib.Path) -> bool:
  """Whether the last checkpoint of a run has sampled all tokens."""
  saved = _saved(folder)
  lines = list(writers.read(folder / writers.METRICS)) if saved else []
  return sum(line["sampled_tokens"] for line in lines[: max(saved, default=0)]) >= TOKENS


def _saved(folder: pathlib.Path) -> list[int]:
  """Returns the saved steps of a run, in ascending order."""
  checkpoints = folder / "checkpoints"
  found = checkpoints.iterdir() if checkpoints.exists() else ()
  return sorted(int(path.name) for path in found if path.name.isdecimal())


def _sampled(file: pathlib.Path) -> int:
  """Returns the tokens that a run has sampled so far."""
  return sum(line["sampled_tokens"] for line in writers.read(file)) if file.exists() else 0


def nearest(tokens: Int[np.ndarray, " steps"], saved: Sequence[int], apart: int) -> list[int]:
  """Returns the saved steps nearest to equal shares of all tokens.

  Args:
    tokens: sampled up to the end of each step.
    saved: numbers of completed steps, in ascending order.
    apart: steps between two that are saved.

  Raises:
    RuntimeError: none is near, as checkpoints are missing.
  """
  at = np.array([tokens[step - 1] for step in saved])
  found = []
  for count in TOKENS * np.arange(1, READ_OFFS + 1) / READ_OFFS:
    step = saved[int(np.abs(at - count).argmin())]
    wanted = int(np.searchsorted(tokens, count)) + 1
    if abs(step - wanted) > apart:
      raise RuntimeError(f"no checkpoint is near step {wanted}; there are {saved}")
    found.append(step)
  return found


def policy(checkpoint: pathlib.Path, like: models.Params) -> models.Params:
  """Returns the policy of a checkpoint.

  Args:
    like: weights of the same model.
  """
  with ocp.StandardCheckpointer() as reader:
    state = reader.restore(checkpoint / "state")
  state = state.get("train", state)  # A teacher's weights are beside it.
  return jax.tree.map(lambda x, y: jnp.asarray(x, y.dtype).reshape(y.shape), state["params"], like)


def curves(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
  """Returns the means of the steps' metrics in equal shares of the tokens.

  `label_accuracy` is a mean over labels, of which `label_accuracy_count` is the number. None stands
  where no step of a share has the metric.
  """
  tokens = np.cumsum([line["sampled_tokens"] for line in lines])
  bins = np.minimum((tokens - 1) * _BINS // tokens[-1], _BINS - 1)
  found = {"tokens": [int(tokens[bins == b][-1]) for b in np.unique(bins)]}
  counts = np.array([line.get("label_accuracy_count", 0) for line in lines])
  found["label_accuracy_count"] = [int(counts[bins == b].sum()) for b in np.unique(bins)]
  for name in CURVES:
    values = np.array([line.get(name, np.nan) for line in lines])
    weights = counts if name == "label_accuracy" else np.ones(len(lines))
    known = np.isfinite(values) & (weights > 0)
    if known.any():
      in_bins = [known & (bins == b) for b in np.unique(bins)]
      found[name] = [_mean(values[in_bin], weights[in_bin]) for in_bin in in_bins]
  return found


def _mean(
  values: Float[np.ndarray, " steps"], weights: Float[np.ndarray, " steps"]
) -> float | None:
  return round(float(np.average(values, weights=weights)), 5) if len(values) else None


def measure_cell(cell: Cell, folder: pathlib.Path) -> dict[str, Any]:
  """Returns a cell's curves and read-offs.

  Args:
    folder: workdir of its run.

  Raises:
    RuntimeError: as `train` and `nearest`.
  """
  lines = train(cell, folder)
  began = time.monotonic()
  tokens = np.cumsum([line["sampled_tokens"] for line in lines])
  steps = int(np.searchsorted(tokens, TOKENS)) + 1
  collapse = np.array([line["collapse_score"] for line in lines])
  reads = []
  # Every method's answers are read as the full method reads them.
  with abilities.Evaluator(configuration(Cell(cell.start, FULL, 0)), PROBLEMS) as evaluator:
    like = evaluator.load()
    for step in nearest(tokens, _saved(folder), max(cell.steps // _CHECKPOINTS, 1)):
      params = policy(folder / "checkpoints" / str(step), like)
      answered = evaluator.answer(params, judge=False)
      about = {
        "step": step,
        "tokens": int(tokens[step - 1]),
        "collapse_score": round(float(collapse[max(step - _RECENT, 0) : step].mean()), 5),
        "length": round(float(answered.group.lengths.mean()), 2),
      }
      reads.append(about | read_off(answered))
  training = sum(line["total_seconds"] for line in writers.read(folder / writers.TIMING))
  return {
    "steps": steps,
    "tokens": int(tokens[steps - 1]),
    "curves": curves(lines[:steps]),
    "read": reads,
    "seconds": [round(training, 1), round(time.monotonic() - began, 1)],
  }


def main(argv: Sequence[str]) -> None:
  """Measures a part and writes it."""
  signal.signal(signal.SIGTERM, _end)
  workdir, name = pathlib.Path(argv[0]).resolve(), argv[1]
  if name in STARTS:
    start, found = name, measure_start(name)
  else:
    cell = Cell.of(name)
    start, found = cell.start, measure_cell(cell, workdir / "runs" / name)
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
  found |= {"conditions": conditions(start), "jax": jax.__version__, "cores": cores}
  (workdir / "parts").mkdir(parents=True, exist_ok=True)
  write_text(workdir / "parts" / f"{name}.json", json.dumps(found))
  shutil.rmtree(workdir / "runs" / name / "checkpoints", ignore_errors=True)


def _end(number: int, frame: FrameType | None) -> None:
  del frame
  sys.exit(128 + number)


if __name__ == "__main__":
  main(sys.argv[1:])
