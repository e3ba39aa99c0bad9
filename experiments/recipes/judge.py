"""The Judge's expected score beside its generated verdict: AUC and seconds.

    python -m experiments.recipes.judge [--problems=1024]

The tiny model answers held-out figures eight times each. Its frozen copy then judges the same
trajectories twice: by writing a verdict that ends in a score, and by the expectation of that score
(`judge.expected`). A first batch compiles the programs of both and is not timed. Ends with one JSON
line, of both: `auc`, the chance that a right answer's score is above a wrong one's, with its
standard error over figures; `valid`, the share of readable scores; `seconds` of judging all.
"""

import dataclasses
import json
import time
from typing import Any

import jax
import numpy as np
from absl import app, flags
from jax.sharding import Mesh

from configs import tiny
from experiments.tiny_vlm import abilities
from sejax import rewards, rollout
from sejax.config import parts
from sejax.evaluation import answering, metrics
from sejax.text.equivalence import Prover

_PROBLEMS = flags.DEFINE_integer("problems", 1024, "How many held-out figures.", lower_bound=64)

ROWS = 32  # problems judged together
RECIPES = {"generated": None, "expected": "judge_expected"}


def main(argv: list[str]) -> None:
  """Measures and prints."""
  del argv
  configs = {name: tiny.get_config(recipe) for name, recipe in RECIPES.items()}
  config = configs["generated"]
  source = abilities.held_out(config, _PROBLEMS.value)
  mesh = Mesh(np.array(jax.local_devices()[:1]), ("data",))
  directory = parts.model_directory(config, mesh)
  params = directory.load(decoding=True)
  roles = {name: directory.roles(parts.role_options(x)) for name, x in configs.items()}
  options = dataclasses.replace(parts.evaluation(config), batch_size=ROWS)
  preparer = parts.preparer(config, source)

  correct, scores = [], {name: [] for name in RECIPES}
  seconds = dict.fromkeys(RECIPES, 0.0)
  with Prover() as prover:
    for number, batch in enumerate(
      answering.batches_in_order(options, roles["generated"], preparer)
    ):
      features = roles["generated"].encode(params, batch)
      acted = roles["generated"].act(params, batch, features, seed=0, step=0)
      extracted, _ = rewards.read_answers(acted.texts, options.reading)
      golds = [source.gold(int(index)) for index in batch.index[batch.real]]
      correct.append(prover.grade(extracted[: len(golds)], golds))
      for name, judge in roles.items():
        if number == 0:
          _judge(judge, params, batch, features, acted, options.reading)
        began = time.perf_counter()
        read = _judge(judge, params, batch, features, acted, options.reading)
        seconds[name] += time.perf_counter() - began
        scores[name].append((read.scores[batch.real], read.valid[batch.real]))
  right = np.concatenate(correct)
  measured = {}
  for name, parts_of in scores.items():
    found, valid = (np.concatenate(x) for x in zip(*parts_of, strict=True))
    measured[name] = {
      "auc": round(metrics.auc(found[valid], right[valid]), 4),
      "auc_error": round(metrics.auc_error(found, right, valid), 4),
      "valid": round(float(valid.mean()), 4),
      "seconds": round(seconds[name], 2),
    }
  print(json.dumps({"problems": len(right), **measured}))


def _judge(
  roles: rollout.Roles,
  params: Any,
  batch: Any,
  features: Any,
  acted: rollout.Completions,
  reading: rewards.Reading,
) -> rewards.Verdicts:
  """Returns the Judge's scores of the trajectories of a batch."""
  judged = roles.judge_all(params, batch, features, acted.texts, seed=0, step=0)
  texts, truncated = rollout.by_candidate(judged, 1)
  return rewards.read_verdicts(texts, reading, truncated)


if __name__ == "__main__":
  app.run(main)
