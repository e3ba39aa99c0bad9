"""Sampling with Actor and Judge, and collecting the rollout of a training step.

- Prompt: a tokenized question with its images. Group: the G trajectories sampled for a prompt.
- Trajectory: a response of the Actor. Candidate: a trajectory that the Judge reads.
- Verdict: a response of the Judge, one of M to each candidate.
- Response tokens: sampled, by either role. Given tokens: what a sequence of the Judge starts with,
  the candidate and what the chat template writes after it.
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
