"""Actor and Judge on the sampler, and the rollout of a training step."""

from sejax.rollout.roles import (
  Completions,
  Roles,
  by_candidate,
  encode_rows,
  frozen_dtype,
  on_devices,
  padded,
  sampling_options,
)

__all__ = [
  "Completions",
  "Roles",
  "by_candidate",
  "encode_rows",
  "frozen_dtype",
  "on_devices",
  "padded",
  "sampling_options",
]
