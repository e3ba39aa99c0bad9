"""The first half of a step (arXiv:2603.21289): sample, read answers, judge, reward.

Host side, but for the samplers. Axes: B prompts, G trajectories, M verdicts on each, R tokens.
"""

import collections
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import ml_collections
import numpy as np
from jaxtyping import Array, Bool, Float, Int32

from sejax import method, minibatches, rewards, rollout, scoring
from sejax.clock import Clock
from sejax.data import batches
from sejax.data.batches import Batch, Collator
from sejax.data.prepare import Example
from sejax.data.records import Source
from sejax.models import qwen2_5_vl as qwen
from sejax.parallel import hosts
from sejax.sampling import Result
from sejax.text import answers


class Sampled(NamedTuple):
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
  readings: scoring.Verdicts | None
  group: method.Group
  lengths: Int32[np.ndarray, "B G"]
  truncated: Bool[np.ndarray, "B G"]
  prompt_tokens: int


class Experience(NamedTuple):
  """B groups that are trained on, and what became of them.

  Attributes:
    batch: their prompts.
    result: their trajectories' tokens.
    verdicts: texts, `[B][G][M]`; empty lists where no Judge is asked.
    evidence: what the rewards were made of.
    group: rewards and advantages.
    counts: groups that the update counts.
    sampled: everything that was sampled in the step, batch by batch.
  """

  batch: Batch
  result: Result
  verdicts: list[list[list[str]]]
  evidence: rewards.Evidence
  group: method.Group
  counts: Bool[np.ndarray, " B"]
  sampled: tuple[Sampled, ...]


class Weights(NamedTuple):
  """The parameter trees that sample, in any layout and precision."""

  actor: qwen.Params
  judge: qwen.Params


