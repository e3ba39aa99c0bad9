"""Text generation with continuous batching, used by the Actor, the Judge and evaluation."""

from sejax.sampling.filters import Filters
from sejax.sampling.keys import Role, record_hashes
from sejax.sampling.request import Options, Request
from sejax.sampling.result import (
  Finish,
  Progress,
  Result,
  Stats,
  StopStrings,
  Watch,
  mean_over_tokens,
)
from sejax.sampling.sampler import Sampler

__all__ = [
  "Filters",
  "Finish",
  "Options",
  "Progress",
  "Request",
  "Result",
  "Role",
  "Sampler",
  "Stats",
  "StopStrings",
  "Watch",
  "mean_over_tokens",
  "record_hashes",
]
