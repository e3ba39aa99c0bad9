"""Samples a model's responses to the problems of a benchmark, in the problems' order.

The samples of a problem depend on the seed and its id alone, and batches are always formed alike.
An interrupted evaluation therefore resumes with the responses that it would have sampled anyway.
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
from sejax.evaluation.benchmarks.protocol import Problem, Protocol, StoredAnswers
from sejax.parallel import hosts, layouts, meshes
from sejax.rollout import checks


@dataclasses.dataclass(frozen=True)
class BenchmarkSource:
  """The problems of a benchmark as a `Source`, with the prompts of a protocol as questions.

  Attributes:
    name: name of the benchmark.
    problems: the problems.
    protocol: gives the prompts.
    folder: base of relative image paths.
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
    """Returns the gold answer, which is never part of a prompt."""
    return self.problems[index].gold


class Responder:
  """The evaluated model. One instance serves all benchmarks, which share its compiled programs."""

  def __init__(self, config: ml_collections.ConfigDict):
    """Loads the model.

    Args:
      config: `model`, `actor`, `group_size`, `mesh`, `sampling`, `data` and `eval` are used.

    Raises:
      ValueError: the model cannot be loaded, or an option cannot work with it.
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
    """Number of responses to each problem."""
    return self._config.group_size

  def __call__(
    self, source: BenchmarkSource, done: Collection[str]
  ) -> Iterator[list[tuple[Problem, StoredAnswers]]]:
    """Yields the responses to one batch of problems after the other.

    Problems whose prompt or images are unusable are logged and left out. All processes get the
    responses of all processes.

    Args:
      source: the problems.
      done: ids of problems that have responses already.
    """
    config, roles = self._config, self._roles
    size = config.eval.batch_size
    for batch in answering.batches_in_order(config, roles, self._preparer(source), size):
      ids = [name for name, real in zip(batch.record_ids, batch.real, strict=True) if real]
      new = hosts.gather_json([name for name in ids if name not in done])
      if not any(new):
        continue
      features = roles.encode(self._params, batch)
      acted = roles.act(self._params, batch, features, seed=config.seed, step=0)
      own = [
        (int(index), texts)
        for index, texts, real in zip(batch.index, acted.texts, batch.real, strict=True)
        if real
      ]
      rows = sorted(row for part in hosts.gather_json(own) for row in part)
      problems = ((source.problems[index], texts) for index, texts in rows)
      yield [(p, StoredAnswers(p.id, tuple(texts))) for p, texts in problems if p.id not in done]

  def _preparer(self, source: BenchmarkSource | None) -> Preparer:
    """Returns a preparer without a Judge and its limits; a source of None is for the processor."""
    preparer = Preparer.of(self._config, source)
    instruction = self._config.eval.instruction
    return dataclasses.replace(
      preparer, instruction=instruction, judged=False, judge_limit=sys.maxsize
    )
