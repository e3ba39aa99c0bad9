"""The first half of a training step (arXiv:2603.21289): sample, read answers, judge, reward.

Everything but the samplers runs on the host. Axes: B prompts, G trajectories, M verdicts on each,
R tokens.
"""

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int32

from sejax import method, models, rewards
from sejax.data import batches
from sejax.data.batches import Batch, Collator
from sejax.data.prepare import Example
from sejax.data.records import Source
from sejax.parallel import hosts
from sejax.rollout.roles import Roles, by_candidate
from sejax.sampling import Result
from sejax.text import answers

# Times the stage that it is given the name of, as a context manager.
Stopwatch = Callable[[str], contextlib.AbstractContextManager]


class SampledBatch(NamedTuple):
  """What is watched of a batch that was sampled, whether or not its groups are trained on.

  Attributes:
    real: rows that hold a record.
    evidence: what the rewards were made of.
    readings: of the verdicts; None without a Judge.
    group: rewards and advantages.
    lengths: tokens drawn for each.
    truncated: which were cut at the limit.
    prompt_tokens: of all prompts.
  """

  real: Bool[np.ndarray, " B"]
  evidence: rewards.Evidence
  readings: rewards.Verdicts | None
  group: method.Group
  lengths: Int32[np.ndarray, "B G"]
  truncated: Bool[np.ndarray, "B G"]
  prompt_tokens: int


class Rollout(NamedTuple):
  """B groups that are trained on, and what became of them.

  Attributes:
    batch: their prompts.
    result: their trajectories' tokens.
    verdicts: texts, `[B][G][M]`; empty lists where no Judge is asked.
    evidence: what the rewards were made of.
    group: rewards and advantages.
    counts: groups that the update counts.
    features: of the batch's images, on the devices, by the tower that the Actor sampled with; None
      where there are none, and where groups of several batches were merged.
    sampled: everything that was sampled in the step, batch by batch.
  """

  batch: Batch
  result: Result
  verdicts: list[list[list[str]]]
  evidence: rewards.Evidence
  group: method.Group
  counts: Bool[np.ndarray, " B"]
  features: models.Features | None
  sampled: tuple[SampledBatch, ...]


