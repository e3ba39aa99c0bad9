"""What the vision tower and the decoder share: dense layers, RMSNorm, the gated MLP, remat."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sejax.models.qwen2_5_vl.config import Remat
from sejax.models.qwen2_5_vl.params import Params


def dense(params: Params, x: Float[Array, "... I"]) -> Float[Array, "... O"]:
  """Multiplies by the kernel `[I, O]` and adds the bias where there is one."""
  out = x @ params["kernel"]
  return out + params["bias"] if "bias" in params else out


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
