"""Samples a model's answers to the problems of a source and grades them by the gold answers.

Axes: N problems, G samples of each.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
import tqdm
from jaxtyping import Bool, Float32, Int, Int32

from sejax import models, rewards, rollout
from sejax.data import batches
from sejax.data.pipeline import Options, Pipeline
from sejax.data.prepare import Preparer
from sejax.data.records import Source
from sejax.text import answers
from sejax.text.equivalence import Prover


class Answers(NamedTuple):
  """Graded trajectories, with a Judge's scores if there is one.

  Attributes:
    index: positions of the problems in the source.
    texts: the trajectories, N lists of G.
    answer_ids: within a problem, equal answers have equal ids; `ABSTAIN` if there is no answer.
    correct: whether the answer agrees with the gold answer.
    format_ok: whether the trajectory has the required output format.
    lengths: tokens of the trajectory.
    truncated: whether the trajectory was cut off at the token limit.
    judge_scores: mean of the valid verdicts; 0 if there is none.
    judge_valid: whether there is a valid verdict.
  """

  index: Int[np.ndarray, " N"]
  texts: list[list[str]]
  answer_ids: Int32[np.ndarray, "N G"]
  correct: Bool[np.ndarray, "N G"]
  format_ok: Bool[np.ndarray, "N G"]
  lengths: Int32[np.ndarray, "N G"]
  truncated: Bool[np.ndarray, "N G"]
  judge_scores: Float32[np.ndarray, "N G"]
  judge_valid: Bool[np.ndarray, "N G"]


def answer_all(
  config: ml_collections.ConfigDict,
  roles: rollout.Roles,
  params: models.Params,
  source: Source,
  *,
  batch_size: int,
  prover: Prover,
  judge: models.Params | None = None,
  progress: str = "",
) -> Answers:
  """Samples `config.group_size` answers to each problem of a source and grades them.

  Args:
    config: `model.path`, `actor.instruction`, `judge`, `answers`, `data` and `seed` are used.
    roles: samplers of the Actor and the Judge.
    params: the Actor's parameters.
    source: the problems; unusable records are logged and left out.
    batch_size: problems sampled together, over all processes.
    prover: compares answers with the gold answers.
    judge: the Judge's parameters; None skips the Judge.
    progress: label of a progress bar; empty shows none.

  Returns:
    The answers to this process's share of the problems, in the source's order.

  Raises:
    ValueError: a problem has no gold answer, or no record is usable.
  """
  preparer = dataclasses.replace(Preparer.of(config, source), judged=judge is not None)
  reader = batches_in_order(config, roles, preparer, batch_size)
  total = -(-len(source) // batch_size)
  parts = []
  for batch in tqdm.tqdm(reader, progress, total, disable=not progress):
    features = roles.encode(params, batch)
    acted = roles.act(params, batch, features, seed=config.seed, step=0)
    verdicts = None
    if judge is not None:
      if judge is not params:
        features = roles.encode_for_judge(judge, batch)
      judged = roles.judge_all(judge, batch, features, acted.texts, seed=config.seed, step=0)
      verdicts = rollout.by_candidate(judged, config.judge.num_judge_repeats)
    parts.append(_grade(config, source, batch, acted, verdicts, prover))
  if not parts:
    raise ValueError(f"no record of {source.name} can be used; see --mode=inspect")
  texts = [row for part in parts for row in part.texts]
  joined = {
    name: np.concatenate([getattr(part, name) for part in parts])
    for name in Answers._fields
    if name != "texts"
  }
  return Answers(texts=texts, **joined)


def greedy(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Returns a copy of a configuration with a single greedy sample per problem."""
  config = config.copy_and_resolve_references()
  config.group_size, config.actor.temperature = 1, 0.0
  return config


def batches_in_order(
  config: ml_collections.ConfigDict, roles: rollout.Roles, preparer: Preparer, batch_size: int
) -> Iterator[batches.Batch]:
  """Yields the batches of one pass over a source, in its order, without unusable records.

  Args:
    config: `data` is used.
    roles: give the Actor's model configuration and processor.
    preparer: makes the examples.
    batch_size: problems per batch, over all processes.
  """
  processes = jax.process_count()
  options = Options(
    batch_size=batch_size, workers=config.data.workers, max_bad_share=1.0, once=True
  )
  collate = batches.Collator(
    model=roles.actor.model,
    dataset=preparer.source.name,
    rows=batch_size // processes,
    buckets=batches.Buckets.of(config.data),
    pad_id=roles.processor.pad_id,
  )
  pipeline = Pipeline(preparer, options, process=jax.process_index(), processes=processes)
  return map(collate, pipeline)


def _grade(
  config: ml_collections.ConfigDict,
  source: Source,
  batch: batches.Batch,
  acted: rollout.Completions,
  verdicts: tuple[list[list[list[str]]], list[list[list[bool]]]] | None,
  prover: Prover,
) -> Answers:
  """Grades a batch.

  Args:
    config: `answers` and `judge` are used.
    source: has the gold answers.
    batch: the problems, perhaps with padding rows.
    acted: the Actor's trajectories.
    verdicts: for each trajectory, texts of the Judge's verdicts and whether each was truncated;
      None without a Judge.
    prover: compares answers with the gold answers.
  """
  real = batch.real
  texts = _rows(acted.texts, real)
  extracted, answer_ids = rewards.read_answers(texts, config)
  golds = [_gold(source, int(index)) for index in batch.index[real]]
  scores = np.zeros(answer_ids.shape, np.float32)
  valid = np.zeros(answer_ids.shape, bool)
  if verdicts is not None:
    verdict_texts, verdict_truncated = verdicts
    read = rewards.read_verdicts(
      _rows(verdict_texts, real), config.judge, _rows(verdict_truncated, real)
    )
    scores, valid = read.scores, read.valid
  return Answers(
    index=batch.index[real],
    texts=texts,
    answer_ids=answer_ids,
    correct=prover.grade(extracted, golds),
    format_ok=np.array([[answers.format_ok(text) for text in row] for row in texts], bool),
    lengths=acted.result.lengths[real],
    truncated=acted.result.truncated[real],
    judge_scores=scores,
    judge_valid=valid,
  )


def _rows(values: list[Any], real: Bool[np.ndarray, " B"]) -> list[Any]:
  """Returns the values without those of padding rows."""
  return [value for value, is_real in zip(values, real, strict=True) if is_real]


def _gold(source: Source, index: int) -> str:
  gold = source.gold(index)
  if gold is None:
    raise ValueError(f"record {index} of {source.name} has no gold answer to grade by")
  return gold
