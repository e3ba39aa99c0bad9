"""What a tiny model can do on held-out figures, as Actor and as Judge."""

import dataclasses
from typing import NamedTuple, Self

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from sejax import models
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


class Evaluator:
  """Lets models of one architecture answer held-out figures, with the programs compiled once.

  Leaving the context manager ends the processes that compare answers.
  """

  def __init__(self, config: ml_collections.ConfigDict, problems: int):
    """Prepares the figures.

    Args:
      config: names a model with the architecture and the processor, and how both roles sample.
      problems: how many held-out figures.
    """
    self._source = held_out(config, problems)
    mesh = Mesh(np.array(jax.local_devices())[:1], ("data",))
    self._directory = parts.model_directory(config, mesh)
    self._options = dataclasses.replace(parts.evaluation(config), batch_size=_ROWS)
    self._preparer = parts.preparer(config, self._source)
    of_roles = parts.role_options(config)
    self._sampled = self._directory.roles(of_roles)
    self._greedy = self._directory.roles(of_roles.greedy())
    self._prover = Prover()

  def __enter__(self) -> Self:
    self._prover.__enter__()
    return self

  def __exit__(self, *error: object) -> None:
    self._prover.__exit__(*error)

  def load(self) -> models.Params:
    """Returns the weights of the configuration's model."""
    return self._directory.load(decoding=True)

  def answer(self, params: models.Params, *, judge: bool) -> Sampled:
    """Lets a model answer, and perhaps judge its samples.

    Args:
      params: its weights.
      judge: whether it judges.
    """
    group, greedy = (
      answer_all(
        self._options,
        roles,
        params,
        self._preparer,
        prover=self._prover,
        judge=params if judges else None,
        label=label,
      )
      for roles, judges, label in (
        (self._sampled, judge, "sampled"),
        (self._greedy, False, "greedy"),
      )
    )
    families = np.array([self._source.problem(int(index)).family for index in group.index])
    return Sampled(group, greedy, families)


def sample(config: ml_collections.ConfigDict, problems: int, *, judge: bool) -> Sampled:
  """Lets a model answer, and perhaps judge its samples.

  Args:
    config: names the model, and how both roles sample.
    problems: how many held-out figures.
    judge: whether it judges.
  """
  with Evaluator(config, problems) as evaluator:
    return evaluator.answer(evaluator.load(), judge=judge)


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
