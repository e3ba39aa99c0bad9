"""Log-probs in packed rows against the forward pass over padded sequences."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sejax import models
from sejax.learner import packing
from sejax.models.transformer import cudnn_attention
from tests.models import torch_reference

pytestmark = pytest.mark.long

# These programs run once, so compiling them takes the time.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
PROMPTS = [[5, (4, 4), 3], [7], [2, (8, 4), (4, 6), 4], [6, (4, 8)], [3], [9, (4, 4)]]
B, G, R, WIDTH, PATCHES = len(PROMPTS), 3, 21, 32, 64
BANNED = np.zeros(torch_reference.tiny_config().vocab_size, bool)
BANNED[[1, 120]] = True


def batch_of(config):
  rng = np.random.default_rng(0)
  batch = torch_reference.make_batch(config, PROMPTS)
  prompt, images = batch.prompt(config, WIDTH), batch.images(config, PATCHES)
  tokens = rng.integers(2, torch_reference.TEXT_IDS, (B, G, R)).astype(np.int32)
  lengths = rng.integers(1, R + 1, (B, G))
  lengths[0], lengths[1, 1], lengths[4] = R, 0, 0  # A group that is left out, and a trajectory.
  return prompt, images, tokens, lengths


def compute(function, params):
  return jit(jax.value_and_grad(function, has_aux=True))(params)


@pytest.fixture
def kernel(monkeypatch, request):
  """Puts XLA's attention in the place of cuDNN's, as in `test_qwen_fused_attention`."""
  if request.param:
    attend = jax.nn.dot_product_attention
    monkeypatch.setattr(
      jax.nn,
      "dot_product_attention",
      lambda *arrays, implementation, **options: attend(*arrays, implementation="xla", **options),
    )
    monkeypatch.setattr(
      cudnn_attention, "usable", lambda config, dtype, tokens, head_size: tokens > 1
    )


@pytest.mark.parametrize("kernel", [False, True], ids=["blocks", "kernel"], indirect=True)
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize(
  ("rows", "capacity", "query_chunk"),
  [
    (1, packing.Capacity(512, 8, 16), 1024),
    (2, packing.Capacity(160, 8, 8), 16),
    (3, packing.Capacity(112, 2, 1), 5),
  ],
)
def test_packed_log_probs_and_gradients_are_those_of_padded_sequences(
  family, rows, capacity, query_chunk, kernel
):
  config = dataclasses.replace(torch_reference.tiny_family(family), query_chunk=query_chunk)
  params = config.init(jax.random.key(0))
  prompt, images, tokens, lengths = batch_of(config)
  mask = np.arange(R) < lengths[..., None]
  weights = np.random.default_rng(1).standard_normal((2, B, G, R)).astype(np.float32)

  def weighted(found):
    return sum(jnp.sum(w * x) for w, x in zip(weights, found, strict=True))

  def padded(params):
    features = config.encode(params, images)
    last, hidden = config.forward(params, prompt, features, tokens)
    found = config.logp(params, last, hidden, tokens, 0.7, BANNED)
    found = [jnp.where(mask, x, 0) for x in found]
    return weighted(found), found

  def packed(params):
    found = [jnp.zeros((B, G, R))] * 2
    sequences = np.concatenate([prompt.lengths[:, None], lengths], axis=1)
    for micro in packing.pack(sequences, rows, capacity):
      index = micro.groups.reshape(-1)
      log_probs = config.packed_log_probs(
        params,
        models.Prompt(prompt.ids[index], prompt.lengths[index], prompt.positions[:, index]),
        config.encode(params, jax.tree.map(lambda x, index=index: x[index], images)),
        tokens[index],
        micro.packing,
        block=capacity.block,
        temperature=0.7,
        banned=BANNED,
      )
      where = np.where(index < 0, B, index)
      found = [f.at[where].set(x, mode="drop") for f, x in zip(found, log_probs, strict=True)]
    return weighted(found), found

  (want_loss, want), want_grad = compute(padded, params)
  (loss, got), grad = compute(packed, params)
  for x, y in zip(got, want, strict=True):
    np.testing.assert_allclose(x, y, atol=2e-5)
  np.testing.assert_allclose(loss, want_loss, rtol=1e-5)
  for (path, x), y in zip(jax.tree.leaves_with_path(grad), jax.tree.leaves(want_grad), strict=True):
    scale = np.abs(y).max()
    assert np.abs(x - y).max() <= 1e-4 * scale + 1e-12, jax.tree_util.keystr(path)
