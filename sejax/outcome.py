"""What a finished run leaves: the model, `summary.json`, the report, and a few lines to read."""

import collections
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections

from sejax import export, logs, report
from sejax.data.pipeline import State
from sejax.evaluation.heldout import Outcome
from sejax.models import qwen2_5_vl as qwen
from sejax.run import Run


def finish(
  config: ml_collections.ConfigDict,
  workdir: pathlib.Path,
  run: Run,
  params: qwen.Params,
  memory: dict[str, Any],
) -> None:
  """Writes `model/`, `summary.json` and `report.html`, and prints what changed.

  Args:
    config: the run's.
    workdir: the run's.
    run: what stayed the same.
    params: what was trained.
    memory: what the loop remembered: held-out problems before and after, and the
      seconds of all its parts.
  """
  export.save(run, params, workdir / "model", config)
  if jax.process_index() > 0:
    return
  training_problems = run.heldout.training_problems if run.heldout else 0
  summary = _summary(workdir, run.steps, memory, training_problems)
  (workdir / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
  report.run(config, workdir)
  for line in _lines(summary):
    print(line)
  print(f"model: {workdir / 'model'}")
  print(f"report: {workdir / 'report.html'}")


def _summary(
  workdir: pathlib.Path, steps: int, memory: dict[str, Any], training_problems: int
) -> dict[str, Any]:
  summary = {"steps": steps, "seconds": memory["seconds"], "stages": _stages(workdir)}
  summary["records"] = _records(memory["data"])
  summary |= {"before": {}, "after": {}, "change": {}}
  if "after" in memory:
    before, after = Outcome.of(memory["before"]), Outcome.of(memory["after"])
    summary |= {
      "before": before.summary(),
      "after": after.summary(),
      "change": (after - before).summary(),
      "problems": len(after.pass_at_1),
      "training_problems": training_problems,
    }
  return summary


def _records(states: Sequence[State]) -> dict[str, Any]:
  """How many records all processes have read, and how many of these they dropped, by kind."""
  dropped = sum((collections.Counter(state["dropped"]) for state in states), collections.Counter())
  return {"read": sum(state["seen"] for state in states), "dropped": dict(dropped)}


def _stages(workdir: pathlib.Path) -> dict[str, float]:
  """The seconds of each stage over all steps."""
  stages: dict[str, float] = {}
  for line in logs.read(workdir / logs.TIMING):
    for name, value in line.items():
      if name.endswith("_seconds"):
        stage = name.removesuffix("_seconds")
        stages[stage] = stages.get(stage, 0.0) + value
  return stages


def _lines(summary: dict[str, Any]) -> list[str]:
  lines = [f"{summary['steps']} steps in {summary['seconds']:.0f} s"]
  if not summary["change"]:
    return lines
  trained = summary["training_problems"]
  also = f" ({trained} of them training problems)" if trained else ""
  lines.append(f"{summary['problems']} held-out problems{also}, percent with standard errors:")
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
    lines.append(f"{name:>10}  {'  '.join(shares)}")
  return lines
