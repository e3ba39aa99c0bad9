"""Compares fused attention with transformers, with XLA's attention in place of cuDNN's kernel.

The kernel needs a GPU. Here the inputs that it would get, one sequence per row, are passed to XLA's
implementation of the same function.
"""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from sejax import models
from sejax.models import qwen2_5_vl as qwen
from sejax.models.transformer import cudnn_attention
from tests.models import grpo, torch_reference
from tests.models import test_qwen_gradients as gradients
from tests.models import test_qwen_model as logits
from tests.models import test_qwen_vision as vision

pytestmark = pytest.mark.long

PROMPT, IMAGE = ("cudnn", True), ("cudnn", False)  # Implementation, and whether it is causal.


@jax.custom_vjp
def spoil_gradient(x, skipped):
  """Returns `x`, whose gradient is not a number where the kernel skips tokens."""
  return x


spoil_gradient.defvjp(
  lambda x, skipped: (x, skipped),
  lambda skipped, gradient: (jnp.where(skipped, jnp.nan, gradient), None),
)


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, bool]]:
  """Turns the fused path on and records its calls; clears programs compiled by other tests.

  Outputs and gradients of what the kernel skips are not a number.
  """
  attend, implementations = jax.nn.dot_product_attention, []

  def attend_with_xla(*arrays, implementation, is_causal, **options):
    implementations.append((implementation, is_causal))
    lengths, skipped = options["query_seq_lengths"], False
    if lengths is not None:
      skipped = (jnp.arange(arrays[0].shape[1]) >= lengths[:, None])[..., None, None]
      arrays = [spoil_gradient(x, skipped) for x in arrays]
    out = attend(*arrays, implementation="xla", is_causal=is_causal, **options)
    return jnp.where(skipped, jnp.nan, out)

  monkeypatch.setattr(jax.nn, "dot_product_attention", attend_with_xla)
  monkeypatch.setattr(
    cudnn_attention, "usable", lambda config, dtype, tokens, head_size: tokens > 1
  )
  jax.clear_caches()
  yield implementations
  jax.clear_caches()


@pytest.mark.parametrize("case", logits.CASES)
def test_logits(tiny, case, calls):
  logits.assert_logits(tiny, torch_reference.make_batch(tiny.config, logits.CASES[case]))
  # One call each for prompts and continuations, in one pass and in two passes.
  assert calls.count(PROMPT) == 4
  assert (IMAGE in calls) == (case != "text only")


@pytest.mark.parametrize(
  ("rows", "is_used"),
  [
    ([[vision.ODD], [], [(4, 4)]], True),
    ([[vision.ODD, (4, 4)], [(2, 2)], []], True),
    ([[(8, 6), vision.ODD, (4, 4), (2, 2)], [(4, 4), vision.ODD]], True),
    ([[(4, 4)] * (cudnn_attention.MAX_SEGMENTS + 1)], False),
  ],
  ids=["one image", "two images", "four images", "more"],
)
def test_features(tiny, rows, is_used, calls):
  batch = torch_reference.make_batch(tiny.config, rows)
  features = vision.encode(tiny.params, tiny.config, batch.images(tiny.config))
  assert np.isfinite(features).all()  # Also of padding.
  with_images = [row for row, grids in enumerate(batch.grids) if len(grids)]
  torch_batch = dataclasses.replace(
    batch,
    patches=[batch.patches[row] for row in with_images],
    grids=[batch.grids[row] for row in with_images],
  )
  want = vision.torch_features(tiny.torch_model, torch_batch)
  vision.assert_features(features[np.array(with_images)], torch_batch, want)
  assert set(calls) == ({IMAGE} if is_used else set())


@pytest.mark.parametrize("run", [gradients.one_pass, gradients.two_passes])
def test_gradients(tied, run, calls):
  batch = torch_reference.make_batch(tied.config, gradients.ROWS)
  rollout = grpo.make_rollout(tied.torch_model, batch, gradients.G, gradients.T)
  want_loss, want = gradients.torch_gradient(tied.torch_model, tied.config, batch, rollout)
  loss, got = gradients.jax_gradient(tied.params, tied.config, batch, rollout, run)
  np.testing.assert_allclose(loss, want_loss, rtol=1e-5)
  grpo.assert_same_gradients(got, want)
  assert calls


@pytest.mark.parametrize(
  ("platform", "kind", "capability", "expected"),
  [
    ("gpu", "NVIDIA H100 80GB HBM3", "9.0", True),
    ("gpu", "NVIDIA A100-SXM4-40GB", "8.0", True),
    ("gpu", "Tesla T4", "7.5", False),
    ("gpu", "AMD Instinct MI300X", "gfx942", False),
    ("tpu", "TPU v5 lite", None, False),
    ("cpu", "cpu", None, False),
  ],
)
def test_devices_that_have_the_kernel(platform, kind, capability, expected):
  device = types.SimpleNamespace(platform=platform, device_kind=kind, compute_capability=capability)
  assert cudnn_attention.available(device) is expected


def test_when_the_kernel_is_used():
  """For half precision, supported head sizes, several tokens, and if the model allows it."""
  config = dataclasses.replace(qwen.Qwen25VL.released("3b"), fused_attention=True)
  for size in (config.text.head_size, config.vision.head_size, 72):
    assert cudnn_attention.usable(config, jnp.bfloat16, 2, size)
  assert not cudnn_attention.usable(config, jnp.float32, 2, 128)
  assert not cudnn_attention.usable(config, jnp.bfloat16, 1, 128)
  for size in (12, 288):
    assert not cudnn_attention.usable(config, jnp.bfloat16, 2, size)
  forbidden = dataclasses.replace(config, fused_attention=False)
  assert not cudnn_attention.usable(forbidden, jnp.bfloat16, 2, 128)


def test_programs_for_a_gpu_call_the_kernel(monkeypatch):
  """Forward and backward pass lowered for CUDA, which needs no GPU."""
  # JAX checks cuDNN's version while tracing.
  monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91_000)
  config = torch_reference.tiny_config(fused_attention=True)
  params = jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, jnp.bfloat16),
    config.shapes(),
    is_leaf=lambda node: isinstance(node, tuple),
  )
  prompt = models.Prompt(*(jax.ShapeDtypeStruct(s, jnp.int32) for s in ((2, 16), (2,), (3, 2, 16))))
  tokens = jax.ShapeDtypeStruct((2, 3, 8), jnp.int32)

  @jax.grad
  def loss(params, prompt, tokens):
    last, hidden = config.forward(params, prompt, None, tokens)
    return last.sum().astype(jnp.float32) + hidden.sum().astype(jnp.float32)

  text = jax.jit(loss).trace(params, prompt, tokens).lower(lowering_platforms=("cuda",)).as_text()
  assert text.count("@__cudnn$fmhaSoftmax(") >= 2
  assert text.count("@__cudnn$fmhaSoftmaxBackward(") == 2

  @jax.grad
  def loss_of_features(params, images):
    return config.encode(params, images).sum().astype(jnp.float32)

  for rows in ([[(4, 4)], [(8, 6)]], [[(4, 4), (8, 6)], []]):
    images = torch_reference.make_batch(config, rows).images(config)
    traced = jax.jit(loss_of_features).trace(params, images)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "@__cudnn$fmhaSoftmaxBackward(" in text
