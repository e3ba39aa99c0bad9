"""Trajectories and verdicts of a batch: the Actor samples, the Judge reads (arXiv:2603.21289).

Both sample with the same kind of sampler from prompts that are read once per question. A
candidate's text, special tokens left out, is what the Judge's trajectories begin with.

Axes: B prompts, G trajectories of each, M verdicts on each trajectory, R tokens.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Self

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import DTypeLike, Int

from sejax import models
from sejax.data.batches import Batch
from sejax.models.processor import Processor
from sejax.parallel import hosts
from sejax.sampling import Options, Request, Result, Role, Sampler
from sejax.sampling.sampler import Watch

_TAIL = 32  # Tokens that close a candidate, at least, so that one of full length takes no more.


@dataclasses.dataclass(frozen=True)
class RoleOptions:
  """How Actor and Judge sample, before a processor adds the ids of its tokens.

  Attributes:
    actor: of the trajectories.
    judge: of the verdicts; its `repeats` are those on each trajectory, M.
  """

  actor: Options
  judge: Options

  def greedy(self) -> Self:
    """Returns the options for a single trajectory of each prompt, the most likely one."""
    filters = dataclasses.replace(self.actor.filters, temperature=0.0)
    return dataclasses.replace(
      self,
      actor=dataclasses.replace(self.actor, trajectories=1, filters=filters),
      judge=dataclasses.replace(self.judge, trajectories=1),
    )


def with_tokens(options: Options, processor: Processor, model: models.Model) -> Options:
  """Returns sampling options with the ids of a vocabulary: of what is banned, ends and pads."""
  banned = tuple(processor.banned_ids(model.vocab_size).tolist())
  filters = dataclasses.replace(options.filters, banned=banned)
  return dataclasses.replace(
    options, filters=filters, eos_ids=processor.eos_ids, pad_id=processor.pad_id
  )


class Completions(NamedTuple):
  """What was sampled: `[B,G]` trajectories or `[B,G*M]` verdicts, and their texts."""

  result: Result
  texts: list[list[str]]


class Roles(NamedTuple):
  """The samplers of Actor and Judge for one run."""

  processor: Processor
  actor: Sampler
  judge: Sampler

  @classmethod
  def create(
    cls,
    options: RoleOptions,
    processor: Processor,
    *,
    actor: models.Model,
    judge: models.Model,
    mesh: Mesh | None = None,
    dtype: DTypeLike = jnp.float32,
  ) -> Self:
    """Makes both samplers.

    Args:
      options: how they sample.
      processor: of the Actor's directory; both roles read and write its tokens.
      actor: the Actor's model.
      judge: the Judge's.
      mesh: that is sampled on; the first device, if None.
      dtype: of weights and caches.
    """

    def sampler(model: models.Model, options: Options) -> Sampler:
      return Sampler(model, with_tokens(options, processor, model), mesh, dtype)

    return cls(processor, sampler(actor, options.actor), sampler(judge, options.judge))

  def check_context(self, batch: Batch) -> None:
    """Refuses prompts beside which the Judge could not read candidates of full length.

    So that this is said before the candidates are sampled; what the Actor's own prompt and tokens
    come to, its sampler checks.

    Raises:
      ValueError: as `check_lengths`.
    """
    tail = max(len(self.processor.continuation(tail, "")) for tail in batch.judge_tails)
    self.check_lengths(batch.judge.ids.shape[1], tail)

  def check_lengths(self, prompt: int, tail: int) -> None:
    """Refuses a length of the Judge's prompts, as `check_context` does.

    Args:
      prompt: tokens of the Judge's prompt.
      tail: tokens that close a candidate.

    Raises:
      ValueError: naming what would not fit into the model's context, and what would.
    """
    candidate, verdict = self.actor.options.new_tokens, self.judge.options.new_tokens
    context = self.judge.model.context
    if prompt + padded(candidate + tail) + verdict > context:
      raise ValueError(
        f"the Judge's prompt of {prompt} tokens, config.actor.max_tokens={candidate} and"
        f" config.judge.max_tokens={verdict} are more than the model's context of {context}; lower"
        " one of the two, or choose config.judge.rubric=short and a lower config.data.max_pixels"
      )

  def encode(self, params: models.Params, batch: Batch) -> models.Features | None:
    """Returns the features of the batch's images by the Actor's vision tower, if it has any."""
    return None if batch.images is None else self.actor.encode(params, batch.images)

  def encode_for_judge(self, params: models.Params, batch: Batch) -> models.Features | None:
    """Returns the same by the Judge's."""
    return None if batch.images is None else self.judge.encode(params, batch.images)

  def act(
    self,
    params: models.Params,
    batch: Batch,
    features: models.Features | None,
    *,
    seed: int,
    step: int,
    watch: Watch | None = None,
  ) -> Completions:
    """Samples G trajectories for each prompt; a row that only pads gets empty ones.

    Args:
      params: the Actor's.
      batch: the prompts.
      features: of the batch's images, by the Actor's vision tower.
      seed: of the run.
      step: of the run.
      watch: see `Sampler`.

    Raises:
      ValueError: `Sampler` refuses the request.
    """
    request = Request(batch.actor, batch.records, features, limits=_limits(self.actor, batch))
    return self._sample(self.actor, params, request, seed, step, Role.ACTOR, watch)

  def judge_all(
    self,
    params: models.Params,
    batch: Batch,
    features: models.Features | None,
    candidates: Sequence[Sequence[str]],
    *,
    seed: int,
    step: int,
    watch: Watch | None = None,
  ) -> Completions:
    """Samples M verdicts on each candidate (arXiv:2603.21289); those on one stand side by side.

    Args:
      params: the Judge's.
      batch: the prompts.
      features: of the batch's images, by the Judge's vision tower.
      candidates: texts of G trajectories of each prompt.
      seed: of the run.
      step: of the run.
      watch: see `Sampler`.

    Raises:
      ValueError: a candidate cannot be tokenized, or `Sampler` refuses the request.
    """
    given, lengths = self._given(batch, candidates)
    request = Request(
      batch.judge, batch.records, features, given, lengths, _limits(self.judge, batch)
    )
    return self._sample(self.judge, params, request, seed, step, Role.JUDGE, watch)

  def _given(
    self, batch: Batch, candidates: Sequence[Sequence[str]]
  ) -> tuple[Int[np.ndarray, "B G T"], Int[np.ndarray, "B G"]]:
    """Tokenizes candidates; T is one of a few sizes, the same in all processes."""
    tokens = [
      [self.processor.continuation(tail, text) for text in texts]
      for tail, texts in zip(batch.judge_tails, candidates, strict=True)
    ]
    lengths = np.array([[len(row) for row in rows] for rows in tokens], np.int32)
    (longest,) = hosts.max_over_processes(int(lengths.max()))
    given = np.full((*lengths.shape, padded(longest)), self.processor.pad_id, np.int32)
    for b, rows in enumerate(tokens):
      for g, row in enumerate(rows):
        given[b, g, : len(row)] = row
    return given, lengths

  def _sample(
    self,
    sampler: Sampler,
    params: models.Params,
    request: Request,
    seed: int,
    step: int,
    role: Role,
    watch: Watch | None,
  ) -> Completions:
    result = sampler(params, request, seed=seed, step=step, role=role, watch=watch)
    texts = [
      [self.processor.decode(row[:n]) for row, n in zip(rows, lengths, strict=True)]
      for rows, lengths in zip(result.tokens, result.lengths, strict=True)
    ]
    return Completions(result, texts)


def by_candidate(
  judged: Completions, repeats: int
) -> tuple[list[list[list[str]]], list[list[list[bool]]]]:
  """Returns the verdicts' texts, and whether each was cut at the limit, as `[B][G][M]`.

  Args:
    judged: from `Roles.judge_all`, with rows of G*M.
    repeats: M.
  """
  texts, cut = (
    [[list(row[n : n + repeats]) for n in range(0, len(row), repeats)] for row in rows]
    for rows in (judged.texts, judged.result.truncated.tolist())
  )
  return texts, cut


def padded(longest: int) -> int:
  """Returns T for candidates of at most so many tokens: a power of two, and room for their tail."""
  return _TAIL + (1 << max(longest - _TAIL - 1, 15).bit_length())


def _limits(sampler: Sampler, batch: Batch) -> Int[np.ndarray, "B G"]:
  """Rows that only pad draw nothing."""
  options = sampler.options
  return np.where(batch.real, options.new_tokens, 0)[:, None].repeat(options.members, axis=1)