class Weights(NamedTuple):
  """The parameter trees that sample, in any layout and precision."""

  actor: models.Params
  judge: models.Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collector:
  """Makes the rollout of a step from examples.

  Attributes:
    roles: that sample.
    collate: makes batches.
    source: of the records, for reward functions.
    clock: times the stages.
    scoring: how texts become rewards.
    function: rewards in place of the method, from `rewards.find`; None: the method.
    seed: of the run.
    constant_groups: what becomes of groups without any difference: `keep`, `drop` or `resample`.
    resample_limit: batches that are sampled at most to fill one, for `resample`.
    shares_tower: whether the vision towers of Actor and Judge are the same in every step, so that
      images are encoded once for both.
  """

  roles: Roles
  collate: Collator
  source: Source
  clock: Stopwatch
  scoring: rewards.Scoring
  function: rewards.RewardFunction | None
  seed: int
  constant_groups: str
  resample_limit: int
  shares_tower: bool

  def collect_rollout(
    self, weights: Weights, data: Iterator[Sequence[Example]], step: int
  ) -> Rollout:
    """Returns the rollout of a step, from one batch or, with resampling, from several.

    Args:
      weights: that sample.
      data: lists of examples, one per batch.

    Raises:
      ValueError: as `Collator`, `Sampler` and `rewards.reward_groups`.
    """
    seen = collections.Counter()
    rollout, examples = self._one(weights, data, step, seen)
    if self.constant_groups == "keep":
      return rollout
    rollout = rollout._replace(counts=varied(rollout.group))
    if self.constant_groups == "resample":
      parts = [(rollout, examples)]
      while len(parts) < self.resample_limit and self._short(parts):
        more, examples = self._one(weights, data, step, seen)
        parts.append((more._replace(counts=varied(more.group)), examples))
      if len(parts) > 1:
        return self._merge(parts)
    return rollout

  def _short(self, parts: Sequence[tuple[Rollout, Sequence[Example]]]) -> bool:
    """Whether some process has fewer groups that count than rows."""
    found = sum(int(rollout.counts.sum()) for rollout, _ in parts)
    return bool(hosts.any_process(np.array([found < len(parts[0][0].counts)])).any())

  def _one(
    self,
    weights: Weights,
    data: Iterator[Sequence[Example]],
    step: int,
    seen: collections.Counter[str],
  ) -> tuple[Rollout, Sequence[Example]]:
    clock, seed, roles, judged = self.clock, self.seed, self.roles, self.scoring.judged
    with clock("data"):
      examples = batches.number_occurrences(next(data), seen)
      batch = self.collate(examples)
    with clock("sample"):
      features = roles.encode(weights.actor, batch)
      acted = roles.act(weights.actor, batch, features, seed=seed, step=step)
    with clock("judge"):
      verdicts, truncated = self._judge(weights, batch, features, acted.texts, step)
    with clock("reward"):
      read = rewards.read_verdicts(verdicts, self.scoring.reading, truncated)
      evidence = self._evidence(batch, acted.texts, read)
      group = rewards.reward_groups(
        evidence, self.source, self.scoring.method, self.function, judged=judged
      )
    sampled = SampledBatch(
      real=batch.real,
      evidence=evidence,
      readings=read if judged else None,
      group=group,
      lengths=acted.result.lengths,
      truncated=acted.result.truncated,
      prompt_tokens=int(batch.actor.lengths[batch.real].sum()),
    )
    rollout = Rollout(
      batch=batch,
      result=acted.result,
      verdicts=verdicts,
      evidence=evidence,
      group=group,
      counts=batch.real,
      features=features,
      sampled=(sampled,),
    )
    return rollout, examples

  def _judge(
    self,
    weights: Weights,
    batch: Batch,
    features: models.Features | None,
    texts: list[list[str]],
    step: int,
  ) -> tuple[list[list[list[str]]], list[list[list[bool]]]]:
    """Returns verdicts, and whether each was cut at the limit."""
    if not self.scoring.judged:
      nothing = [[[] for _ in group] for group in texts]
      return nothing, nothing
    if not self.shares_tower:
      features = self.roles.encode_for_judge(weights.judge, batch)
    judged = self.roles.judge_all(weights.judge, batch, features, texts, seed=self.seed, step=step)
    return by_candidate(judged, self.scoring.repeats)

  def _evidence(
    self, batch: Batch, texts: list[list[str]], read: rewards.Verdicts
  ) -> rewards.Evidence:
    extracted, answer_ids = rewards.read_answers(texts, self.scoring.reading)
    return rewards.Evidence(
      index=batch.index,
      questions=batch.questions,
      texts=texts,
      answers=extracted,
      answer_ids=answer_ids,
      format_ok=np.array([[answers.format_ok(text) for text in group] for group in texts], bool),
      judge_scores=read.scores,
      judge_valid=read.valid,
    )

  def _merge(self, parts: Sequence[tuple[Rollout, Sequence[Example]]]) -> Rollout:
    """Fills one batch with the groups that count, in their order, and then with others."""
    rows = len(parts[0][0].counts)
    # Where each row of the merged batch comes from: a part, and a row of it.
    sources = [(part, row) for part in range(len(parts)) for row in range(rows)]
    sources.sort(key=lambda source: not parts[source[0]][0].counts[source[1]])
    sources = sources[:rows]
    rollouts = [rollout for rollout, _ in parts]
    batch = self.collate([parts[part][1][row] for part, row in sources])
    evidence = _merge_fields([rollout.evidence for rollout in rollouts], sources)
    # Statistics are of one call of the sampler; the last one's stand for all.
    results = [rollout.result._replace(stats=None) for rollout in rollouts]
    result = _merge_fields(results, sources)._replace(stats=rollouts[-1].result.stats)
    return Rollout(
      batch=batch,
      result=result,
      verdicts=[rollouts[part].verdicts[row] for part, row in sources],
      evidence=evidence._replace(index=batch.index, questions=batch.questions),
      group=_merge_fields([rollout.group for rollout in rollouts], sources),
      counts=np.array([rollouts[part].counts[row] for part, row in sources]),
      features=None,
      sampled=tuple(sampled for rollout in rollouts for sampled in rollout.sampled),
    )


def _merge_fields(records: Sequence[Any], sources: Sequence[tuple[int, int]]) -> Any:
  """Returns a named tuple like each of `records`, whose rows come from where `sources` say.

  Args:
    records: one named tuple for each part; its fields have rows in front, or are None.
    sources: for each row of the result the part, and the row of it.
  """
  merged = {}
  for name in records[0]._fields:
    columns = [getattr(record, name) for record in records]
    if columns[0] is None:
      merged[name] = None
      continue
    is_list = isinstance(columns[0], list | tuple)
    columns = columns if is_list else [np.asarray(column) for column in columns]
    rows = [columns[part][row] for part, row in sources]
    merged[name] = rows if is_list else np.stack(rows)
  return type(records[0])(**merged)


def varied(group: method.Group) -> Bool[np.ndarray, " B"]:
  """Returns which groups have trajectories of different rewards; the others teach nothing."""
  reward = np.asarray(group.reward)
  return (reward != reward[:, :1]).any(axis=1)


def loss_mask(rollout: Rollout, size: int, *, truncated: bool) -> Bool[np.ndarray, "B G R"]:
  """Returns the tokens that count in the loss.

  Args:
    size: R.
    truncated: whether those of trajectories that were cut at the limit do.
  """
  counts = np.broadcast_to(rollout.counts[:, None], rollout.result.lengths.shape)
  if not truncated:
    counts = counts & ~rollout.result.truncated
  return rollout.result.mask[..., :size] & counts[..., None]


def advantage(rollout: Rollout) -> Float[np.ndarray, "B G"]:
  """Returns the advantages, 0 for rows that only pad."""
  return np.where(rollout.batch.real[:, None], np.asarray(rollout.group.advantage), 0.0)
