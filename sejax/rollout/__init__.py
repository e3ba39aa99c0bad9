"""Sampling with Actor and Judge, and collecting the rollout of a training step.

Terms: a prompt is one tokenized question; its group, the G trajectories that the Actor samples.
A trajectory becomes a candidate when the Judge reads it, and the Judge samples M verdicts on it.
Response tokens are sampled, by either role; given tokens start the Judge's sequence: the candidate
and what the chat template writes after it. Samplers call any sampled row a sequence.
"""

from sejax.rollout.model_directory import Compute, ModelDirectory, check_judge
from sejax.rollout.roles import (
  Completions,
  RoleOptions,
  Roles,
  by_candidate,
  padded_length,
  with_tokens,
)

__all__ = [
  "Completions",
  "Compute",
  "ModelDirectory",
  "RoleOptions",
  "Roles",
  "by_candidate",
  "check_judge",
  "padded_length",
  "with_tokens",
]
