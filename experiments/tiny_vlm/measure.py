"""Measures a tiny model on held-out figures, as Actor and as Judge.

    python -m experiments.tiny_vlm.measure [--config.model.path=DIR] [--problems=1024]

Prints shares in percent with standard errors over problems, of all figures and per family, and
ends with one JSON line.
"""

import json
import pathlib
from collections.abc import Mapping

import jax
import ml_collections
import numpy as np
from absl import app, flags
from jax.sharding import Mesh
from ml_collections import config_flags

from sejax import config as config_lib
from sejax import rollout
from sejax.data import figures
from sejax.evaluation import metrics
from sejax.evaluation.answering import Answers, answer_all
from sejax.evaluation.metrics import Estimate
from sejax.models import qwen2_5_vl as qwen
from sejax.models.qwen2_5_vl.processor import Processor
from sejax.parallel import layouts

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_CONFIG = config_flags.DEFINE_config_file("config", str(_ROOT / "configs/tiny.py"))
_PROBLEMS = flags.DEFINE_integer("problems", 1024, "How many held-out figures.", lower_bound=2)
_ROWS = 32  # problems sampled together


def main(argv: list[str]) -> None:
  """Measures and prints."""
  del argv
  config = _CONFIG.value
  config_lib.validate(config)
  source = held_out(config, _PROBLEMS.value)
  mesh = Mesh(np.array(jax.local_devices())[:1], ("data",))
  directory, dtype = config.model.path, rollout.frozen_dtype(config)
  model, params = qwen.load(directory, mesh, dtype, layouts.DECODE)
  processor = Processor.load(directory, config.data.min_pixels, config.data.max_pixels)

  def answered(config: ml_collections.ConfigDict, judge: qwen.Params | None, name: str) -> Answers:
    roles = rollout.Roles.create(config, model, processor, mesh)
    return answer_all(config, roles, params, source, batch_size=_ROWS, judge=judge, progress=name)

  sampled = answered(config, params, "sampled")
  greedy = answered(_greedy(config), None, "greedy")
  families = np.array([source.problem(int(index)).family for index in sampled.index])
  measured = measures(sampled, greedy)
  for name, estimate in measured.items():
    print(f"{name:>14} {estimate}")
  shares = metrics.pass_at_1(sampled.correct)
  by_family = {name: Estimate.of(shares[families == name]) for name in np.unique(families)}
  print("pass@1 by family")
  for name, estimate in by_family.items():
    print(f"{name:>14} {estimate}  of {np.sum(families == name)}")
  print(json.dumps(_plain(measured, by_family)))


def held_out(config: ml_collections.ConfigDict, problems: int) -> figures.Figures:
  """Returns the held-out figures of the run's families and levels."""
  options = config.data.figures.to_dict() | {"length": problems}
  return figures.source("heldout", **options)


def measures(sampled: Answers, greedy: Answers) -> dict[str, Estimate]:
  """Returns what is measured by its name, from 8 samples and a greedy answer per problem."""
  group = sampled.correct.shape[1]
  verdicts = (sampled.judge_scores, sampled.correct, sampled.judge_valid)
  valid = sampled.judge_valid
  return {
    "pass_at_1": Estimate.of(metrics.pass_at_1(sampled.correct)),
    f"maj_at_{group}": Estimate.of(metrics.maj_at_n(sampled.answer_ids, sampled.correct)),
    "greedy": Estimate.of(metrics.pass_at_1(greedy.correct)),
    "format_ok": Estimate.of(sampled.format_ok.mean(axis=1)),
    "verdict_valid": Estimate.of(valid.mean(axis=1)),
    "judge_auc": Estimate(
      metrics.auc(sampled.judge_scores[valid], sampled.correct[valid]),
      metrics.auc_error(*verdicts),
    ),
    "same_wrong": _same_wrong(sampled),
  }


def _same_wrong(sampled: Answers) -> Estimate:
  """How often two wrong answers to one problem are equal, where there are two."""
  shares = []
  for ids, right in zip(sampled.answer_ids, sampled.correct, strict=True):
    wrong = ids[~right]
    if wrong.size > 1:
      equal = (wrong[:, None] == wrong).sum() - wrong.size
      shares.append(equal / (wrong.size * (wrong.size - 1)))
  return Estimate.of(np.array(shares))


def _greedy(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  greedy = config.copy_and_resolve_references()
  greedy.group_size = 1
  greedy.actor.temperature = 0.0
  return greedy


def _plain(measured: Mapping[str, Estimate], by_family: Mapping[str, Estimate]) -> dict:
  plain = {name: round(estimate.value, 4) for name, estimate in measured.items()}
  plain["errors"] = {name: round(estimate.error, 4) for name, estimate in measured.items()}
  plain["families"] = {name: round(estimate.value, 4) for name, estimate in by_family.items()}
  return plain


if __name__ == "__main__":
  app.run(main)
