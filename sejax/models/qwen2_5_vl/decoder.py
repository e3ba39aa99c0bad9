"""The decoder's layers, whatever their tokens attend to.

One stream `[B,S,D]` of tokens passes through the layers. What it holds (a prompt, G continuations
one after the other, or both) only the attention function given to `run_layers` knows.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sejax.models.qwen2_5_vl.config import Config
from sejax.models.qwen2_5_vl.layers import dense, mlp, remat, rms_norm, split_rows
from sejax.models.qwen2_5_vl.params import Params
from sejax.models.qwen2_5_vl.rope import rotate

# Queries `[B,S,N,H]`, keys and values `[B,S,K,H]` and this layer's slice of the extra inputs, to
# the attention `[B,S,N,H]` and what is to be kept of the layer.
Attention = Callable[[Array, Array, Array, Any], tuple[Float[Array, "B S N H"], Any]]


def run_layers(
  params: Params,
  config: Config,
  x: Float[Array, "B S D"],
  angles: Float[Array, "B S H/2"],
  attention: Attention,
  extra: Any = None,
) -> tuple[Float[Array, "B S D"], Any]:
  """Runs all layers and the final norm (HF `Qwen2_5_VLTextModel`).

  Args:
    params: the tree's `decoder` part; layers in a list instead of a stack are compiled one by one.
    config: the model.
    x: embedded tokens.
    angles: of the tokens' rotation.
    attention: what the tokens attend to.
    extra: what `attention` needs of each layer, such as a prefix: a stack or a list, as layers are.

  Returns:
    Normed hidden states, and what `attention` kept of each layer: a stack or a list, likewise.
  """
  text = config.text

  def body(x, inputs):
    layer, layer_extra = inputs
    x = split_rows(x, config.rows)
    h = rms_norm(layer["input_norm"], x, text.rms_norm_eps)
    queries, keys, values = (
      dense(layer[name], h).reshape(*h.shape[:2], -1, text.head_size) for name in ("q", "k", "v")
    )
    out, kept = attention(rotate(queries, angles), rotate(keys, angles), values, layer_extra)
    x = x + dense(layer["o"], out.reshape(*x.shape[:2], -1))
    x = x + mlp(layer, rms_norm(layer["post_norm"], x, text.rms_norm_eps))
    return x, kept

  layers = params["layers"]
  if isinstance(layers, list):
    kept = []
    for inputs in zip(layers, extra, strict=True):
      x, own = body(x, inputs)
      kept.append(own)
  else:
    body = remat(body, config.remat)
    x, kept = jax.lax.scan(body, x, (layers, extra), unroll=config.unroll)
  return rms_norm(params["final_norm"], x, text.rms_norm_eps), kept


def group_queries(
  queries: Float[Array, "B S N H"], members: int, kv_heads: int
) -> Float[Array, "B K G r T H"]:
  """Lays queries of G members, T each, out as `attention.attend` takes them; r = N / K."""
  batch, size, heads, width = queries.shape
  shape = (batch, members, size // members, kv_heads, heads // kv_heads, width)
  return jnp.transpose(queries.reshape(shape), (0, 3, 1, 4, 2, 5))


def ungroup(out: Float[Array, "B K G r T H"]) -> Float[Array, "B S N H"]:
  """Undoes `group_queries`."""
  batch, kv_heads, members, ratio, length, width = out.shape
  stream = jnp.transpose(out, (0, 2, 4, 1, 3, 5))
  return stream.reshape(batch, members * length, kv_heads * ratio, width)


def group_keys(keys: Float[Array, "B S K H"], members: int) -> Float[Array, "B K G T H"]:
  """Lays keys or values of G members, T each, out as `attention.Keys` holds them."""
  batch, size, kv_heads, width = keys.shape
  shape = (batch, members, size // members, kv_heads, width)
  return jnp.transpose(keys.reshape(shape), (0, 3, 1, 2, 4))
