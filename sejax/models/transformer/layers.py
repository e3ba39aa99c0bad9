"""Layers that vision tower and decoder share: dense layer, norms, gated MLP, remat."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Sharding
from jaxtyping import Array, Float

from sejax.models.transformer.config import Remat
from sejax.models.transformer.params import Params


def dense(params: Params, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
  """Applies a dense layer with kernel `[I, O]`, and its LoRA adapter and bias if it has them."""
  out = x @ params["kernel"]
  if "lora_a" in params:
    out = out + (x @ params["lora_a"]) @ params["lora_b"]
  return out + params["bias"] if "bias" in params else out


def constrain_rows(x: Float[Array, "B ..."], rows: Sharding | None) -> Float[Array, "B ..."]:
  """Constrains the sharding of activations and their gradients, see `ModelConfig.rows`."""
  return x if rows is None else jax.lax.with_sharding_constraint(x, rows)


def rms_norm(params: Params, x: Float[Array, "... D"], eps: float) -> Float[Array, "... D"]:
  """Applies RMSNorm, computed in fp32 (HF `Qwen2_5_VLRMSNorm`)."""
  wide = x.astype(jnp.float32)
  scale = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
  return params["scale"] * (wide * scale).astype(x.dtype)


def layer_norm(params: Params, x: Float[Array, "... D"], eps: float) -> Float[Array, "... D"]:
  """Applies LayerNorm with scale and bias, computed in fp32 (torch `LayerNorm`)."""
  wide = x.astype(jnp.float32)
  centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
  normed = centred * jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + eps)
  scale, bias = (params[name].astype(jnp.float32) for name in ("scale", "bias"))
  return (normed * scale + bias).astype(x.dtype)


def mlp(params: Params, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
  """Applies a SwiGLU MLP, `down(silu(gate(x)) * up(x))` (HF `Qwen2_5_VLMLP`)."""
  gate = checkpoint_name(dense(params["gate"], x), "gate")
  return dense(params["down"], jax.nn.silu(gate) * dense(params["up"], x))


def remat(body: Callable, policy: Remat) -> Callable:
  """Wraps the body of a scan over layers in `jax.checkpoint`.

  Args:
    body: body of a `jax.lax.scan`.
    policy: what is saved for the backward pass, see `ModelConfig.remat`.
  """
  if policy == "everything":
    return body
  # In a scan, forward and backward pass are separate loops, so the compiler cannot merge recomputed
  # values with saved ones. This makes `prevent_cse`, which costs speed, unnecessary.
  saveable = {
    "nothing": jax.checkpoint_policies.nothing_saveable,
    "gate": jax.checkpoint_policies.save_only_these_names("gate"),
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  }[policy]
  return jax.checkpoint(body, policy=saveable, prevent_cse=False)
