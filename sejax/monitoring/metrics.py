"""What is watched of a step; gold answers enter here, behind the update, and leave as figures.

A line of `metrics.jsonl` has these fields beside `step`, which counts from 0. Means over all groups
that the step sampled, of all processes, also those that the update then leaves out
(`train.constant_groups`); a figure that no group defines is left out:

- those of `method.group_metrics`, under their names; those of verdicts only with a Judge, and those
  of `method.GOLD_METRICS` over the groups whose record has a gold answer that can be read;
- `reward`, and `reward_std`: R, and its standard deviation within a group (over G);
- `response_length`: tokens drawn for a trajectory;
- `truncated`, `format`: shares of trajectories that were cut at the limit, and that keep the form;
- `constant_groups`: share of groups whose rewards are all alike;
- `truncated_verdicts`, `contradictory_verdicts`: a group's verdicts that were cut at the limit, and
  those whose box is not the score of their own JSON object;
- `undecided_grades`: where there are gold answers, a group's answers that could not be decided
  (over 1000 characters, or out of time or memory), which count as wrong.

What the update was made of:

- `sampled_groups`, `trained_groups`: how many groups were sampled, and how many of them the update
  counts: all, if `train.constant_groups` is `keep`;
- `trained_reward`, `trained_reward_std`, `trained_response_length`, `trained_truncated`: means over
  the groups that it counts, as those above are over all.

Means over the step's optimizer steps:

- `loss`, and those of `method.grpo_loss`: `policy_loss`, `kl`, `clipfrac`, `clipfrac_lower`,
  `ppo_kl`, `entropy` (nats per token), and over all of them `ratio_min` and `ratio_max`;
- `grad_norm`: of the gradient of all that is trained, before it is clipped;
- `finite`: share of optimizer steps with a finite gradient; the others changed nothing.

After an evaluation, `heldout_` and the names of `Outcome.summary`: shares of one and their standard
errors, such as `heldout_pass_at_1` and `heldout_pass_at_1_error`.

A line of `timing.jsonl` has, beside `step`:

- `data_seconds`, `sample_seconds`, `judge_seconds`, `reward_seconds`, `update_seconds` (with the
  log-probs before it) and, after an evaluation, `evaluate_seconds`: by the clock of process 0;
  `total_seconds`: since the line before, so all of these and what lies between them;
- `tokens_per_second`: tokens of all trajectories that were sampled, not of verdicts, over
  `total_seconds`;
- `compilations`: programs that process 0 compiled, or loaded from the cache;
- `model_flops_utilisation`: operations of the step, see `sejax.monitoring.flops`, over those
  that all chips could do in `total_seconds` by their bf16 peak; left out where that is not known.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sejax import method, models
from sejax.data.records import Source, gold_if_readable
from sejax.monitoring import flops
from sejax.parallel import chips, hosts
from sejax.rollout.collect import Rollout, SampledBatch, rewards_differ
from sejax.text.equivalence import Prover

# The sum of a figure over groups, and over how many, by its name.
Sums = dict[str, tuple[float, float]]


def of_rollout(rollout: Rollout, source: Source, prover: Prover, tie: str) -> dict[str, float]:
  """Returns the figures of a step's groups, see above; all processes call it together.

  Args:
    source: of its problems.
    prover: grades their answers.
    tie: `config.method.tie`, which decides what a group's label is.
  """
  parts = [_of_sampled(part, source, prover, tie) for part in rollout.sampled]
  parts.append(_of_trained(rollout))
  counts = (sum(int(part.real.sum()) for part in rollout.sampled), int(rollout.in_loss.sum()))
  everyone = hosts.gather_json([parts, counts])
  sampled, trained = np.sum([counts for _, counts in everyone], axis=0).tolist()
  figures = _means([part for parts, _ in everyone for part in parts])
  return figures | {"sampled_groups": sampled, "trained_groups": trained}


def _of_sampled(part: SampledBatch, source: Source, prover: Prover, tie: str) -> Sums:
  real, evidence = part.real, part.evidence
  read = [row for row, kept in zip(evidence.answers, real, strict=True) if kept]
  golds = [gold_if_readable(source, int(index)) for index in evidence.index[real]]
  known = np.array([gold is not None for gold in golds], bool)
  correct, sums = None, {}
  if known.any():
    before, correct = prover.undecided, np.zeros((len(golds), len(read[0])), bool)
    graded = [(row, gold) for row, gold in zip(read, golds, strict=True) if gold is not None]
    correct[known] = prover.grade(*zip(*graded, strict=True))
    sums["undecided_grades"] = (float(prover.undecided - before), float(known.sum()))
  judged, counts = (None, None), {}
  if part.verdicts is not None:
    judged = (part.verdicts.scores[real], part.verdicts.valid[real])
    counts = {name: count[real] for name, count in part.verdicts.counts().items()}
  measures = method.group_metrics(evidence.answer_ids[real], *judged, correct, tie=tie)
  for name, (value, defined) in measures.items():
    counted = defined & known if name in method.GOLD_METRICS else defined
    sums[name] = (_sum(value, counted), _sum(counted))
  return sums | _sums(
    {
      **_of_trajectories(part.group, part.lengths, part.truncated, real),
      **counts,
      "format": evidence.format_ok[real].mean(axis=1),
      "constant_groups": ~rewards_differ(part.group)[real],
    }
  )


def _of_trained(rollout: Rollout) -> Sums:
  result = rollout.result
  figures = _of_trajectories(rollout.group, result.lengths, result.truncated, rollout.in_loss)
  return _sums({f"trained_{name}": values for name, values in figures.items()})


def _of_trajectories(
  group: method.Group,
  lengths: Int[np.ndarray, "B G"],
  truncated: Bool[np.ndarray, "B G"],
  rows: Bool[np.ndarray, " B"],
) -> dict[str, Float[np.ndarray, " b"]]:
  """Returns a figure for each of the rows."""
  reward = np.asarray(group.reward)[rows]
  return {
    "reward": reward.mean(axis=1),
    "reward_std": reward.std(axis=1),
    "response_length": lengths[rows].mean(axis=1),
    "truncated": truncated[rows].mean(axis=1),
  }


def of_updates(updates: Sequence[Mapping[str, Float[Array, ""]]]) -> dict[str, float]:
  """Returns the means of what the updates of a step report; extremes by minimum and maximum."""
  rows = jax.device_get(list(updates))
  how = {"ratio_min": np.min, "ratio_max": np.max}
  return {name: float(how.get(name, np.mean)([row[name] for row in rows])) for name in rows[0]}


def of_time(
  seconds: Mapping[str, float],
  compilations: int,
  rollout: Rollout,
  model: models.Model,
  *,
  adapters: bool,
) -> dict[str, float]:
  """Returns what depends on the machine: seconds by stage, tokens per second, and utilisation.

  Args:
    seconds: by stage and in `total`, from `Clock.lap`.
    compilations: programs compiled or loaded.
    adapters: whether they are trained in place of the weights.
  """
  drawn = hosts.gather_json(sum(int(part.lengths.sum()) for part in rollout.sampled))
  timing = {f"{name}_seconds": value for name, value in seconds.items()}
  timing["tokens_per_second"] = sum(drawn) / seconds["total"]
  timing["compilations"] = compilations
  if (chip := chips.current()) is not None:
    spent = hosts.gather_json(flops.of_step(model, rollout, adapters))
    possible = seconds["total"] * chip.flops * jax.device_count()
    timing["model_flops_utilisation"] = sum(spent) / possible
  return timing


def records(rollout: Rollout, source: Source, step: int, limit: int) -> list[dict[str, Any]]:
  """Returns the first groups of a step with all that was made of them, as plain JSON values."""
  evidence, group = rollout.evidence, rollout.group
  rows = np.flatnonzero(rollout.batch.real)[:limit]
  return [
    {
      "step": step,
      "id": rollout.batch.record_ids[b],
      "question": evidence.questions[b],
      "pictures": [base64.b64encode(data).decode() for data in rollout.batch.pictures[b]],
      "texts": list(evidence.texts[b]),
      "answers": list(evidence.answers[b]),
      "votes": _votes(evidence.answer_ids[b]),
      "verdicts": rollout.verdict_texts[b],
      "scores": evidence.judge_scores[b].tolist(),
      "valid": evidence.judge_valid[b].tolist(),
      "rewards": np.asarray(group.reward)[b].tolist(),
      "advantages": np.asarray(group.advantage)[b].tolist(),
      "gold": gold_if_readable(source, int(rollout.batch.index[b])),
    }
    for b in rows
  ]


def _votes(ids: np.ndarray) -> list[float]:
  """The share of the group that gave each trajectory's answer; 0 where it gave none."""
  shares = (ids[:, None] == ids).mean(axis=1)
  return np.where(ids == method.ABSTAIN, 0.0, shares).tolist()


def _sum(values: Array | np.ndarray, where: Bool[Array, " B"] | None = None) -> float:
  values = np.asarray(values, np.float64)
  return float(values.sum() if where is None else values.sum(where=np.asarray(where)))


def _sums(figures: Mapping[str, Float[np.ndarray, " b"]]) -> Sums:
  return {name: (_sum(values), float(len(values))) for name, values in figures.items()}


def _means(parts: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, float]:
  """Joins sums and counts of batches and processes; what no group defines is left out."""
  means = {}
  for name in dict.fromkeys(name for part in parts for name in part):
    total, count = np.sum([part[name] for part in parts if name in part], axis=0)
    if count:
      means[name] = float(total / count)
  return means
