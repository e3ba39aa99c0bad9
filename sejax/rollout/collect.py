"""Collects the rollout of a training step: sample, extract answers, judge, reward.

This is the first half of a step (arXiv:2603.21289); `sejax.learner` is the second. Everything but
the samplers runs on the host.

Axes: B prompts of this process, G trajectories of a prompt, M verdicts on a trajectory, R tokens.
"""

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int32

from sejax import method, models, rewards
from sejax.data import batches
from sejax.data.batches import Batch, Collator
from sejax.data.prepare import Example
from sejax.data.records import Source
from sejax.parallel import hosts
from sejax.rollout.roles import Completions, Roles, split_repeats
from sejax.sampling import Result, Role, Watch, mean_over_tokens
from sejax.text import answers

# A `monitoring.timing.Clock`, which this package does not import: called with the name of a stage,
# it returns a context manager that times the stage.
ClockLike = Callable[[str], contextlib.AbstractContextManager]


# Called with a batch, its trajectories, and the features that its rollout will have.
OnTrajectories = Callable[[Batch, Result, models.Features | None], None]


class SampledBatch(NamedTuple):
  """Results of one sampled batch, for metrics; its groups may or may not be trained on.

  Attributes:
    real: rows that hold a record, as opposed to padding.
    evidence: inputs of the rewards.
    verdicts: scores parsed from the verdicts; None without a Judge.
    group: rewards and advantages.
    lengths: tokens of each trajectory.
    truncated: trajectories that were cut at `actor.max_tokens`.
    prompt_tokens: tokens of the Actor's prompts, summed over the batch.
    sampled_tokens: tokens of trajectories, verdicts and the teacher's answers, summed likewise.
  """

  real: Bool[np.ndarray, " B"]
  evidence: rewards.Evidence
  verdicts: rewards.Verdicts | None
  group: method.Group
  lengths: Int32[np.ndarray, "B G"]
  truncated: Bool[np.ndarray, "B G"]
  prompt_tokens: int
  sampled_tokens: int


class Rollout(NamedTuple):
  """The batch of B groups that the learner trains on.

  Attributes:
    batch: prompts.
    result: tokens of the trajectories.
    verdict_texts: texts of the verdicts, `[B][G][M]`; empty innermost lists without a Judge.
    evidence: inputs of the rewards.
    group: rewards and advantages.
    in_loss: groups that enter the loss; the others are padding rows, or constant groups that
      `constant_groups` leaves out.
    features: image features on the devices, from the vision tower that the Actor sampled with.
      None without images, and if groups of several batches were merged.
    sampled: all batches sampled in the step, for metrics.
  """

  batch: Batch
  result: Result
  verdict_texts: list[list[list[str]]]
  evidence: rewards.Evidence
  group: method.Group
  in_loss: Bool[np.ndarray, " B"]
  features: models.Features | None
  sampled: tuple[SampledBatch, ...]


