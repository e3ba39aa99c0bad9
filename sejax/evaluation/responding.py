"""A model's responses to the problems of a benchmark, by our own sampler, in the problems' order.

A problem's samples depend on seed and id alone, and batches are cut the same way each time, so a
run that was stopped goes on with the responses that it would have got.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Collection, Iterator, Sequence

import ml_collections

from sejax import models, rollout
from sejax.data import columns
from sejax.data.prepare import Preparer
from sejax.data.records import Record
from sejax.evaluation import answering
from sejax.evaluation.benchmarks.protocol import Problem, Protocol, Stored
from sejax.parallel import hosts, layouts, meshes
from sejax.rollout import checks


@dataclasses.dataclass(frozen=True)
class Asked:
  """Problems as a source of records, which are asked as a protocol words them.

  Attributes:
    name: of the set.
    problems: in their order.
    protocol: words the prompts.
    folder: that image paths are relative to.
  """

  name: str
  problems: Sequence[Problem]
  protocol: Protocol
  folder: pathlib.Path

  def __len__(self) -> int:
    return len(self.problems)

  def __getitem__(self, index: int) -> Record:
    problem = self.problems[index]
    row = {"question": self.protocol.prompt(problem), "images": list(problem.images)}
    return columns.read_record(problem.id, row, self.folder)

  def gold(self, index: int) -> str:
    """Returns the answer, which no model is told."""
    return self.problems[index].gold


class Responder:
  """A model that answers benchmarks; several sets share its compiled programs."""

  def __init__(self, config: ml_collections.ConfigDict):
    """Loads the model.

    Args:
      config: of the run; `model`, `actor`, `group_size`, `mesh`, `sampling`, `data` and `eval` are
        used.

    Raises:
      ValueError: naming what cannot work.
    """
    if not config.model.path:
      raise ValueError(
        "config.model.path is empty; give the model to evaluate, or stored responses to grade as"
        " config.eval.predictions"
      )
    if config.eval.greedy:
      config = answering.greedy(config)
    self._config = config
    self._mesh = meshes.create(config.mesh)
    layouts.check_rows(self._mesh, "eval.batch_size", config.eval.batch_size)
    checks.check_processes(self._mesh)
    model = models.load_config(config.model.path)
    checks.check_buckets(config, model)
    processor = self._preparer(None).processor
    checks.check_directory(config.model.path, model, processor)
    checks.check_pictures(config, processor)
    dtype = rollout.frozen_dtype(config)
    _, self._params = models.load(config.model.path, self._mesh, dtype, decoding=True)
    self._roles = rollout.Roles.create(config, model, processor, self._mesh)

  @property
  def samples(self) -> int:
    """Responses to each problem."""
    return self._config.group_size

  def __call__(self, asked: Asked, done: Collection[str]) -> Iterator[list[tuple[Problem, Stored]]]:
    """Yields the responses of one batch after the other, in the problems' order.

    Problems whose prompt or images cannot be used are left out, and logged. All processes get all
    responses.

    Args:
      asked: the problems.
      done: ids of those that have responses already.
    """
    config, roles = self._config, self._roles
    size = config.eval.batch_size
    for batch in answering.in_order(config, roles, self._preparer(asked), size):
      ids = [name for name, real in zip(batch.record_ids, batch.real, strict=True) if real]
      waiting = hosts.gather_json([name for name in ids if name not in done])
      if not any(waiting):
        continue
      features = roles.encode(self._params, batch)
      acted = roles.act(self._params, batch, features, seed=config.seed, step=0)
      mine = [
        (int(index), texts)
        for index, texts, real in zip(batch.index, acted.texts, batch.real, strict=True)
        if real
      ]
      found = sorted(row for part in hosts.gather_json(mine) for row in part)
      problems = ((asked.problems[index], texts) for index, texts in found)
      yield [(p, Stored(p.id, tuple(texts))) for p, texts in problems if p.id not in done]

  def _preparer(self, asked: Asked | None) -> Preparer:
    """Prompts go to the Actor alone, so only its limits count."""
    preparer = Preparer.of(self._config, asked)
    instruction = self._config.eval.instruction
    return dataclasses.replace(
      preparer, instruction=instruction, judged=False, judge_limit=sys.maxsize
    )
