"""Short training runs of the bundled model, and problems for them."""

import json
import pathlib
from collections.abc import Sequence

import PIL.Image

from configs import tiny
from sejax import train
from sejax.config import validation
from sejax.data import figures

PROBLEMS = 12


def run(workdir: pathlib.Path, recipe: str | None = None, **changes) -> pathlib.Path:
  """Trains, by default two steps; returns the workdir."""
  config = tiny.get_config(recipe)
  config.update(batch_size=4, mini_batch_size=2, group_size=4)
  config.actor.max_tokens = 48
  config.train.update(steps=2, micro_batch_size=2, response_buckets=())
  config.eval.update(num_problems=4, batch_size=4)
  config.optimizer.learning_rate = 1e-3
  config.model.unroll = False  # compiles faster
  config.log.compilation_cache = False  # The tests share one cache for all runs.
  config.update_from_flattened_dict(changes)
  validation.validate(config)
  train.run(config, workdir)
  return workdir


def golds() -> list[str]:
  """Returns the right answers of the problems that `write_set` writes."""
  return [_source().problem(index).answer for index in range(PROBLEMS)]


def write_set(folder: pathlib.Path, answers: Sequence[str]) -> str:
  """Writes figure problems as JSON lines with the given gold answers; returns the file's path."""
  folder.mkdir()
  lines = []
  for index, gold in enumerate(answers):
    problem = _source().problem(index)
    PIL.Image.fromarray(problem.image).save(folder / f"{index}.png")
    line = {"question": problem.question, "image": f"{index}.png", "answer": gold}
    lines.append(json.dumps(line))
  (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
  return str(folder / "train.jsonl")


def _source() -> figures.Figures:
  return figures.source(length=PROBLEMS, families=dict.fromkeys(figures.LEARNABLE, 1.0))
