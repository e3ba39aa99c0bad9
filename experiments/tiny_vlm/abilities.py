"""What a tiny model can do on held-out figures, as Actor and as Judge."""

import dataclasses
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from sejax.config import parts
from sejax.data import figures
from sejax.evaluation import metrics
from sejax.evaluation.answering import Answers, answer_all
from sejax.evaluation.metrics import Estimate
from sejax.text.equivalence import Prover

_ROWS = 32  # problems sampled together


class Sampled(NamedTuple):
  """A model's answers to held-out figures.

  Attributes:
    group: G samples of each, by the configuration.
    greedy: its most likely answer to each.
    families: of the figures.
  """

  group: Answers
  greedy: Answers
  families: np.ndarray


def sample(config: ml_collections.ConfigDict, problems: int, *, judge: bool) -> Sampled:
  """Lets a model answer, and perhaps judge its samples.

  Args:
    config: names the model, and how both roles sample.
    problems: how many held-out figures.
    judge: whether it judges.
  """
  source = held_out(config, problems)
  model_directory = parts.model_directory(
    config, Mesh(np.array(jax.local_devices())[:1], ("data",))
  )
  params = model_directory.load(decoding=True)
  options = dataclasses.replace(parts.evaluation(config), batch_size=_ROWS)
  role_options, preparer = parts.role_options(config), parts.preparer(config, source)
  with Prover() as prover:
    group = answer_all(
      options,
      model_directory.roles(role_options),
      params,
      preparer,
      prover=prover,
      judge=params if judge else None,
      label="sampled",
    )
    greedy = answer_all(
      options,
      model_directory.roles(role_options.greedy()),
      params,
      preparer,
      prover=prover,
      label="greedy",
    )
  families = np.array([source.problem(int(index)).family for index in group.index])
  return Sampled(group, greedy, families)


def measure(
  config: ml_collections.ConfigDict, problems: int
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
  """Returns what is measured by its name, and pass@1 by family.

  Args:
    config: names the model, which is its own Judge, and how both sample.
    problems: how many held-out figures.
  """
  sampled = sample(config, problems, judge=True)
  shares, families = metrics.pass_at_1(sampled.group.correct), sampled.families
  by_family = {str(name): Estimate.of(shares[families == name]) for name in np.unique(families)}
  return measures(sampled.group, sampled.greedy), by_family


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
