"""Compares fused attention with transformers, with XLA's attention in place of cuDNN's kernel.

The kernel needs a GPU. Here the inputs that it would get, one causal sequence per row, are passed
to XLA's implementation of the same function.
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


@pytest.fixture
def calls(monkeypatch) -> list[str]:
  """Turns the fused path on and records its calls; clears programs compiled by other tests."""
  attend, implementations = jax.nn.dot_product_attention, []

  def attend_with_xla(*arrays, implementation, **options):
    implementations.append(implementation)
    return attend(*arrays, implementation="xla", **options)

  monkeypatch.setattr(jax.nn, "dot_product_attention", attend_with_xla)
  monkeypatch.setattr(cudnn_attention, "usable", lambda config, dtype, tokens: tokens > 1)
  jax.clear_caches()
  yield implementations
  jax.clear_caches()


@pytest.mark.parametrize("case", logits.CASES)
def test_logits(tiny, case, calls):
  logits.assert_logits(tiny, torch_reference.make_batch(tiny.config, logits.CASES[case]))
  # One call each for prompts and continuations, in one pass and in two passes.
  assert calls == ["cudnn"] * 4


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
  assert cudnn_attention.usable(config, jnp.bfloat16, 2)
  assert not cudnn_attention.usable(config, jnp.float32, 2)
  assert not cudnn_attention.usable(config, jnp.bfloat16, 1)
  for sections, width in (((2, 2, 2), 12 * 16), ((48, 48, 48), 288 * 16)):
    text = dataclasses.replace(config.text, mrope_section=sections, hidden_size=width)
    vision = dataclasses.replace(config.vision, out_hidden_size=width)
    other = dataclasses.replace(config, text=text, vision=vision)
    assert not cudnn_attention.usable(other, jnp.bfloat16, 2)
  forbidden = dataclasses.replace(config, fused_attention=False)
  assert not cudnn_attention.usable(forbidden, jnp.bfloat16, 2)


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
