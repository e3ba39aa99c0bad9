"""Actor and Judge: sample trajectories of a batch, and verdicts on them (arXiv:2603.21289).

Each role is a sampler with options of its own. The Judge's prompt is prefilled once per question;
each of its sequences starts with the text of a trajectory, without special tokens, as given tokens.

Axes: B prompts, G trajectories of a prompt, M verdicts on a trajectory, T given tokens.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import DTypeLike, Int

from sejax import models
from sejax.data.batches import Batch
from sejax.models.processor import Processor
from sejax.parallel import hosts
from sejax.rollout.expected_score import ScoreTag
from sejax.sampling import Finish, Options, Progress, Request, Result, Role, Sampler, Watch
from sejax.text import boxes

# Tokens reserved for the tail that closes a candidate, so that one of full length still fits into
# the power of two.
_TAIL = 32


@dataclasses.dataclass(frozen=True)
class RoleOptions:
  """Sampling options of both roles, still without the token ids of a vocabulary.

  Attributes:
    actor: options for trajectories.
    judge: options for verdicts; `repeats` is the number of verdicts on each trajectory, M.
    expected: whether scores are read as expectations, see `expected_score`; no verdict is
      generated then.
  """

  actor: Options
  judge: Options
  expected: bool = False

  def greedy(self) -> Self:
    """Returns the options for one greedily decoded trajectory per prompt, and M verdicts on it."""
    filters = dataclasses.replace(self.actor.filters, temperature=0.0)
    return dataclasses.replace(
      self,
      actor=dataclasses.replace(
        self.actor, trajectories=1, filters=filters, certainty_temperature=None
      ),
      judge=dataclasses.replace(self.judge, trajectories=1),
    )


def with_tokens(options: Options, processor: Processor, model: models.Model) -> Options:
  """Returns the options with the processor's banned, end-of-sequence and padding token ids."""
  banned = tuple(processor.banned_ids(model.vocab_size).tolist())
  filters = dataclasses.replace(options.filters, banned=banned)
  return dataclasses.replace(
    options, filters=filters, eos_ids=processor.eos_ids, pad_id=processor.pad_id
  )


# Reads the texts of a prompt's sequences, given also which of them were truncated.
ReadGroup = Callable[[list[str], list[bool]], Any]


class Completions(NamedTuple):
  """Sampled trajectories `[B,G]` or verdicts `[B,G*M]`, as tokens and as texts.

  Attributes:
    result: tokens.
    texts: without special tokens.
    readings: what the caller's `ReadGroup` returned for each prompt; empty without one.
  """

  result: Result
  texts: list[list[str]]
  readings: list[Any]


class _TextReader:
  """Decodes and reads the texts of complete prompts while others are sampled; a `Watch`."""

  def __init__(self, processor: Processor, read: ReadGroup | None, watch: Watch | None):
    self._processor, self._read, self._watch = processor, read, watch
    self._texts: dict[int, list[str]] = {}
    self._readings: dict[int, Any] = {}

  def __call__(self, progress: Progress) -> None:
    # First, as it may send work to the devices.
    if self._watch:
      self._watch(progress)
    for b in np.flatnonzero(progress.complete).tolist():
      if b not in self._texts:
        sequences = zip(progress.tokens[b], progress.lengths[b], strict=True)
        texts = [self._processor.decode(tokens[:length]) for tokens, length in sequences]
        self._texts[b] = texts
        if self._read:
          self._readings[b] = self._read(texts, progress.truncated[b].tolist())

  def completions(self, result: Result) -> Completions:
    """Returns the texts with the result of the call, which has ended."""
    texts = [self._texts[b] for b in range(len(result.lengths))]
    return Completions(result, texts, [self._readings[b] for b in sorted(self._readings)])


