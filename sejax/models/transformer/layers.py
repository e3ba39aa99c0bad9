"""What the vision tower and the decoder share: dense layers, RMSNorm, the gated MLP, remat."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Sharding
from jaxtyping import Array, Float

from sejax.models.transformer.config import Remat
from sejax.models.transformer.params import Params


def dense(params: Params, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
  """Multiplies by the kernel `[I, O]`; adds bias and low-rank adapter where there are (`lora`)."""
  out = x @ params["kernel"]
  if "lora_a" in params:
    out = out + (x @ params["lora_a"]) @ params["lora_b"]
  return out + params["bias"] if "bias" in params else out


def split_rows(x: Float[Array, "B ..."], rows: Sharding | None) -> Float[Array, "B ..."]:
  """Says where activations and their gradients lie, see `ModelConfig.rows`."""
  return x if rows is None else jax.lax.with_sharding_constraint(x, rows)


def rms_norm(params: Params, x: Float[Array, "... D"], eps: float) -> Float[Array, "... D"]:
  """Divides by the root of the mean square, in fp32 (HF `Qwen2_5_VLRMSNorm`)."""
  wide = x.astype(jnp.float32)
  scale = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
  return params["scale"] * (wide * scale).astype(x.dtype)


def mlp(params: Params, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
  """SwiGLU: `down(silu(gate(x)) * up(x))` (HF `Qwen2_5_VLMLP`)."""
  return dense(params["down"], jax.nn.silu(dense(params["gate"], x)) * dense(params["up"], x))


def remat(body: Callable, policy: Remat) -> Callable:
  """Makes the body of a scan over layers keep for its backward pass what `policy` says."""
  if policy == "everything":
    return body
  # The scan keeps forward and backward apart, so common subexpressions need no guarding.
  saveable = {
    "nothing": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  }[policy]
  return jax.checkpoint(body, policy=saveable, prevent_cse=False)