class Collector:
  """Makes experience of examples.

  Attributes:
    roles: that sample.
  """

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    roles: rollout.Roles,
    collate: Collator,
    source: Source,
    clock: Clock,
    function: rewards.RewardFunction | None,
  ):
    """Keeps what all steps share.

    Args:
      config: the run's.
      roles: that sample.
      collate: makes batches.
      source: of the records, for reward functions.
      clock: that the stages are timed by.
      function: that rewards, from `rewards.find`; None: the method.
    """
    self._config, self._collate, self._source, self._clock = config, collate, source, clock
    self._function, self.roles = function, roles

  def collect(self, weights: Weights, data: Iterator[Sequence[Example]], step: int) -> Experience:
    """Returns the experience of a step, from one batch or, with resampling, from several.

    Args:
      weights: that sample.
      data: lists of examples, one per batch.
      step: of the run.

    Raises:
      ValueError: as `Collator`, `Sampler` and `rewards.reward_groups`.
    """
    config, seen = self._config.train, collections.Counter()
    experience, examples = self._one(weights, data, step, seen)
    if config.constant_groups == "keep":
      return experience
    experience = experience._replace(counts=minibatches.varied(experience.group))
    if config.constant_groups == "resample":
      parts = [(experience, examples)]
      while len(parts) < config.resample_limit and self._short(parts):
        more, examples = self._one(weights, data, step, seen)
        parts.append((more._replace(counts=minibatches.varied(more.group)), examples))
      if len(parts) > 1:
        return self._merge(parts)
    return experience

  def _short(self, parts: Sequence[tuple[Experience, Sequence[Example]]]) -> bool:
    """Whether some process has fewer groups that count than rows."""
    found = sum(int(experience.counts.sum()) for experience, _ in parts)
    return bool(hosts.any_process(np.array([found < len(parts[0][0].counts)])).any())

  def _one(
    self,
    weights: Weights,
    data: Iterator[Sequence[Example]],
    step: int,
    seen: collections.Counter[str],
  ) -> tuple[Experience, Sequence[Example]]:
    clock, seed, roles = self._clock, self._config.seed, self.roles
    with clock("data"):
      examples = batches.number_occurrences(next(data), seen)
      batch = self._collate(examples)
    with clock("sample"):
      features = roles.encode(weights.actor, batch)
      acted = roles.act(weights.actor, batch, features, seed=seed, step=step)
    with clock("judge"):
      verdicts, truncated = self._judge(weights, batch, acted.texts, step)
    with clock("reward"):
      read = scoring.read_verdicts(verdicts, self._config.judge, truncated)
      evidence = self._evidence(batch, acted.texts, read)
      group = rewards.reward_groups(
        evidence, self._source, self._config.method, self._function, judged=self._config.judge.use
      )
    sampled = Sampled(
      real=batch.real,
      evidence=evidence,
      readings=read if self._config.judge.use else None,
      group=group,
      lengths=acted.result.lengths,
      truncated=acted.result.truncated,
      prompt_tokens=int(batch.actor.lengths[batch.real].sum()),
    )
    experience = Experience(
      batch=batch,
      result=acted.result,
      verdicts=verdicts,
      evidence=evidence,
      group=group,
      counts=batch.real,
      sampled=(sampled,),
    )
    return experience, examples

  def _judge(
    self, weights: Weights, batch: Batch, texts: list[list[str]], step: int
  ) -> tuple[list[list[list[str]]], list[list[list[bool]]]]:
    """Returns verdicts, and whether each was cut at the limit."""
    config = self._config
    if not config.judge.use:
      nothing = [[[] for _ in group] for group in texts]
      return nothing, nothing
    features = self.roles.encode_for_judge(weights.judge, batch)
    judged = self.roles.judge_all(
      weights.judge, batch, features, texts, seed=config.seed, step=step
    )
    return rollout.by_candidate(judged, config.judge.num_judge_repeats)

  def _evidence(
    self, batch: Batch, texts: list[list[str]], read: scoring.Verdicts
  ) -> rewards.Evidence:
    extracted, answer_ids = scoring.read_answers(texts, self._config)
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

  def _merge(self, parts: Sequence[tuple[Experience, Sequence[Example]]]) -> Experience:
    """Fills one batch with groups that count, in their order, and, if need be, with others."""
    rows = len(parts[0][0].counts)
    places = [(p, b) for p, (experience, _) in enumerate(parts) for b in range(rows)]
    places.sort(key=lambda place: not parts[place[0]][0].counts[place[1]])
    places = places[:rows]

    def chosen(get: Callable[[Experience], Sequence]) -> list:
      return [get(parts[p][0])[b] for p, b in places]

    def array(get: Callable[[Experience], np.ndarray | Array]) -> np.ndarray:
      return np.stack([np.asarray(row) for row in chosen(get)])

    def fields(get: Callable, names: Sequence[str]) -> dict[str, np.ndarray]:
      return {name: array(lambda e, name=name: np.asarray(getattr(get(e), name))) for name in names}

    batch = self._collate([parts[p][1][b] for p, b in places])
    evidence = rewards.Evidence(
      index=batch.index,
      questions=batch.questions,
      texts=chosen(lambda e: e.evidence.texts),
      answers=chosen(lambda e: e.evidence.answers),
      **fields(lambda e: e.evidence, ("answer_ids", "format_ok", "judge_scores", "judge_valid")),
    )
    result = parts[-1][0].result._replace(
      **fields(lambda e: e.result, ("tokens", "lengths", "logp", "behaviour_logp", "finish"))
    )
    return Experience(
      batch=batch,
      result=result,
      verdicts=chosen(lambda e: e.verdicts),
      evidence=evidence,
      group=method.Group(**fields(lambda e: e.group, method.Group._fields)),
      counts=array(lambda e: e.counts),
      sampled=tuple(sampled for experience, _ in parts for sampled in experience.sampled),
    )


def mask(experience: Experience, size: int, *, truncated: bool) -> Bool[np.ndarray, "B G R"]:
  """Returns the tokens that count in the loss.

  Args:
    experience: of the step.
    size: R.
    truncated: whether those of trajectories that were cut at the limit do.
  """
  counts = np.broadcast_to(experience.counts[:, None], experience.result.lengths.shape)
  if not truncated:
    counts = counts & ~experience.result.truncated
  return experience.result.mask[..., :size] & counts[..., None]


def advantage(experience: Experience) -> Float[np.ndarray, "B G"]:
  """Returns the advantages, 0 for rows that only pad."""
  return np.where(experience.batch.real[:, None], np.asarray(experience.group.advantage), 0.0)