class Roles(NamedTuple):
  """The samplers of Actor and Judge.

  Attributes:
    processor: the Actor's; both roles read and write its tokens.
    score_tag: how expected scores are read; None where verdicts are generated.
  """

  processor: Processor
  actor: Sampler
  judge: Sampler
  score_tag: ScoreTag | None = None

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
    """Creates both samplers.

    Args:
      processor: the Actor's.
      mesh: None is the first device.
      dtype: precision of the samplers' weights and KV caches.

    Raises:
      ValueError: the tokenizer writes scores in a way that cannot be read as expectations.
    """
    judge_options = with_tokens(options.judge, processor, judge)
    tag = ScoreTag.of(processor) if options.expected else None
    return cls(
      processor,
      actor=Sampler(actor, with_tokens(options.actor, processor, actor), mesh, dtype),
      judge=Sampler(judge, tag.options(judge_options) if tag else judge_options, mesh, dtype),
      score_tag=tag,
    )

  def check_context(self, batch: Batch) -> None:
    """Checks that the Judge's context holds its prompts and candidates of full length.

    Only `--mode=sample` calls it, before it samples. Training checks the largest bucket when it
    starts, see `checks.check_prompts`. The Actor's own lengths are checked by its sampler.

    Raises:
      ValueError: see `check_lengths`.
    """
    tail = max(len(self.processor.tokenize_candidate(tail, "")) for tail in batch.judge_tails)
    self.check_lengths(batch.judge.ids.shape[1], tail)

  def check_lengths(self, prompt: int, tail: int) -> None:
    """Checks that the Judge's context holds a prompt, a candidate of full length and a verdict.

    Args:
      prompt: number of tokens of the Judge's prompt, with padding.
      tail: number of tokens that close a candidate.

    Raises:
      ValueError: it does not; the message names the lengths and the options to lower.
    """
    candidate, verdict = self.actor.options.max_new_tokens, self.judge.options.max_new_tokens
    context = self.judge.model.context
    tail += len(self._opening)
    if prompt + padded_length(candidate + tail) + verdict > context:
      lower = "lower one of the two"
      reply = f"config.judge.max_tokens={verdict}"
      if self.score_tag:
        lower, reply = "lower the latter", f"{len(self._opening) + verdict} of the score"
      raise ValueError(
        f"the Judge's prompt of {prompt} tokens, config.actor.max_tokens={candidate} and"
        f" {reply} are more than the model's context of {context}; {lower}, or choose"
        " config.judge.rubric=short and a lower config.data.max_pixels"
      )

  def encode(self, params: models.Params, batch: Batch) -> models.Features | None:
    """Returns the image features of the Actor's vision tower; None for a batch without images."""
    return None if batch.packed_images is None else self.actor.encode(params, batch.packed_images)

  def encode_for_judge(self, params: models.Params, batch: Batch) -> models.Features | None:
    """Returns the image features of the Judge's vision tower; None for a batch without images."""
    return None if batch.packed_images is None else self.judge.encode(params, batch.packed_images)

  def act(
    self,
    params: models.Params,
    batch: Batch,
    features: models.Features | None,
    *,
    seed: int,
    step: int,
    role: Role = Role.ACTOR,
    read: ReadGroup | None = None,
    watch: Watch | None = None,
  ) -> Completions:
    """Samples G trajectories for each prompt; those of padding rows are empty.

    Args:
      params: the Actor's, in any layout and precision.
      features: from `encode`.
      role: the Actor, or another that answers with its model.
      read: reads the texts of each prompt, while others are sampled.
      watch: see `Sampler`, which also names the errors.
    """
    request = Request(batch.actor, batch.record_hashes, features, limits=_limits(self.actor, batch))
    reader = _TextReader(self.processor, read, watch)
    result = self.actor(params, request, seed=seed, step=step, role=role, watch=reader)
    return reader.completions(result)

  def judge_all(
    self,
    params: models.Params,
    batch: Batch,
    features: models.Features | None,
    candidates: Sequence[Sequence[str]],
    *,
    seed: int,
    step: int,
    read: ReadGroup | None = None,
    watch: Watch | None = None,
  ) -> Completions:
    """Samples M verdicts on each candidate (arXiv:2603.21289).

    They come as `[B, G*M]`, the M verdicts on a candidate adjacent. Where scores are expectations,
    a verdict is the score in its tag, and none is truncated.

    Args:
      params: the Judge's, in any layout and precision.
      features: from `encode_for_judge`, or from `encode` where both towers are the same.
      candidates: texts of G trajectories of each prompt.
      read: reads the texts of the G*M verdicts of each prompt, while others are sampled.
      watch: see `Sampler`, which also names the errors.

    Raises:
      ValueError: a candidate cannot be tokenized.
    """
    given, lengths = self._tokenize_candidates(batch, candidates)
    request = Request(
      batch.judge, batch.record_hashes, features, given, lengths, _limits(self.judge, batch)
    )
    if self.score_tag is not None:
      result = self.judge(params, request, seed=seed, step=step, role=Role.JUDGE, watch=watch)
      return self._expected(result, read)
    reader = _TextReader(self.processor, read, watch)
    result = self.judge(params, request, seed=seed, step=step, role=Role.JUDGE, watch=reader)
    return reader.completions(result)

  def _expected(self, result: Result, read: ReadGroup | None) -> Completions:
    """Returns the expected scores as verdicts."""
    scores = self.score_tag.expectation(result.watched_logp)
    texts = [[f"{boxes.OPENER}{score:.6f}}}" for score in row] for row in scores.tolist()]
    readings = [read(row, [False] * len(row)) for row in texts] if read else []
    finish = np.full_like(result.finish, Finish.STOP_STRING)
    return Completions(result._replace(finish=finish), texts, readings)

  @property
  def _opening(self) -> tuple[int, ...]:
    """Tokens that the Judge's reply is made to open with."""
    return self.score_tag.opening if self.score_tag else ()

  def _tokenize_candidates(
    self, batch: Batch, candidates: Sequence[Sequence[str]]
  ) -> tuple[Int[np.ndarray, "B G T"], Int[np.ndarray, "B G"]]:
    """Returns the given tokens and their number; T is equal on all processes (`padded_length`)."""
    tokens = [
      [[*self.processor.tokenize_candidate(tail, text), *self._opening] for text in texts]
      for tail, texts in zip(batch.judge_tails, candidates, strict=True)
    ]
    lengths = np.array([[len(row) for row in rows] for rows in tokens], np.int32)
    (longest,) = hosts.max_over_processes(int(lengths.max()))
    given = np.full((*lengths.shape, padded_length(longest)), self.processor.pad_id, np.int32)
    for b, rows in enumerate(tokens):
      for g, row in enumerate(rows):
        given[b, g, : len(row)] = row
    return given, lengths


