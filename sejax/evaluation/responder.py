"""Samples a model's responses to the problems of a benchmark, in the problems' order.

The samples of a problem depend on the seed and its id alone, and batches are always formed alike.
An interrupted evaluation therefore resumes with the responses that it would have sampled anyway.
"""

import dataclasses
import sys
from collections.abc import Callable, Collection, Iterator, Sequence

from sejax import rollout, storage
from sejax.data import columns
from sejax.data.prepare import Preparer
from sejax.data.records import Record
from sejax.evaluation import answering
from sejax.evaluation.benchmarks.protocol import Problem, Protocol, StoredAnswers
from sejax.parallel import hosts


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
  folder: storage.Path

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

  def __init__(
    self,
    model_directory: rollout.ModelDirectory,
    role_options: rollout.RoleOptions,
    options: answering.Options,
    make_preparer: Callable[[BenchmarkSource], Preparer],
  ):
    """Loads the weights.

    Args:
      model_directory: the model.
      role_options: how it samples.
      options: how problems are answered.
      make_preparer: of the problems of a benchmark.

    Raises:
      ValueError: the model cannot be loaded, or an option cannot work with it.
    """
    self._params = model_directory.load(decoding=True)
    self._roles = model_directory.roles(role_options)
    self._options, self._make_preparer = options, make_preparer

  @property
  def samples(self) -> int:
    """Number of responses to each problem."""
    return self._roles.actor.options.trajectories

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
    roles, seed = self._roles, self._options.seed
    # No Judge reads the responses, so that its limit does not count.
    preparer = dataclasses.replace(
      self._make_preparer(source), judged=False, judge_limit=sys.maxsize
    )
    for batch in answering.batches_in_order(self._options, roles, preparer):
      ids = [name for name, real in zip(batch.record_ids, batch.real, strict=True) if real]
      new = hosts.gather_json([name for name in ids if name not in done])
      if not any(new):
        continue
      features = roles.encode(self._params, batch)
      acted = roles.act(self._params, batch, features, seed=seed, step=0)
      own = [
        (int(index), texts)
        for index, texts, real in zip(batch.index, acted.texts, batch.real, strict=True)
        if real
      ]
      rows = sorted(row for part in hosts.gather_json(own) for row in part)
      problems = ((source.problems[index], texts) for index, texts in rows)
      yield [(p, StoredAnswers(p.id, tuple(texts))) for p, texts in problems if p.id not in done]
