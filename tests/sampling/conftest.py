"""Fixtures of the sampler's tests: a tiny random model and prompts with and without images."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import DTypeLike

from sejax import models, sampling
from sejax.models import qwen2_5_vl as qwen
from sejax.parallel.programs import ProgramCache
from tests.models import torch_reference

WIDTH = 40  # Prompt tokens, with padding.


@dataclasses.dataclass(frozen=True, eq=False)
class Tiny:
  """A torch model of transformers, the same weights as a parameter tree, and four prompts."""

  config: qwen.Qwen25VL
  torch_model: Any
  params: models.Params
  batch: torch_reference.Batch
  features: jax.Array
  compiled: ProgramCache

  def request(self, rows: list[int] | None = None, **changes) -> sampling.Request:
    rows = rows or list(range(len(self.batch.ids)))
    prompt = self.batch.prompt(self.config, WIDTH)
    return sampling.Request(
      models.Prompt(prompt.ids[rows], prompt.lengths[rows], prompt.positions[:, rows]),
      sampling.record_hashes("tiny", [str(row) for row in rows]),
      np.asarray(self.features)[rows],
    )._replace(**changes)

  def sampler(self, options: sampling.Options, dtype: DTypeLike = jnp.float32) -> sampling.Sampler:
    """Returns a sampler that shares compiled programs with all others of this model."""
    sampler = sampling.Sampler(self.config, options, dtype=dtype)
    sampler.compiled = self.compiled
    return sampler


@pytest.fixture(scope="session")
def tiny() -> Tiny:
  config = torch_reference.tiny_config()
  model = torch_reference.torch_model(config)
  params = torch_reference.to_params(dict(model.named_parameters()), config)
  batch = torch_reference.make_batch(config, [[5, (4, 4), 3], [7], [2, (8, 4), (4, 6), 9], [20]])
  features = jax.jit(config.encode)(params, batch.images(config))
  return Tiny(
    config=config,
    torch_model=model,
    params=params,
    batch=batch,
    features=features,
    compiled=ProgramCache(),
  )
