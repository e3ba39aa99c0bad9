"""Self-evolution of the tiny model over several seeds, beside other rewards with equal steps.

    python -m experiments.tiny_vlm.evolve --workdir=runs/evolve \
      [--seeds=0,1,2] [--variants=full,control] [--set=train.steps=50]

Each run is the main job with another seed, in a process of its own; one that is finished is not run
again. Then the bundled model and every run's answer the same 1,024 held-out figures, at temperature
1 and greedily. Prints changes in points with paired standard errors over figures, and ends with one
JSON line.
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
from experiments.tiny_vlm import abilities
from sejax.evaluation import metrics
from sejax.evaluation.metrics import Estimate

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_WORKDIR = flags.DEFINE_string("workdir", None, "Of all runs.")
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Of the runs.")
_VARIANTS = flags.DEFINE_list("variants", ["full", "control"], "`full`, or of configs/tiny.py.")
_PROBLEMS = flags.DEFINE_integer("problems", 1024, "How many held-out figures.", lower_bound=2)
_FLAGS = flags.DEFINE_list("set", [], "More of the configuration, as train.steps=50.")


class Scores(NamedTuple):
  """One value per figure."""

  pass_at_1: Float[np.ndarray, " N"]
  maj_at_8: Float[np.ndarray, " N"]
  greedy: Float[np.ndarray, " N"]


def run(workdir: pathlib.Path, variant: str, seed: str) -> dict:
  """Runs the main job, if it has not been, and returns its summary."""
  name = f"{variant}_{seed}"
  if not (workdir / name / "summary.json").exists():
    config = "configs/tiny.py" + ("" if variant == "full" else f":{variant}")
    command = [sys.executable, "-m", "sejax.main", f"--config={_ROOT / config}"]
    command += [f"--workdir={workdir / name}", f"--config.seed={seed}", "--config.eval.problems=0"]
    command += [f"--config.{change}" for change in _FLAGS.value]
    with (workdir / f"{name}.log").open("w") as log:
      subprocess.run(command, check=True, cwd=_ROOT, stdout=log, stderr=log)
  return json.loads((workdir / name / "summary.json").read_text())


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
  """Runs, measures and prints."""
  del argv
  workdir = pathlib.Path(_WORKDIR.value).resolve()
  workdir.mkdir(parents=True, exist_ok=True)
  before = answer(tiny.get_config().model.path)
  start = {name: Estimate.of(value) for name, value in before._asdict().items()}
  print("before      ", "   ".join(f"{name} {value}" for name, value in start.items()), flush=True)
  result = {"before": {name: round(value.value, 4) for name, value in start.items()}}
  for variant in _VARIANTS.value:
    for seed in _SEEDS.value:
      seconds = run(workdir, variant, seed)["seconds"]
      after = answer(workdir / f"{variant}_{seed}" / "model")
      changes = {
        name: Estimate.of(getattr(after, name) - getattr(before, name)) for name in Scores._fields
      }
      line = "   ".join(f"{name} {value}" for name, value in changes.items())
      print(f"{variant:>10} {seed:<3}{line}   {seconds:.0f} s", flush=True)
      result[f"{variant}_{seed}"] = {
        name: [round(value.value, 4), round(value.error, 4)] for name, value in changes.items()
      } | {"seconds": round(seconds, 1)}
  print(json.dumps(result))


if __name__ == "__main__":
  flags.mark_flag_as_required("workdir")
  app.run(main)