class SamplingWeights(NamedTuple):
  """Parameter trees to sample with, in any layout and precision; None without a teacher."""

  actor: models.Params
  judge: models.Params
  teacher: models.Params | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collector:
  """Collects the rollout of a step.

  Attributes:
    roles: samplers of Actor and Judge.
    collate: collates examples into a batch.
    source: source of the records, passed to the reward function.
    clock: times the stages `data`, `sample`, `teacher`, `judge` and `reward`.
    scoring: how texts become rewards.
    reward_function: replaces the method's rewards, see `rewards.find`; None uses the method's.
    seed: seed of the run.
    constant_groups: what happens to groups whose rewards are all equal: `keep`, `drop` (leaves them
      out of the loss) or `resample` (samples further batches to replace them).
    resample_limit: maximum number of batches sampled in a step with `resample`.
    shares_tower: whether Actor and Judge have the same vision tower in every step, so that images
      are encoded once for both.
    keep_features: whether rollouts hold the Actor's features, for a learner with the same tower.
  """

  roles: Roles
  collate: Collator
  source: Source
  clock: ClockLike
  scoring: rewards.Scoring
  reward_function: rewards.RewardFunction | None
  seed: int
  constant_groups: str
  resample_limit: int
  shares_tower: bool
  keep_features: bool

  def collect_rollout(
    self,
    weights: SamplingWeights,
    data: Iterator[Sequence[Example]],
    step: int,
    *,
    on_trajectories: OnTrajectories | None = None,
    meanwhile: Callable[[], None] | None = None,
  ) -> Rollout:
    """Returns the rollout of a step, from one batch or, with resampling, from several.

    Every process must call it, each with its own data.

    Args:
      data: iterator over batches, each a list of examples.
      on_trajectories: called when the trajectories of a batch are there, to prepare its updates;
        not called where `constant_groups` may leave some out of the loss.
      meanwhile: called once per decode run while it is under way, to send other work to the
        devices; None does nothing.

    Raises:
      ValueError: as `Collator`, `Sampler` and `rewards.reward_groups`.
    """
    watch = None if meanwhile is None else lambda _: meanwhile()
    rollout = self._collect(weights, data, step, on_trajectories, watch)
    return whitened(rollout) if self.scoring.method["advantage"] in method.WHITENED else rollout

  def _collect(
    self,
    weights: SamplingWeights,
    data: Iterator[Sequence[Example]],
    step: int,
    on_trajectories: OnTrajectories | None,
    watch: Watch | None,
  ) -> Rollout:
    """Returns the rollout with the advantages of each group by itself."""
    # How often each record occurred in the step, so that a repeated one gets other samples.
    occurrences = collections.Counter()
    if self.constant_groups != "keep":
      on_trajectories = None
    rollout, examples = self._sample_batch(weights, data, step, occurrences, on_trajectories, watch)
    if self.constant_groups == "keep":
      return rollout
    rollout = rollout._replace(in_loss=rewards_differ(rollout.group))
    if self.constant_groups == "drop":
      return rollout
    parts = [(rollout, examples)]
    del rollout  # The next line but one releases its features.
    while len(parts) < self.resample_limit and self._needs_more(parts):
      # The merged batch is packed and encoded anew.
      parts = [(part._replace(features=None), examples) for part, examples in parts]
      more, examples = self._sample_batch(weights, data, step, occurrences, None, watch)
      parts.append((more._replace(in_loss=rewards_differ(more.group)), examples))
      del more
    return self._merge(parts) if len(parts) > 1 else parts[0][0]

  def _needs_more(self, parts: Sequence[tuple[Rollout, Sequence[Example]]]) -> bool:
    """Whether any process has fewer groups for the loss than its batch has rows."""
    found = sum(int(rollout.in_loss.sum()) for rollout, _ in parts)
    rows = len(parts[0][0].in_loss)
    return bool(hosts.any_process(np.array([found < rows])).any())

  def _sample_batch(
    self,
    weights: SamplingWeights,
    data: Iterator[Sequence[Example]],
    step: int,
    occurrences: collections.Counter[str],
    on_trajectories: OnTrajectories | None,
    watch: Watch | None,
  ) -> tuple[Rollout, Sequence[Example]]:
    """Samples, judges and rewards the next batch; returns its rollout and its examples.

    Args:
      occurrences: how often each record id was seen in this step; updated in place.
    """
    clock, seed, roles = self.clock, self.seed, self.roles
    with clock("data"):
      examples = batches.number_occurrences(next(data), occurrences)
      batch = self.collate(examples)
    with clock("sample"):
      features = roles.encode(weights.actor, batch)
      acted = roles.act(
        weights.actor,
        batch,
        features,
        seed=seed,
        step=step,
        read=self._read_answers,
        watch=watch,
      )
    if not self.keep_features:
      features = None
    if on_trajectories:
      on_trajectories(batch, acted.result, features)
    taught, judged = None, None
    if weights.teacher is not None:
      with clock("teacher"):
        taught = self._ask_teacher(weights.teacher, batch, features, step=step, watch=watch)
    with clock("judge"):
      if self.scoring.judged:
        judged = self._judge(weights, batch, features, texts=acted.texts, step=step, watch=watch)
      verdict_texts, verdicts = self._verdicts(acted.texts, judged)
    with clock("reward"):
      evidence = self._evidence(batch, acted, verdicts, taught)
      group = rewards.reward_groups(
        evidence,
        self.source,
        self.scoring.method,
        self.reward_function,
        judged=self.scoring.judged,
        max_tokens=acted.result.tokens.shape[-1],
      )
    sampled = SampledBatch(
      real=batch.real,
      evidence=evidence,
      verdicts=verdicts if self.scoring.judged else None,
      group=group,
      lengths=acted.result.lengths,
      truncated=acted.result.truncated,
      prompt_tokens=int(batch.actor.lengths[batch.real].sum()),
      sampled_tokens=sum(
        int(role.result.lengths[batch.real].sum())
        for role in (acted, judged, taught)
        if role is not None
      ),
    )
    rollout = Rollout(
      batch=batch,
      result=acted.result,
      verdict_texts=verdict_texts,
      evidence=evidence,
      group=group,
      in_loss=batch.real,
      features=features,
      sampled=(sampled,),
    )
    return rollout, examples

  def _judge(
    self,
    weights: SamplingWeights,
    batch: Batch,
    features: models.Features | None,
    *,
    texts: list[list[str]],
    step: int,
    watch: Watch | None,
  ) -> Completions:
    """Returns the verdicts on a batch, `[B,G*M]`.

    Args:
      features: image features from the Actor's vision tower.
      texts: trajectories to judge, `[B][G]`.
    """
    if not self.shares_tower:
      features = self.roles.encode_for_judge(weights.judge, batch)
    return self.roles.judge_all(
      weights.judge,
      batch,
      features,
      texts,
      seed=self.seed,
      step=step,
      read=self._read_verdicts,
      watch=watch,
    )

  def _verdicts(
    self, texts: list[list[str]], judged: Completions | None
  ) -> tuple[list[list[list[str]]], rewards.Verdicts]:
    """Returns the verdicts' texts, `[B][G][M]`, and the scores read from them.

    Args:
      texts: trajectories, `[B][G]`.
      judged: verdicts on them; None without a Judge.
    """
    if judged is None:
      no_verdicts = [[[] for _ in group] for group in texts]
      return no_verdicts, rewards.read_verdicts(no_verdicts, self.scoring.reading)
    verdict_texts = [split_repeats(row, self.scoring.repeats) for row in judged.texts]
    return verdict_texts, rewards.Verdicts(*map(np.concatenate, zip(*judged.readings, strict=True)))

  def _read_answers(
    self, texts: list[str], truncated: list[bool]
  ) -> tuple[list[str | None], Int32[np.ndarray, " G"], Bool[np.ndarray, " G"]]:
    """Returns the answers of a group, their ids, and which trajectories have the format."""
    del truncated
    (extracted,), (ids,) = rewards.read_answers([texts], self.scoring.reading)
    return extracted, ids, np.array([answers.format_ok(text) for text in texts], bool)

  def _read_verdicts(self, texts: list[str], truncated: list[bool]) -> rewards.Verdicts:
    """Returns the verdicts on one group."""
    repeats = self.scoring.repeats
    return rewards.read_verdicts(
      [split_repeats(texts, repeats)], self.scoring.reading, [split_repeats(truncated, repeats)]
    )

  def _ask_teacher(
    self,
    teacher: models.Params,
    batch: Batch,
    features: models.Features | None,
    *,
    step: int,
    watch: Watch | None,
  ) -> Completions:
    """Returns the teacher's trajectories, `[B,G]`, with their answers read.

    Args:
      features: image features from the Actor's vision tower; None where that is trained.
    """
    if features is None:
      features = self.roles.encode(teacher, batch)
    return self.roles.act(
      teacher,
      batch,
      features,
      seed=self.seed,
      step=step,
      role=Role.TEACHER,
      read=self._read_answers,
      watch=watch,
    )

  def _evidence(
    self,
    batch: Batch,
    acted: Completions,
    verdicts: rewards.Verdicts,
    taught: Completions | None,
  ) -> rewards.Evidence:
    """Returns the inputs of the rewards.

    Args:
      taught: the teacher's trajectories; None without a teacher.
    """
    result, reading = acted.result, self.scoring.reading
    extracted, ids, format_ok = zip(*acted.readings, strict=True)
    answer_ids, view_ids, teacher_ids = np.stack(ids), None, None
    if batch.views is not None:
      others = [extracted[row] for row in batch.views]
      view_ids = rewards.number_like(answer_ids, extracted, others, reading)
    if taught is not None:
      of_teacher = [found for found, _, _ in taught.readings]
      teacher_ids = rewards.number_like(answer_ids, extracted, of_teacher, reading)
    return rewards.Evidence(
      index=batch.index,
      questions=batch.questions,
      texts=acted.texts,
      answers=list(extracted),
      answer_ids=answer_ids,
      format_ok=np.stack(format_ok),
      judge_scores=verdicts.scores,
      judge_valid=verdicts.valid,
      verdicts=verdicts.each if self.scoring.judged else None,
      lengths=result.lengths,
      truncated=result.truncated,
      logp=mean_over_tokens(result.logp, result.mask),
      entropy=result.certainty.entropy,
      self_certainty=result.certainty.self_certainty,
      view_ids=view_ids,
      teacher_ids=teacher_ids,
    )

  def _merge(self, parts: Sequence[tuple[Rollout, Sequence[Example]]]) -> Rollout:
    """Merges rollouts into one: first the groups for the loss, in their order, then others.

    It has as many groups as one batch; surplus ones are dropped.
    """
    rollouts = [rollout for rollout, _ in parts]
    rows = len(rollouts[0].in_loss)
    # For each row of the merged batch: which rollout it comes from, and which row of that.
    sources = [(part, row) for part in range(len(parts)) for row in range(rows)]
    trained = [(part, row) for part, row in sources if rollouts[part].in_loss[row]]
    others = [(part, row) for part, row in sources if not rollouts[part].in_loss[row]]
    sources = (trained + others)[:rows]
    batch = self.collate([parts[part][1][row] for part, row in sources])
    batch = batch._replace(views=None)  # They no longer stand side by side.
    evidence = _merge_fields([rollout.evidence for rollout in rollouts], sources)
    # Statistics describe one sampler call; the merged result carries those of the last.
    results = [rollout.result._replace(stats=None, certainty=None) for rollout in rollouts]
    result = _merge_fields(results, sources)._replace(stats=rollouts[-1].result.stats)
    return Rollout(
      batch=batch,
      result=result,
      verdict_texts=[rollouts[part].verdict_texts[row] for part, row in sources],
      evidence=evidence._replace(index=batch.index, questions=batch.questions),
      group=_merge_fields([rollout.group for rollout in rollouts], sources),
      in_loss=np.array([rollouts[part].in_loss[row] for part, row in sources]),
      features=None,
      sampled=tuple(sampled for rollout in rollouts for sampled in rollout.sampled),
    )