def by_candidate(
  judged: Completions, repeats: int
) -> tuple[list[list[list[str]]], list[list[list[bool]]]]:
  """Returns the texts of verdicts, and whether each was cut at the limit, as `[B][G][M]`.

  Args:
    judged: from `Roles.judge_all`, with rows of G*M.
    repeats: M.
  """
  truncated = judged.result.truncated.tolist()
  return tuple([split_repeats(row, repeats) for row in rows] for rows in (judged.texts, truncated))


def split_repeats(row: list, repeats: int) -> list[list]:
  """Splits what belongs to the G*M verdicts on a prompt by candidate, `[G][M]`."""
  return [row[n : n + repeats] for n in range(0, len(row), repeats)]


def padded_length(longest: int) -> int:
  """Returns the padded length T of candidates, one of few, as each compiles a program.

  It is `_TAIL` plus the smallest power of two, at least 16, with which the candidate fits.

  Args:
    longest: tokens of the longest candidate and its tail.
  """
  power = 16
  while _TAIL + power < longest:
    power *= 2
  return _TAIL + power


def _limits(sampler: Sampler, batch: Batch) -> Int[np.ndarray, "B members"]:
  """Returns the token limit of each sequence: `max_new_tokens`, and 0 in padding rows.

  The members of a prompt are the Actor's G trajectories or the Judge's G*M verdicts.
  """
  options = sampler.options
  return np.where(batch.real, options.max_new_tokens, 0)[:, None].repeat(options.members, axis=1)
