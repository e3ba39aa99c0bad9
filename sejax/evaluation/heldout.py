"""The held-out problems of a run: the same samples' keys each time, so that changes are paired."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from absl import logging
from jaxtyping import Float

from sejax import models, rollout
from sejax.data import sources
from sejax.data.records import Record, Source
from sejax.evaluation import answering, metrics, overlap
from sejax.evaluation.metrics import Estimate
from sejax.parallel import hosts
from sejax.text.equivalence import Prover


class Outcome(NamedTuple):
  """One value per problem, of all processes, in the source's order.

  Attributes:
    samples: n, of each problem.
    pass_at_1: the share of right ones.
    maj: whether the majority is right.
  """

  samples: int
  pass_at_1: Float[np.ndarray, " N"]
  maj: Float[np.ndarray, " N"]

  @classmethod
  def of(cls, plain: Mapping[str, Any]) -> "Outcome":
    """Returns the outcome of what `plain` gave."""
    return cls(plain["samples"], np.array(plain["pass_at_1"]), np.array(plain["maj"]))

  def plain(self) -> dict[str, Any]:
    """Returns plain JSON values, for a checkpoint."""
    return {
      "samples": self.samples,
      "pass_at_1": self.pass_at_1.tolist(),
      "maj": self.maj.tolist(),
    }

  def summary(self) -> dict[str, float]:
    """Returns means with their standard errors, as shares of one.

    Named `pass_at_1`, `maj_at_<n>`, and these with `_error` behind.
    """
    summary = {}
    for name, each in (("pass_at_1", self.pass_at_1), (f"maj_at_{self.samples}", self.maj)):
      estimate = Estimate.of(each)
      summary |= {name: estimate.value, f"{name}_error": estimate.error}
    return summary

  def __sub__(self, before: "Outcome") -> "Outcome":
    """Returns the changes of each problem, whose mean's error is the paired one."""
    return Outcome(self.samples, self.pass_at_1 - before.pass_at_1, self.maj - before.maj)


@dataclasses.dataclass(frozen=True)
class HeldOut:
  """Problems with gold answers that a run is measured by.

  Attributes:
    config: the run's.
    roles: that sample.
    source: the problems.
    training_problems: how many of them are trained on, too.
    prover: grades; it is its maker's to close.
  """

  config: ml_collections.ConfigDict
  roles: rollout.Roles
  source: Source
  training_problems: int
  prover: Prover

  @classmethod
  def of(
    cls,
    config: ml_collections.ConfigDict,
    roles: rollout.Roles,
    training: Source,
    prover: Prover,
  ) -> "HeldOut | None":
    """Returns the problems that `config.eval` names; None where it names none.

    Args:
      config: the run's.
      roles: that sample.
      training: the problems that are trained on.
      prover: grades; it is its maker's to close.

    Raises:
      ValueError: their source cannot be opened, has no answers, or holds training problems alone
        and `config.eval.allow_training_problems` is not set.
    """
    if not config.eval.num_problems:
      return None
    if config.eval.greedy:
      config, roles = _greedy(config, roles)
    data = config.data.copy_and_resolve_references()
    data.split = config.eval.split
    data.path = config.eval.path or data.path
    try:
      source = sources.open_source(data)
      problems = min(config.eval.num_problems, len(source))
      _check_golds(source, problems)
    except ValueError as error:
      raise ValueError(
        f"held-out problems: {error}; see config.eval.path and config.eval.split, or go without:"
        " config.eval.num_problems=0"
      ) from None
    found = overlap.count(training, source, problems)
    _check_overlap(found, allowed=config.eval.allow_training_problems)
    return cls(config, roles, _First(source, problems), found.shared, prover)

  def __call__(self, params: models.Params, progress: str = "") -> Outcome:
    """Samples the Actor's answers and grades them.

    Args:
      params: the Actor's, in the layout of decoding.
      progress: name of a progress bar; empty: no bar.

    Raises:
      ValueError: a problem has no gold answer, or none can be used.
    """
    answered = answering.answer_all(
      self.config,
      self.roles,
      params,
      self.source,
      batch_size=self.config.eval.batch_size,
      prover=self.prover,
      progress=progress,
    )
    local = {
      "index": answered.index.tolist(),
      "pass_at_1": metrics.pass_at_1(answered.correct).tolist(),
      "maj": metrics.maj_at_n(answered.answer_ids, answered.correct).tolist(),
    }
    parts = hosts.gather_json(local)
    index, shares, maj = (np.concatenate([part[name] for part in parts]) for name in local)
    order = np.argsort(index)
    return Outcome(answered.correct.shape[1], shares[order], maj[order])


def _check_golds(source: Source, problems: int) -> None:
  if not problems:
    raise ValueError(f"{source.name} has no records")
  for index in range(problems):
    if source.gold(index) is None:
      raise ValueError(f"record {index} of {source.name} has no answer to grade by")


def _check_overlap(found: overlap.Overlap, *, allowed: bool) -> None:
  shared, readable = found
  if shared and shared == readable and not allowed:
    raise ValueError(
      f"all {shared} held-out problems are training problems, so they would not measure what is"
      " learnt; see config.eval.path and config.eval.split, go without"
      " (config.eval.num_problems=0), or give config.eval.allow_training_problems=true"
    )
  if shared:
    logging.warning("%d of %d held-out problems are training problems", shared, readable)


def _greedy(
  config: ml_collections.ConfigDict, roles: rollout.Roles
) -> tuple[ml_collections.ConfigDict, rollout.Roles]:
  config, actor = answering.greedy(config), roles.actor
  return config, rollout.Roles.create(config, actor.config, roles.processor, actor.mesh)


@dataclasses.dataclass(frozen=True)
class _First:
  """The first records of a source."""

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
