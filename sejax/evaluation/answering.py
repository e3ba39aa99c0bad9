"""Samples a model's answers to the problems of a source and grades them by the gold answers.

Axes: N problems, G samples of each.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm
from jaxtyping import Bool, Float32, Int, Int32

from sejax import models, rewards, rollout
from sejax.data import batches, pipeline
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """How the problems of a source are answered.

  Attributes:
    batch_size: problems sampled together, over all processes.
    buckets: lengths that arrays are padded to.
    workers: processes that prepare examples; 0: threads.
    seed: random seed of the samples, from 0 to 2**32 - 1.
    reading: how answers and verdicts are read.
  """

  batch_size: int
  buckets: batches.Buckets
  workers: int
  seed: int
  reading: rewards.Reading


def answer_all(
  options: Options,
  roles: rollout.Roles,
  params: models.Params,
  preparer: Preparer,
  *,
  prover: Prover,
  judge: models.Params | None = None,
  label: str = "",
) -> Answers:
  """Samples G answers to each problem of a source and grades them.

  Args:
    options: how to answer.
    roles: samplers of the Actor and the Judge.
    params: the Actor's parameters.
    preparer: of the problems; unusable records are logged and left out.
    prover: compares answers with the gold answers.
    judge: the Judge's parameters; None skips the Judge.
    label: label of a progress bar; empty shows none.

  Returns:
    The answers to this process's share of the problems, in the source's order.

  Raises:
    ValueError: a problem has no gold answer, or no record is usable.
  """
  source = preparer.source
  preparer = dataclasses.replace(preparer, judged=judge is not None)
  reader = batches_in_order(options, roles, preparer)
  total = -(-len(source) // options.batch_size)
  parts = []
  for batch in tqdm.tqdm(reader, label, total, disable=not label):
    features = roles.encode(params, batch)
    acted = roles.act(params, batch, features, seed=options.seed, step=0)
    verdicts = None
    if judge is not None:
      if judge is not params:
        features = roles.encode_for_judge(judge, batch)
      judged = roles.judge_all(judge, batch, features, acted.texts, seed=options.seed, step=0)
      verdicts = rollout.by_candidate(judged, roles.judge.options.repeats)
    parts.append(_grade(options.reading, source, batch, acted, verdicts, prover))
  if not parts:
    raise ValueError(f"no record of {source.name} can be used; see --mode=inspect")
  texts = [row for part in parts for row in part.texts]
  joined = {
    name: np.concatenate([getattr(part, name) for part in parts])
    for name in Answers._fields
    if name != "texts"
  }
  return Answers(texts=texts, **joined)


def batches_in_order(
  options: Options, roles: rollout.Roles, preparer: Preparer
) -> Iterator[batches.Batch]:
  """Yields the batches of one pass over a source, in its order, without unusable records.

  Args:
    options: how to answer.
    roles: give the Actor's model and processor.
    preparer: makes the examples.
  """
  processes = jax.process_count()
  collate = batches.Collator(
    model=roles.actor.model,
    dataset=preparer.source.name,
    rows=options.batch_size // processes,
    buckets=options.buckets,
    pad_id=roles.processor.pad_id,
  )
  one_pass = pipeline.Options(
    batch_size=options.batch_size, workers=options.workers, max_bad_share=1.0, once=True
  )
  examples = pipeline.Pipeline(preparer, one_pass, process=jax.process_index(), processes=processes)
  return map(collate, examples)


def _grade(
  reading: rewards.Reading,
  source: Source,
  batch: batches.Batch,
  acted: rollout.Completions,
  verdicts: tuple[list[list[list[str]]], list[list[list[bool]]]] | None,
  prover: Prover,
) -> Answers:
  """Grades a batch.

  Args:
    reading: how answers and verdicts are read.
    source: has the gold answers.
    batch: the problems, perhaps with padding rows.
    acted: the Actor's trajectories.
    verdicts: for each trajectory, texts of the Judge's verdicts and whether each was truncated;
      None without a Judge.
    prover: compares answers with the gold answers.
  """
  real = batch.real
  texts = _rows(acted.texts, real)
  extracted, answer_ids = rewards.read_answers(texts, reading)
  golds = [_gold(source, int(index)) for index in batch.index[real]]
  scores = np.zeros(answer_ids.shape, np.float32)
  valid = np.zeros(answer_ids.shape, bool)
  if verdicts is not None:
    verdict_texts, verdict_truncated = verdicts
    read = rewards.read_verdicts(
      _rows(verdict_texts, real), reading, _rows(verdict_truncated, real)
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
