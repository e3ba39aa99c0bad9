"""The curves of a run: read from its files, put under headings, explained in a line each."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from sejax import storage
from sejax.errors import quoted
from sejax.monitoring import writers

# What tells how a run goes, most important first; of each place the first that the run has.
GLANCE = (
  ("reward",),
  ("heldout_pass_at_1", "label_accuracy", "pass@1"),
  ("majority_share",),
  ("sampled_entropy", "entropy"),
  ("response_length",),
)

# Headings and regular expressions. A metric is drawn under the first heading whose expression
# matches its name.
OF_METRICS = {
  "Accuracy": r"pass@|pass_at|maj@|maj_at|greedy",
  "Labels against gold answers, agreement and collapse": r"label|agreement|collapse",
  "Rewards, votes and verdicts": r"reward|majority|consistency|judge|verdict|advantage|distinct"
  r"|abstention|format|constant|certainty|grades",
  "Entropy and length": r"entropy|length|truncated|tokens",
  "Updates": r"kl|clip|ratio|loss|norm|skipped|finite|rate|mismatch|groups",
  "Other": r"",
}
OF_TIMING = {
  "Speed and memory": r"per_second|tokens|utili[sz]ation|mfu|flops|bytes|memory|compil",
  "Seconds": r"",
}

# Regular expressions of whole names. `sejax.monitoring.metrics` defines them exactly.
_EXPLANATIONS = {
  r"reward": "what the policy is trained to raise, mean over all trajectories",
  r"reward_std": "spread of rewards within a group; without any there is nothing to learn",
  r"majority_share": "share of a group's trajectories that agree on one answer",
  r"answer_entropy": "how scattered the answers of a group are, in nats",
  r"distinct_answers": "different answers in a group",
  r"abstentions": "trajectories of a group without a readable answer",
  r"label_share": "share of the groups with a single most frequent answer",
  r"label_accuracy": "share of these answers that are right, by gold answers unseen in training",
  r"agreement": "how often what the Judge likes best is what most agree on",
  r"judge_mean": "mean score of the Judge's readable verdicts",
  r"invalid_verdicts": "verdicts of a group that cannot be read",
  r"truncated_verdicts": "verdicts of a group that were cut at their limit",
  r"contradictory_verdicts": "verdicts of a group with two different scores",
  r"undecided_grades": "answers of a group whose grading was given up; they count as wrong",
  r"pass@1": "share of the trajectories that are right, by gold answers unseen in training",
  r"pass@G": "share of the groups with any right trajectory",
  r"maj@G": "share of the groups whose most frequent answer is right",
  r"response_length": "tokens of a trajectory",
  r"truncated": "share of the trajectories that were cut at their limit",
  r"format": "share of the trajectories in the required form",
  r"sampled_entropy": "entropy of the policy when it sampled, nats per token; near 0 it is sure",
  r"self_certainty": "how far the distributions over tokens are from uniform",
  r"constant_groups": "share of the groups whose rewards are all alike",
  r"collapse_score": "0: many opinions; 1: one opinion that the Judge does not share",
  r"sampled_groups": "groups that were sampled",
  r"sampled_tokens": "tokens sampled in the step, those of verdicts and a teacher included",
  r"trained_groups": "groups that the policy learnt from",
  r"trained_reward": "reward, over the groups that the policy learnt from",
  r"trained_reward_std": "spread of rewards, over the groups that the policy learnt from",
  r"trained_response_length": "tokens of a trajectory that the policy learnt from",
  r"trained_truncated": "share cut at the limit, of what the policy learnt from",
  r"loss": "policy loss with its penalties, as it is minimised",
  r"policy_loss": "policy loss alone",
  r"kl": "distance from the initial policy, nats per token",
  r"ppo_kl": "how far the updates of a step moved the policy, nats per token",
  r"entropy": "the policy's entropy in the update, nats per token",
  r"clipfrac": "share of the tokens whose ratio was clipped",
  r"clipfrac_lower": "share of the tokens that the dual clip bounded",
  r"ratio_min": "smallest ratio of new to old probability of a token",
  r"ratio_max": "largest ratio of new to old probability of a token",
  r"grad_norm": "norm of the gradient before clipping",
  r"finite": "share of the optimizer steps with a finite gradient; others are skipped",
  r"mismatch_mean": "mean difference of log-probs between trainer and sampler, nats",
  r"mismatch_max": "largest difference of log-probs between trainer and sampler, nats",
  r"mismatch_k3_kl": "KL between trainer and sampler, nats per token",
  r"mismatch_ess": "effective sample size of the tokens after correction, as a share",
  r"heldout_pass_at_1": "held-out problems: share of single samples that are right",
  r"heldout_pass_at_\d+": "held-out problems: share with any right sample of so many",
  r"heldout_maj_at_\d+": "held-out problems: share whose most frequent answer is right",
  r"heldout_\w+_error": "standard error of that share",
  r"tokens_per_second": "sampled tokens, without verdicts, per second of a whole step",
  r"compilations": "programs that were compiled or loaded",
  r"model_flops_utilisation": "share of the chips' peak that a step computes at",
  r"data_seconds": "waiting for problems",
  r"sample_seconds": "sampling trajectories",
  r"teacher_seconds": "sampling the teacher's trajectories",
  r"judge_seconds": "sampling verdicts",
  r"reward_seconds": "reading answers and verdicts, and rewards",
  r"update_seconds": "log-probs and updates",
  r"evaluate_seconds": "held-out problems",
  r"total_seconds": "the whole step",
}


class Curve(NamedTuple):
  """A metric over steps.

  Attributes:
    steps: in ascending order.
    values: at each step; None where it has none.
  """

  steps: list[int]
  values: list[float | None]


def read(path: storage.Path) -> dict[str, Curve]:
  """Reads the curves of a file of JSON lines, sorted by name.

  Raises:
    ValueError: a value is not a number.
  """
  curves: dict[str, Curve] = {}
  for record in writers.read(path):
    step = record.pop("step")
    for name, value in record.items():
      if not isinstance(value, int | float | None):
        raise ValueError(f"{path}: {name} of step {step} is {quoted(value)}, not a number")
      curve = curves.setdefault(name, Curve([], []))
      curve.steps.append(step)
      curve.values.append(value)
  return dict(sorted(curves.items()))


def explanation(name: str) -> str:
  """Returns what a metric is, in a line; empty for one that has no explanation."""
  return next((text for key, text in _EXPLANATIONS.items() if re.fullmatch(key, name)), "")


def words(name: str) -> str:
  """Returns a metric's name as it is read: `maj_at_8` is `maj@8`."""
  return name.replace("_at_", "@").replace("_", " ")


def at_a_glance(names: Sequence[str]) -> list[str]:
  """Returns the metrics of `GLANCE` that there are."""
  found = (next((name for name in choice if name in names), None) for choice in GLANCE)
  return [name for name in found if name is not None]


def by_heading(
  names: Sequence[str], headings: Mapping[str, str]
) -> Iterator[tuple[str, list[str]]]:
  """Yields each heading that has metrics, with their names.

  Args:
    headings: regular expression of each heading.
  """
  rest = list(names)
  for heading, pattern in headings.items():
    found = [name for name in rest if re.search(pattern, name)]
    rest = [name for name in rest if name not in found]
    if found:
      yield heading, found
