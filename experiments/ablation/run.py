"""The paper's comparison at tiny scale: the main job by several rewards and seeds.

    python -m experiments.ablation.run --workdir=runs/ablation \
      [--variants=full,majority] [--seeds=0,1,2] [--model=DIR] [--set=train.steps=50]

Each run is the main job in a process of its own; one that is finished is not run again. Then the
model it began with and every run's answer the same 1,024 held-out figures, at temperature 1 and
greedily. Writes `results.json`, `table.md` and, with matplotlib installed (extra `notebook`),
`dynamics.svg` to the workdir, prints each run's changes in points with paired standard errors over
figures, and ends with one JSON line.
"""

import json
import pathlib
import subprocess
import sys
from typing import NamedTuple

import numpy as np
from absl import app, flags
from jaxtyping import Float

from configs import tiny
from experiments.ablation import summary
from experiments.tiny_vlm import abilities
from sejax.evaluation import metrics

_ROOT = pathlib.Path(__file__).resolve().parents[2]
# The full method with either advantage; votes alone, twice; the Judge alone; gold answers as the
# upper line; and rewards that are all alike.
VARIANTS = ("full", "log_q", "majority", "frequency", "judge_only", "supervised", "control")

_WORKDIR = flags.DEFINE_string("workdir", None, "Of all runs.")
_VARIANTS = flags.DEFINE_list("variants", list(VARIANTS), "`full`, or of configs/tiny.py.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Of the runs.")
_PROBLEMS = flags.DEFINE_integer("problems", 1024, "How many held-out figures.", lower_bound=2)
_MODEL = flags.DEFINE_string("model", None, "Directory of the first model; None: the bundled one.")
_CHANGES = flags.DEFINE_list("set", [], "More of the configuration, as train.steps=50.")


class Scores(NamedTuple):
  """One value per figure."""

  pass_at_1: Float[np.ndarray, " N"]
  maj_at_8: Float[np.ndarray, " N"]
  greedy: Float[np.ndarray, " N"]


def run(workdir: pathlib.Path, variant: str, seed: str) -> float:
  """Runs the main job, if it has not been, and returns its seconds."""
  folder = workdir / f"{variant}_{seed}"
  if not (folder / "summary.json").exists():
    config = "configs/tiny.py" + ("" if variant == "full" else f":{variant}")
    command = [sys.executable, "-m", "sejax.main", f"--config={_ROOT / config}"]
    command += [f"--workdir={folder}", f"--config.seed={seed}", "--config.eval.num_problems=0"]
    if _MODEL.value:
      command.append(f"--config.model.path={pathlib.Path(_MODEL.value).resolve()}")
    command += [f"--config.{change}" for change in _CHANGES.value]
    with (workdir / f"{folder.name}.log").open("w", encoding="utf-8") as log:
      subprocess.run(command, check=True, cwd=_ROOT, stdout=log, stderr=log)
  return json.loads((folder / "summary.json").read_text(encoding="utf-8"))["seconds"]


def answer(path: str | pathlib.Path) -> Scores:
  """Lets the model of a directory answer the held-out figures."""
  config = tiny.get_config()
  config.model.path = str(path)
  sampled = abilities.sample(config, _PROBLEMS.value, judge=False)
  group = sampled.group
  return Scores(
    metrics.pass_at_1(group.correct),
    metrics.maj_at_n(group.answer_ids, group.correct),
    metrics.pass_at_1(sampled.greedy.correct),
  )


def main(argv: list[str]) -> None:
  """Runs, measures and writes."""
  del argv
  workdir = pathlib.Path(_WORKDIR.value).resolve()
  workdir.mkdir(parents=True, exist_ok=True)
  before = answer(_MODEL.value or tiny.get_config().model.path)
  print("before      ", summary.line(before._asdict()), flush=True)
  runs = []
  for variant in _VARIANTS.value:
    for seed in _SEEDS.value:
      seconds = run(workdir, variant, seed)
      after = answer(workdir / f"{variant}_{seed}" / "model")
      changes = {name: getattr(after, name) - getattr(before, name) for name in Scores._fields}
      print(f"{variant:>10} {seed:<3}{summary.line(changes)}   {seconds:.0f} s", flush=True)
      runs.append(summary.Run(variant, seed, changes, round(seconds, 1)))
  result = summary.plain(before._asdict(), runs)
  (workdir / "results.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
  (workdir / "table.md").write_text(summary.table(before._asdict(), runs), encoding="utf-8")
  summary.draw(workdir, runs)
  print(json.dumps(result))


if __name__ == "__main__":
  flags.mark_flag_as_required("workdir")
  app.run(main)
