"""A model's answers to a set of problems, in the set's order, graded against the gold answers.

Axes: N problems, G samples of each.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

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
  """Graded trajectories, and what a Judge said of them.

  Attributes:
    index: the problems' places in the source.
    texts: the trajectories.
    answer_ids: equal numbers for equal answers of a problem, `ABSTAIN` for none.
    correct: whether the answer is the gold one.
    format_ok: whether the trajectory keeps the form.
    lengths: its tokens.
    truncated: whether it was cut at the limit.
    judge_scores: the mean of valid verdicts; 0 where no Judge was asked.
    judge_valid: whether there is one.
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
  """Samples a group of answers to each problem of a source that has gold answers.

  Args:
    config: of the run; `model.path`, `actor.instruction`, `judge`, `answers`, `data` and `seed` are
      used.
    roles: that sample.
    params: of the Actor.
    source: the problems; records that cannot be used are left out, and logged.
    batch_size: problems sampled together, over all processes.
    prover: grades.
    judge: parameters of a Judge that reads every trajectory; None: none is asked.
    progress: name of a progress bar; empty: no bar.

  Returns:
    The answers to this process's problems.

  Raises:
    ValueError: a problem has no gold answer, or none can be used.
  """
  preparer = dataclasses.replace(Preparer.of(config, source), judged=judge is not None)
  reader = in_order(config, roles, preparer, batch_size)
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
  """Returns a configuration by which the Actor gives its most likely answer alone."""
  config = config.copy_and_resolve_references()
  config.group_size, config.actor.temperature = 1, 0.0
  return config


def in_order(
  config: ml_collections.ConfigDict, roles: rollout.Roles, preparer: Preparer, batch_size: int
) -> Iterator[batches.Batch]:
  """Yields the batches of a source once, in its order; records that cannot be used are left out.

  Args:
    config: of the run.
    roles: that sample.
    preparer: of the source's examples.
    batch_size: over all processes.
  """
  processes = jax.process_count()
  options = Options(batch_size, workers=config.data.workers, max_bad_share=1.0, once=True)
  collate = batches.Collator(
    roles.actor.config,
    preparer.source.name,
    batch_size // processes,
    batches.Buckets.of(config.data),
    roles.processor.pad_id,
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
  real = batch.real
  texts = [row for row, kept in zip(acted.texts, real, strict=True) if kept]
  extracted, answer_ids = rewards.read_answers(texts, config)
  golds = [_gold(source, int(index)) for index in batch.index[real]]
  scores = np.zeros(answer_ids.shape, np.float32)
  valid = np.zeros(answer_ids.shape, bool)
  if verdicts is not None:
    said, cut = ([row for row, kept in zip(rows, real, strict=True) if kept] for rows in verdicts)
    read = rewards.read_verdicts(said, config.judge, cut)
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


def _gold(source: Source, index: int) -> str:
  gold = source.gold(index)
  if gold is None:
    raise ValueError(f"record {index} of {source.name} has no gold answer to grade by")
  return gold
