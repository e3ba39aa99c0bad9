"""Makes the starts of the study that are not bundled, from scratch.

    python -m experiments.study.make_starts --workdir=runs/starts [--names=weak,varied]

`weak` is the bundled model's own pre-training, cut short; `varied` goes on from the bundled model
with short chains of reasoning. Rerun the command to resume. `experiments/study/starts` holds what
it wrote, which the study's cells begin with.
"""

import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from absl import app, flags, logging

from experiments.study.cells import STARTS
from experiments.tiny_vlm import training
from sejax import assets

# What differs from the bundled model's recipe.
CHANGES: Mapping[str, Mapping[str, Any]] = {
  # It has just begun to be careless, and its rate has not fallen yet.
  "weak": {"stop": 475},
  "varied": {
    "start": str(assets.TINY_VLM),
    "seed": 1,
    "steps": 400,
    "learning_rate": 5e-4,
    "chains": True,
    "phases": ((0, 32, 35, 15, 85, 50, 4.0),),
  },
}

_WORKDIR = flags.DEFINE_string("workdir", None, "Checkpoints and models.", required=True)
_NAMES = flags.DEFINE_list("names", list(CHANGES), "Which.")
_KEEP = flags.DEFINE_bool("keep", False, "Copy the models to where the cells find them.")


def main(argv: list[str]) -> None:
  """Trains, or goes on training."""
  del argv
  logging.set_verbosity(logging.WARNING)  # orbax tells of every file it writes
  for name in _NAMES.value:
    config = training.get_config()
    config.update(CHANGES[name])
    workdir = pathlib.Path(_WORKDIR.value).resolve() / name
    training.train(config, workdir)
    if _KEEP.value:
      shutil.copytree(workdir / "model", STARTS[name], dirs_exist_ok=True)
    print(f"{name}: {workdir / 'model'}")


if __name__ == "__main__":
  app.run(main)
