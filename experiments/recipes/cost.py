"""What a training step of each recipe costs, relative to `majority`.

    python -m experiments.recipes.cost [--steps=6] [--recipes=majority,multi]

Trains the tiny model by each recipe, one after the other, on the same figures and with the same
budget of trajectories. Seconds are the median over steps after the first two, which compile most
programs. Ends with one JSON line: for each recipe its seconds per step, by stage as well, and
`cost`, relative to those of `majority`.
"""

import json
import pathlib
import statistics
import tempfile

from absl import app, flags

from configs import tiny
from sejax import train
from sejax.config import validation
from sejax.monitoring import writers
from sejax.rewards import recipes

_STEPS = flags.DEFINE_integer("steps", 6, "Steps of each run.", lower_bound=3)
_RECIPES = flags.DEFINE_list("recipes", ["full", *recipes.RECIPES], "Which recipes.")

BASELINE = "majority"
COMPILING = 2  # steps that are left out


def seconds(recipe: str, steps: int, workdir: pathlib.Path) -> dict[str, float]:
  """Trains by a recipe; returns the median seconds of a step and of its stages."""
  config = tiny.get_config(None if recipe == "full" else recipe)
  config.train.steps = steps
  config.eval.num_problems = 0
  config.checkpoint.every = steps
  config.log.tensorboard = False
  validation.validate(config)
  workdir.mkdir()
  train.run(config, workdir)
  lines = list(writers.read(workdir / writers.TIMING))[COMPILING:]
  names = [name for name in lines[0] if name.endswith("_seconds")]
  return {
    name.removesuffix("_seconds"): statistics.median(line[name] for line in lines) for name in names
  }


def main(argv: list[str]) -> None:
  """Measures and prints."""
  del argv
  names = dict.fromkeys([BASELINE, *_RECIPES.value])
  measured = {}
  with tempfile.TemporaryDirectory() as folder:
    for name in names:
      measured[name] = seconds(name, _STEPS.value, pathlib.Path(folder) / name)
  base = measured[BASELINE]["total"]
  for name, stages in measured.items():
    stages["cost"] = stages["total"] / base
    print(f"{name:>16} {stages['total']:6.2f} s {stages['cost']:5.2f}")
  rounded = {
    name: {stage: round(value, 3) for stage, value in stages.items()}
    for name, stages in measured.items()
  }
  print(json.dumps(rounded))


if __name__ == "__main__":
  app.run(main)
