"""Computes the metrics of a training step.

Under the method's own rewards, a training step reads gold answers only here, after the update.

A line of `metrics.jsonl` has these fields beside `step`, which counts from 0. Unless stated
otherwise, a metric is the mean over groups. A metric that is defined for no group is left out.

Means over all groups sampled in the step, by all processes, including those that
`train.constant_groups` then leaves out of the loss:

- the metrics of `method.group_metrics`: those of verdicts only with a Judge, and those in
  `method.GOLD_METRICS` only over groups whose record has a readable gold answer;
- `reward`, `reward_std`: reward R, and its standard deviation within a group;
- `response_length`: tokens of a trajectory;
- `truncated`, `format`: share of trajectories that were cut at `actor.max_tokens`, and share in the
  required format;
- `sampled_entropy`, `self_certainty`: means over a trajectory's tokens, in nats, of the policy's
  entropy when it was sampled, and of what `sejax.sampling.certainty` measures;
- `constant_groups`: share of groups whose rewards are all equal;
- `label_accuracy_count`: number of labels that `label_accuracy` is a share of;
- `truncated_verdicts`, `contradictory_verdicts`: number of a group's verdicts that were cut at
  `judge.max_tokens`, and of those whose boxed score differs from that in their JSON object;
- `undecided_grades`: with gold answers, number of a group's answers whose grading was given up
  (over 1000 characters, or out of time or memory); they count as wrong.

- `collapse_score`: see `sejax.monitoring.collapse`; computed from means of this list.

Numbers of the step:

- `sampled_tokens`: tokens that were sampled, in trajectories, verdicts and a teacher's answers.

Groups in the loss:

- `sampled_groups`, `trained_groups`: number of groups sampled, and number that entered the loss;
- `trained_reward`, `trained_reward_std`, `trained_response_length`, `trained_truncated`: as above,
  over the groups in the loss.

Means over the optimizer steps of the step:

- `loss`, and the metrics of `method.policy_loss`: `policy_loss`, `kl` (unless `kl_coef` is 0),
  `clipfrac`, `clipfrac_lower`, `ppo_kl`, `entropy` (nats per token); `ratio_min` and `ratio_max`
  are extremes instead;
- those of `method.mismatch`, the difference of the trainer's log-probs before the update and those
  that the sampler drew by: `mismatch_mean`, `mismatch_max` (nats; the latter is an extreme),
  `mismatch_k3_kl` (nats per token) and `mismatch_ess`, the effective sample size of the tokens as a
  share;
- `grad_norm`: global norm of the gradient before clipping;
- `finite`: share of optimizer steps with a finite gradient; the others were skipped.

After an evaluation, the metrics of `HeldOutResult.summary` with the prefix `heldout_`: fractions
and their standard errors, such as `heldout_pass_at_1` and `heldout_pass_at_1_error`.

A line of `timing.jsonl` has these fields beside `step`:

- `data_seconds`, `sample_seconds`, `teacher_seconds` with a teacher, `judge_seconds`,
  `reward_seconds`, `update_seconds` (including the log-prob passes) and, after an evaluation,
  `evaluate_seconds`: wall time of each stage on process 0; `total_seconds`: time since the previous
  line, which covers all stages;
- `tokens_per_second`: tokens of all sampled trajectories, without verdicts, per second of
  `total_seconds`;
- `compilations`: programs that process 0 compiled or loaded from the cache;
- `model_flops_utilisation`: FLOPs of the step, see `sejax.monitoring.flops`, as a fraction of what
  all chips could do in `total_seconds` at their bf16 peak; left out if the peak is not known.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sejax import method, models
from sejax.data.records import Source, gold_if_readable
from sejax.monitoring import collapse, flops
from sejax.parallel import chips, hosts
from sejax.rollout.collect import Rollout, SampledBatch, rewards_differ
from sejax.text.equivalence import Prover

_LABELS = "label_accuracy"
# For each metric, its sum over groups and the number of groups, from which means are formed.
Sums = dict[str, tuple[float, float]]


def of_rollout(rollout: Rollout, source: Source, prover: Prover, tie: str) -> dict[str, float]:
  """Returns the metrics of a rollout, over all processes; every process must call it.

  Args:
    source: source of the records, for gold answers.
    prover: grades answers against gold answers.
    tie: `config.method.tie`, which decides the pseudo-label of a group with tied votes.
  """
  parts = [_of_sampled(part, source, prover, tie) for part in rollout.sampled]
  parts.append(_of_trained(rollout))
  counts = (
    sum(int(part.real.sum()) for part in rollout.sampled),
    int(rollout.in_loss.sum()),
    sum(part.sampled_tokens for part in rollout.sampled),
  )
  everyone = hosts.gather_json([parts, counts])
  sampled, trained, tokens = np.sum([counts for _, counts in everyone], axis=0).tolist()
  step_metrics = _means([part for parts, _ in everyone for part in parts])
  step_metrics |= {
    "sampled_groups": sampled,
    "trained_groups": trained,
    "sampled_tokens": tokens,
  }
  labels = sum(part[_LABELS][1] for parts, _ in everyone for part in parts if _LABELS in part)
  if labels:
    step_metrics[f"{_LABELS}_count"] = labels
  return step_metrics | {"collapse_score": collapse.collapse_score(step_metrics)}


def _of_sampled(part: SampledBatch, source: Source, prover: Prover, tie: str) -> Sums:
  """Sums the metrics of one sampled batch of this process."""
  real, evidence = part.real, part.evidence
  answers = [row for row, is_real in zip(evidence.answers, real, strict=True) if is_real]
  golds = [gold_if_readable(source, int(index)) for index in evidence.index[real]]
  known = np.array([gold is not None for gold in golds], bool)
  correct, sums = None, {}
  if known.any():
    correct = np.zeros((len(golds), len(answers[0])), bool)
    undecided_before = prover.undecided
    correct[known] = prover.grade(
      [row for row, gold in zip(answers, golds, strict=True) if gold is not None],
      [gold for gold in golds if gold is not None],
    )
    undecided = prover.undecided - undecided_before
    sums["undecided_grades"] = (float(undecided), float(known.sum()))
  scores, valid, counts = None, None, {}
  if part.verdicts is not None:
    scores, valid = part.verdicts.scores[real], part.verdicts.valid[real]
    counts = {name: count[real] for name, count in part.verdicts.counts().items()}
  measures = method.group_metrics(evidence.answer_ids[real], scores, valid, correct, tie=tie)
  for name, (value, defined) in measures.items():
    counted = defined & known if name in method.GOLD_METRICS else defined
    sums[name] = (_sum(value, counted), _sum(counted))
  return sums | _sums(
    {
      **_of_trajectories(part.group, part.lengths, part.truncated, real),
      **counts,
      "sampled_entropy": evidence.entropy[real].mean(axis=1),
      "self_certainty": evidence.self_certainty[real].mean(axis=1),
      "format": evidence.format_ok[real].mean(axis=1),
      "constant_groups": ~rewards_differ(part.group)[real],
    }
  )


def _of_trained(rollout: Rollout) -> Sums:
  """Sums the metrics of the groups in the loss."""
  result = rollout.result
  trained = _of_trajectories(rollout.group, result.lengths, result.truncated, rollout.in_loss)
  return _sums({f"trained_{name}": values for name, values in trained.items()})


def _of_trajectories(
  group: method.Group,
  lengths: Int[np.ndarray, "B G"],
  truncated: Bool[np.ndarray, "B G"],
  rows: Bool[np.ndarray, " B"],
) -> dict[str, Float[np.ndarray, " b"]]:
  """Returns metrics of the trajectories, one value for each of the selected rows."""
  reward = np.asarray(group.reward)[rows]
  return {
    "reward": reward.mean(axis=1),
    "reward_std": reward.std(axis=1),
    "response_length": lengths[rows].mean(axis=1),
    "truncated": truncated[rows].mean(axis=1),
  }


def of_updates(updates: Sequence[Mapping[str, Float[Array, ""]]]) -> dict[str, float]:
  """Returns the means of the optimizer steps' metrics, and of some the extremes.

  Waits until the updates have been computed.
  """
  rows = jax.device_get(list(updates))
  reductions = {"ratio_min": np.min, "ratio_max": np.max, "mismatch_max": np.max}
  return {
    name: float(reductions.get(name, np.mean)([row[name] for row in rows])) for name in rows[0]
  }


def of_time(
  seconds: Mapping[str, float],
  compilations: int,
  rollout: Rollout,
  model: models.Model,
  *,
  adapters: bool,
  log_prob_passes: float,
) -> dict[str, float]:
  """Returns the fields of `timing.jsonl`; every process must call it.

  Args:
    seconds: seconds by stage and `total`, from `Clock.lap`.
    compilations: number of programs compiled or loaded.
    adapters: whether LoRA adapters are trained instead of all weights.
    log_prob_passes: as in `flops.of_step`.
  """
  sampled_tokens = hosts.gather_json(sum(int(part.lengths.sum()) for part in rollout.sampled))
  timing = {f"{name}_seconds": value for name, value in seconds.items()}
  timing["tokens_per_second"] = sum(sampled_tokens) / seconds["total"]
  timing["compilations"] = compilations
  if (chip := chips.current()) is not None:
    spent = hosts.gather_json(flops.of_step(model, rollout, adapters, log_prob_passes))
    possible = seconds["total"] * chip.flops * jax.device_count()
    timing["model_flops_utilisation"] = sum(spent) / possible
  return timing


def sample_groups(rollout: Rollout, source: Source, step: int, limit: int) -> list[dict[str, Any]]:
  """Returns the first groups of a rollout as lines of `groups.jsonl`.

  See `sejax.reports.training` for the fields.

  Args:
    limit: maximum number of groups.
  """
  evidence, group = rollout.evidence, rollout.group
  rows = np.flatnonzero(rollout.batch.real)[:limit]
  return [
    {
      "step": step,
      "id": rollout.batch.record_ids[b],
      "question": evidence.questions[b],
      "pictures": [base64.b64encode(data).decode() for data in rollout.batch.image_files[b]],
      "texts": list(evidence.texts[b]),
      "answers": list(evidence.answers[b]),
      "votes": _vote_shares(evidence.answer_ids[b]),
      "verdicts": rollout.verdict_texts[b],
      "scores": evidence.judge_scores[b].tolist(),
      "valid": evidence.judge_valid[b].tolist(),
      "rewards": np.asarray(group.reward)[b].tolist(),
      "advantages": np.asarray(group.advantage)[b].tolist(),
      "gold": gold_if_readable(source, int(rollout.batch.index[b])),
    }
    for b in rows
  ]


def _vote_shares(ids: Int[np.ndarray, " G"]) -> list[float]:
  """Returns the share of the group that gave each trajectory's answer; 0 without an answer."""
  shares = (ids[:, None] == ids).mean(axis=1)
  return np.where(ids == method.ABSTAIN, 0.0, shares).tolist()


def _sum(values: Array | np.ndarray, where: Bool[Array, " B"] | None = None) -> float:
  values = np.asarray(values, np.float64)
  return float(values.sum() if where is None else values.sum(where=np.asarray(where)))


def _sums(figures: Mapping[str, Float[np.ndarray, " b"]]) -> Sums:
  return {name: (_sum(values), float(len(values))) for name, values in figures.items()}


def _means(parts: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, float]:
  """Computes means from the sums of all batches and processes; leaves out metrics of no group."""
  means = {}
  for name in dict.fromkeys(name for part in parts for name in part):
    total, count = np.sum([part[name] for part in parts if name in part], axis=0)
    if count:
      means[name] = float(total / count)
  return means
