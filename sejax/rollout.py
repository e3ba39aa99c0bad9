"""Trajectories and verdicts of a batch: the Actor samples, the Judge reads (method, steps 1 and 3).

Both sample with the same kind of sampler from prompts that are read once per question. A
candidate's text, special tokens left out, is what the Judge's trajectories begin with.

Axes: B prompts, G trajectories of each, M verdicts on each trajectory, R tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from sejax.data.batches import Batch
from sejax.models import qwen2_5_vl as qwen
from sejax.models.qwen2_5_vl.processor import Processor
from sejax.parallel import hosts
from sejax.sampling import Filters, Options, Request, Result, Role, Sampler
from sejax.sampling.sampler import Watch


def frozen_dtype(config: ml_collections.ConfigDict) -> jnp.dtype:
  """Returns the precision of weights that are not trained, and of the sampler's copy of others."""
  name = config.model.dtype
  if name == "auto":
    name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
  return jnp.dtype(name)


class Rollout(NamedTuple):
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
    config: ml_collections.ConfigDict,
    model: qwen.Config,
    processor: Processor,
    mesh: Mesh | None = None,
    judge_model: qwen.Config | None = None,
  ) -> "Roles":
    """Makes the samplers that a configuration describes.

    Args:
      config: the run's configuration; `group_size`, `actor`, `judge`, `sampling` and `model.dtype`
        are used.
      model: the Actor's.
      processor: of the model's directory.
      mesh: that is sampled on; the first device, if None.
      judge_model: the Judge's, if it is another.
    """

    def sampler(model: qwen.Config, role: ml_collections.ConfigDict, repeats: int) -> Sampler:
      banned = tuple(processor.banned_ids(model.text.vocab_size).tolist())
      options = Options(
        trajectories=config.group_size,
        new_tokens=role.max_tokens,
        filters=Filters(role.temperature, role.top_k, role.top_p, role.min_p, banned),
        eos_ids=processor.eos_ids,
        pad_id=processor.pad_id,
        repeats=repeats,
        groups=config.sampling.groups,
        run=config.sampling.run,
        pack=config.sampling.pack,
      )
      return Sampler(model, options, mesh, frozen_dtype(config))

    judge = sampler(judge_model or model, config.judge, config.judge.num_judge_repeats)
    return cls(processor, sampler(model, config.actor, 1), judge)

  def check_context(self, batch: Batch) -> None:
    """Refuses prompts beside which the Judge could not read candidates of full length.

    So that this is said before the candidates are sampled; what the Actor's own prompt and tokens
    come to, its sampler checks.

    Raises:
      ValueError: naming what would not fit into the model's context, and what would.
    """
    candidate, verdict = self.actor.options.new_tokens, self.judge.options.new_tokens
    tail = max(len(self.processor.continuation(tail, "")) for tail in batch.judge_tails)
    prompt, context = batch.judge.ids.shape[1], self.judge.config.text.max_position_embeddings
    if prompt + _padded(candidate + tail) + verdict > context:
      raise ValueError(
        f"the Judge's prompt of {prompt} tokens, config.actor.max_tokens={candidate} and"
        f" config.judge.max_tokens={verdict} are more than the model's context of {context}; lower"
        " one of the two"
      )

  def encode(self, params: qwen.Params, batch: Batch) -> Float[Array, "B s D"] | None:
    """Returns the features of the batch's images by the Actor's vision tower, if it has any."""
    return None if batch.images is None else _encode(params, self.actor.config, batch.images)

  def encode_for_judge(self, params: qwen.Params, batch: Batch) -> Float[Array, "B s D"] | None:
    """Returns the same by the Judge's."""
    return None if batch.images is None else _encode(params, self.judge.config, batch.images)

  def act(
    self,
    params: qwen.Params,
    batch: Batch,
    features: Float[Array, "B s D"] | None,
    *,
    seed: int,
    step: int,
    watch: Watch | None = None,
  ) -> Rollout:
    """Samples G trajectories for each prompt; a row that only pads gets empty ones.

    Args:
      params: the Actor's.
      batch: the prompts.
      features: of the batch's images, by the Actor's vision tower.
      seed: of the run.
      step: of the run.
      watch: see `Sampler`.
    """
    request = Request(batch.actor, batch.records, features, limits=_limits(self.actor, batch))
    return self._sample(self.actor, params, request, seed, step, Role.ACTOR, watch)

  def judge_all(
    self,
    params: qwen.Params,
    batch: Batch,
    features: Float[Array, "B s D"] | None,
    candidates: Sequence[Sequence[str]],
    *,
    seed: int,
    step: int,
    watch: Watch | None = None,
  ) -> Rollout:
    """Samples M verdicts on each candidate (method section 4); those on one stand side by side.

    Args:
      params: the Judge's.
      batch: the prompts.
      features: of the batch's images, by the Judge's vision tower.
      candidates: texts of G trajectories of each prompt.
      seed: of the run.
      step: of the run.
      watch: see `Sampler`.
    """
    given, lengths = self._given(batch, candidates)
    request = Request(
      batch.judge, batch.records, features, given, lengths, _limits(self.judge, batch)
    )
    return self._sample(self.judge, params, request, seed, step, Role.JUDGE, watch)

  def _given(
    self, batch: Batch, candidates: Sequence[Sequence[str]]
  ) -> tuple[Int[np.ndarray, "B G T"], Int[np.ndarray, "B G"]]:
    """Tokenizes candidates; T is a power of two, the same in all processes."""
    tokens = [
      [self.processor.continuation(tail, text) for text in texts]
      for tail, texts in zip(batch.judge_tails, candidates, strict=True)
    ]
    lengths = np.array([[len(row) for row in rows] for rows in tokens], np.int32)
    (longest,) = hosts.largest(int(lengths.max()))
    given = np.full((*lengths.shape, _padded(longest)), self.processor.pad_id, np.int32)
    for b, rows in enumerate(tokens):
      for g, row in enumerate(rows):
        given[b, g, : len(row)] = row
    return given, lengths

  def _sample(
    self,
    sampler: Sampler,
    params: qwen.Params,
    request: Request,
    seed: int,
    step: int,
    role: Role,
    watch: Watch | None,
  ) -> Rollout:
    result = sampler(params, request, seed=seed, step=step, role=role, watch=watch)
    texts = [
      [self.processor.decode(row[:n]) for row, n in zip(rows, lengths, strict=True)]
      for rows, lengths in zip(result.tokens, result.lengths, strict=True)
    ]
    return Rollout(result, texts)


_encode = jax.jit(qwen.encode, static_argnums=1)


def by_candidate(texts: Sequence[Sequence[str]], repeats: int) -> list[list[list[str]]]:
  """Returns the verdicts' texts `[B][G*M]` as `[B][G][M]`.

  Args:
    texts: of `Roles.judge_all`.
    repeats: M.
  """
  return [
    [list(row[start : start + repeats]) for start in range(0, len(row), repeats)] for row in texts
  ]


def _padded(longest: int) -> int:
  """Returns T, a power of two, for candidates of at most so many tokens."""
  return 1 << max(longest - 1, 0).bit_length()


def _limits(sampler: Sampler, batch: Batch) -> Int[np.ndarray, "B G"]:
  """Rows that only pad draw nothing."""
  options = sampler.options
  return np.where(batch.real, options.new_tokens, 0)[:, None].repeat(options.members, axis=1)
