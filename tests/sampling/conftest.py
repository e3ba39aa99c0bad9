"""Fixtures of the sampler's tests: a tiny random model and prompts with and without images."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jaxtyping import DTypeLike

from sejax import models, sampling
from sejax.models import qwen2_5_vl as qwen
from sejax.parallel.programs import ProgramCache
from tests.models import torch_reference
from tests.sampling import on_mesh

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


@pytest.fixture(scope="module")
def source(tiny, tmp_path_factory) -> pathlib.Path:
  """Writes weights and prompts to a file; each prompt occurs twice, with different given tokens."""
  rng = np.random.default_rng(1)
  request = tiny.request([0, 1, 2, 3] * 2)
  flat = traverse_util.flatten_dict(tiny.params, sep="/")
  path = tmp_path_factory.mktemp("mesh") / "source.npz"
  np.savez(
    path,
    config=json.dumps(tiny.config.to_hf()),
    **request.prompt._asdict(),
    features=request.features,
    given=rng.integers(2, 100, (8, on_mesh.TRAJECTORIES, 3)).astype(np.int32),
    given_lengths=rng.integers(0, 4, (8, on_mesh.TRAJECTORIES)),
    **{f"p/{name}": np.asarray(value) for name, value in flat.items()},
  )
  return path