def _merge_fields(records: Sequence[Any], sources: Sequence[tuple[int, int]]) -> Any:
  """Gathers rows of several named tuples of the same type into one.

  Args:
    records: named tuples whose fields have rows as their first axis, or are None.
    sources: for each row of the result, the index of its record and the row of that record.
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


def rewards_differ(group: method.Group) -> Bool[np.ndarray, " B"]:
  """Returns which groups have unequal rewards; the others carry no learning signal.

  Of several rewards one may differ where their mean R does not. `gdpo` has advantages then, which
  must not be whitened yet; up to rounding, advantages by R alone differ only where R does.
  """
  reward, advantage = np.asarray(group.reward), np.asarray(group.advantage)
  differs = ~np.isclose(advantage, advantage[:, :1], rtol=1e-5, atol=1e-6)
  return ((reward != reward[:, :1]) | differs).any(axis=1)


def whitened(rollout: Rollout) -> Rollout:
  """Whitens the advantages over all processes; all must call it.

  Counted are the tokens of groups that enter the loss, also of truncated trajectories.
  """
  advantage, lengths = (
    hosts.gather_rows(np.asarray(x))
    for x in (rollout.group.advantage, rollout.result.lengths * rollout.in_loss[:, None])
  )
  rows = len(rollout.in_loss)
  first = rows * jax.process_index()
  own = np.asarray(method.whiten(advantage, lengths))[first : first + rows]
  return rollout._replace(group=rollout.group._replace(advantage=own))


def loss_mask(
  result: Result, in_loss: Bool[np.ndarray, " B"], size: int, *, truncated: bool
) -> Bool[np.ndarray, "B G R"]:
  """Returns which tokens enter the loss.

  Args:
    in_loss: groups that enter it.
    size: response length R of the update, at least that of the longest trajectory.
    truncated: whether trajectories that were cut at `actor.max_tokens` enter the loss.
  """
  enters = np.broadcast_to(in_loss[:, None], result.lengths.shape)
  if not truncated:
    enters = enters & ~result.truncated
  return result.mask[..., :size] & enters[..., None]


def advantage(rollout: Rollout) -> Float[np.ndarray, "B G"]:
  """Returns the advantages, with 0 in padding rows."""
  return np.where(rollout.batch.real[:, None], np.asarray(rollout.group.advantage), 0.0)
