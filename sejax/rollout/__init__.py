"""Sampling with Actor and Judge, and collecting the rollout of a training step."""

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
