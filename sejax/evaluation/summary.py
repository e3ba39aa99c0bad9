"""Summarizes a finished training run in `summary.json` and in a few lines of text."""

import collections
import json
from collections.abc import Sequence
from typing import Any

from sejax import storage
from sejax.data.pipeline import State
from sejax.evaluation.heldout import HeldOutResult
from sejax.learner.checkpoints import Progress
from sejax.monitoring import collapse, writers


def write(
  workdir: storage.Path, steps: int, progress: Progress, training_problems: int
) -> dict[str, Any]:
  """Writes `summary.json` to the workdir and returns its content.

  Args:
    workdir: the run's workdir, whose timing log is read.
    steps: number of training steps.
    progress: state after the last step: seconds, data and held-out results.
    training_problems: number of held-out problems that are also in the training set.
  """
  summary = {"steps": steps, "seconds": progress.seconds, "stages": _stages(workdir)}
  summary["records"] = _records(progress.data)
  if (falls := _labels_fall_from(workdir)) is not None:
    summary["label_accuracy_falls_from"] = falls
  summary |= {"before": {}, "after": {}, "change": {}}
  if progress.before is not None and progress.after is not None:
    before, after = map(HeldOutResult.of, (progress.before, progress.after))
    summary |= {
      "before": before.summary(),
      "after": after.summary(),
      "change": (after - before).summary(),
      "problems": len(after.pass_at_1),
      "training_problems": training_problems,
    }
  text = json.dumps(summary, indent=2) + "\n"
  storage.write_text(workdir / "summary.json", text)
  return summary


def _records(states: Sequence[State]) -> dict[str, Any]:
  """Returns the numbers of records read and dropped (by kind), over all processes."""
  dropped = sum((collections.Counter(state["dropped"]) for state in states), collections.Counter())
  return {"read": sum(state["seen"] for state in states), "dropped": dict(dropped)}


def _labels_fall_from(workdir: storage.Path) -> int | None:
  """Returns the step from which the accuracy of the labels falls; None if it does not."""
  names = ("step", "label_accuracy", "label_accuracy_count")
  lines = [line for line in writers.read(workdir / writers.METRICS) if line.keys() >= {*names}]
  return collapse.falls_from(*([line[name] for line in lines] for name in names))


def _stages(workdir: storage.Path) -> dict[str, float]:
  """Returns the total seconds of each stage of a training step."""
  stages: dict[str, float] = {}
  for line in writers.read(workdir / writers.TIMING):
    for name, value in line.items():
      if name.endswith("_seconds"):
        stage = name.removesuffix("_seconds")
        stages[stage] = stages.get(stage, 0.0) + value
  return stages


def lines(summary: dict[str, Any]) -> list[str]:
  """Formats the summary as lines of text."""
  steps = summary["steps"]
  text = [f"{steps} step{'s' * (steps != 1)} in {summary['seconds']:.0f} s"]
  if "label_accuracy_falls_from" in summary:
    text.append(
      f"majorities are right less often from step {summary['label_accuracy_falls_from']} on"
    )
  if not summary["change"]:
    return text
  shared = summary["training_problems"]
  note = f" ({shared} of them training problems)" if shared else ""
  text.append(f"{summary['problems']} held-out problems{note}, percent with standard errors:")
  for name in summary["change"]:
    if name.endswith("_error"):
      continue
    shares = [
      f"{title} {100 * summary[part][name]:{sign}.1f} +- {100 * summary[part][f'{name}_error']:.1f}"
      for title, part, sign in (
        ("before", "before", ""),
        ("after", "after", ""),
        ("change", "change", "+"),
      )
    ]
    text.append(f"{name:>10}  {'  '.join(shares)}")
  return text
