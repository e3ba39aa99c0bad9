"""Evaluates the Actor on held-out problems before, during and after training.

Every evaluation uses the same random keys, so differences between checkpoints are paired samples.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import ml_collections
import numpy as np
from absl import logging
from jaxtyping import Float

from sejax import models, rollout
from sejax.data import sources
from sejax.data.prepare import Preparer
from sejax.data.records import Record, Source, gold_errors
from sejax.evaluation import answering, metrics, overlap
from sejax.evaluation.metrics import Estimate
from sejax.parallel import hosts
from sejax.text.equivalence import Prover


class HeldOutResult(NamedTuple):
  """Accuracy on each held-out problem, in the source's order; identical in all processes.

  Attributes:
    samples: number of samples per problem, n.
    pass_at_1: fraction of right samples.
    maj: whether the majority answer is right; a fraction if several answers tie.
  """

  samples: int
  pass_at_1: Float[np.ndarray, " N"]
  maj: Float[np.ndarray, " N"]

  @classmethod
  def of(cls, plain: Mapping[str, Any]) -> "HeldOutResult":
    """Restores a result from the return value of `plain`."""
    return cls(
      samples=plain["samples"],
      pass_at_1=np.array(plain["pass_at_1"]),
      maj=np.array(plain["maj"]),
    )

  def plain(self) -> dict[str, Any]:
    """Returns JSON values, for a checkpoint."""
    return {
      "samples": self.samples,
      "pass_at_1": self.pass_at_1.tolist(),
      "maj": self.maj.tolist(),
    }

  def summary(self) -> dict[str, float]:
    """Returns the means over problems and their standard errors, as fractions in [0, 1].

    The keys are `pass_at_1`, `pass_at_1_error`, `maj_at_<n>` and `maj_at_<n>_error`.
    """
    summary = {}
    for name, values in (("pass_at_1", self.pass_at_1), (f"maj_at_{self.samples}", self.maj)):
      estimate = Estimate.of(values)
      summary |= {name: estimate.value, f"{name}_error": estimate.error}
    return summary

  def __sub__(self, before: "HeldOutResult") -> "HeldOutResult":
    """Returns the change on each problem; the standard error of its mean is that of paired data."""
    return HeldOutResult(
      samples=self.samples,
      pass_at_1=self.pass_at_1 - before.pass_at_1,
      maj=self.maj - before.maj,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
  """Held-out problems with gold answers, and everything needed to evaluate on them.

  Attributes:
    options: how they are answered.
    roles: samplers.
    preparer: of the held-out problems.
    training_problems: number of held-out problems that are also in the training set.
    prover: compares answers with the gold answers; the caller owns and closes it.
  """

  options: answering.Options
  roles: rollout.Roles
  preparer: Preparer
  training_problems: int
  prover: Prover

  @classmethod
  def open(
    cls,
    evaluation: ml_collections.ConfigDict,
    data: ml_collections.ConfigDict,
    *,
    training: Preparer,
    options: answering.Options,
    roles: rollout.Roles,
    prover: Prover,
  ) -> Self:
    """Opens the held-out problems.

    Args:
      evaluation: the configuration's section `eval`.
      data: section `config.data`; `evaluation.split` and `evaluation.path` replace its own.
      training: prepares the training problems, to count those that are also held out.
      options: how the problems are answered.
      roles: samplers.
      prover: see the class.

    Raises:
      ValueError: the source cannot be opened, a gold answer is missing or unreadable, or all
        problems are training problems and `eval.allow_training_problems` is not set.
    """
    data = data.copy_and_resolve_references()
    data.split = evaluation.split
    data.path = evaluation.path or data.path
    try:
      source = sources.open_source(data)
      problems = min(evaluation.num_problems, len(source))
      if not problems:
        raise ValueError(f"{source.name} has no records")
      if (gold_error := next(gold_errors(source, range(problems)), None)) is not None:
        raise gold_error
    except ValueError as error:
      raise ValueError(
        f"held-out problems: {error}; see config.eval.path and config.eval.split, or go without:"
        " config.eval.num_problems=0"
      ) from None
    common = overlap.count(training.source, source, problems)
    _check_overlap(common, allowed=evaluation.allow_training_problems)
    return cls(
      options=options,
      roles=roles,
      preparer=dataclasses.replace(training, source=_First(source, problems)),
      training_problems=common.shared,
      prover=prover,
    )

  def __call__(self, params: models.Params, label: str = "") -> HeldOutResult:
    """Samples answers of the Actor to all held-out problems and grades them.

    Args:
      params: the Actor's parameters in the decoding layout.
      label: label of a progress bar; empty shows none.

    Raises:
      ValueError: a problem has no gold answer, or no record is usable.
    """
    answered = answering.answer_all(
      self.options, self.roles, params, self.preparer, prover=self.prover, label=label
    )
    local = {
      "index": answered.index.tolist(),
      "pass_at_1": metrics.pass_at_1(answered.correct).tolist(),
      "maj": metrics.maj_at_n(answered.answer_ids, answered.correct).tolist(),
    }
    parts = hosts.gather_json(local)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in local}
    order = np.argsort(joined["index"])
    return HeldOutResult(
      samples=answered.correct.shape[1],
      pass_at_1=joined["pass_at_1"][order],
      maj=joined["maj"][order],
    )


def _check_overlap(common: overlap.Overlap, *, allowed: bool) -> None:
  shared, readable = common
  if shared and shared == readable and not allowed:
    raise ValueError(
      f"all {shared} held-out problems are training problems, so they would not measure what is"
      " learnt; see config.eval.path and config.eval.split, go without"
      " (config.eval.num_problems=0), or give config.eval.allow_training_problems=true"
    )
  if shared:
    logging.warning("%d of %d held-out problems are training problems", shared, readable)


@dataclasses.dataclass(frozen=True)
class _First:
  """The first `count` records of a source."""

  source: Source
  count: int

  @property
  def name(self) -> str:
    return self.source.name

  def __len__(self) -> int:
    return self.count

  def __getitem__(self, index: int) -> Record:
    return self.source[index]

  def gold(self, index: int) -> str | None:
    return self.source.gold(index)
