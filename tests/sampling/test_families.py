"""Compares the sampler of each other family with transformers' `generate`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sejax import models
from sejax.sampling import Filters, Options, Request, Role, Sampler, record_hashes
from tests.models import torch_reference

pytestmark = pytest.mark.long

# Image tokens would ask for features, and a response that ends would end the comparison.
BANNED = (1, 120, 121, 122, 123)


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen3_vl"])
def family(request, tmp_path_factory):
  """The torch model, the model with its weights, and prompts with images and without."""
  reference = torch_reference.torch_model(torch_reference.tiny_family(request.param))
  reference.save_pretrained(directory := tmp_path_factory.mktemp(request.param))
  model, params = models.load(directory)
  batch = torch_reference.make_batch(model, [[5, (4, 4), 3], [7], [2, (8, 4), (4, 6), 9]])
  return reference, model, params, batch


def sample(family, filters: Filters, *, layered_cache: bool):
  _, model, params, batch = family
  model = dataclasses.replace(model, layered_cache=layered_cache)
  sampler = Sampler(model, Options(2, 64, filters, decode_steps=64), dtype=jnp.float32)
  features = jax.jit(model.encode)(params, batch.images(model))
  request = Request(
    batch.prompt(model, 40),
    record_hashes("tiny", ["a", "b", "c"]),
    jax.tree.map(np.asarray, features),
  )
  return sampler(params, request, seed=1, step=2, role=Role.ACTOR)


@pytest.mark.parametrize("layered_cache", [False, True])
def test_greedy_tokens_equal_generate(family, layered_cache):
  reference, _, _, batch = family
  result = sample(family, Filters(temperature=0.0, banned=BANNED), layered_cache=layered_cache)
  for row in range(len(batch.ids)):
    alone = torch_reference.Batch(
      *(x[row : row + 1] for x in (batch.ids, batch.grids, batch.patches))
    )
    with torch.no_grad():
      want = reference.generate(
        **alone.torch_inputs(),
        max_new_tokens=64,
        do_sample=False,
        pad_token_id=0,
        suppress_tokens=list(BANNED),
      )
    for tokens in result.tokens[row]:
      np.testing.assert_array_equal(tokens, want[0, batch.lengths[row] :].numpy())


def test_banned_ids_are_never_drawn(family):
  free = sample(family, Filters(temperature=3.0), layered_cache=False).tokens
  assert np.isin(free, BANNED).any()
  drawn = sample(family, Filters(temperature=3.0, banned=BANNED), layered_cache=False).tokens
  assert len(np.unique(drawn)) > 50
  assert not np.isin(drawn, BANNED).any()
