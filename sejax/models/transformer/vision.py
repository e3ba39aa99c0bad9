"""Parts of vision towers that families share: rotation, attention within images, blocks, merger.

Axes: B rows, S patches of a row, I images of a row, s features of a row, N heads, H head size, W
hidden size of the tower, D hidden size of what a function returns.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sejax.models.transformer.attention import KeySet, Segments, attend
from sejax.models.transformer.config import ModelConfig
from sejax.models.transformer.layers import constrain_rows, dense, layer_norm, remat
from sejax.models.transformer.params import Params
from sejax.models.transformer.rope import rotate

NORM_EPS = 1e-6  # Fixed in the vision blocks of HF's Qwen models.
THETA = 10_000.0  # Fixed in HF `Qwen2VLVisionRotaryEmbedding` and its successors.

# Maps queries, keys and values to the attention; all `[B,S,N,H]`.
Attention = Callable[[Array, Array, Array], Float[Array, "B S N H"]]


def rotary_angles(head_size: int, positions: Int[Array, "B S 2"]) -> Float[Array, "B S H/2"]:
  """Returns the fp32 rotation angles of patches (HF `Qwen2VLVisionRotaryEmbedding`).

  Half of the frequencies follow the row of a patch, half its column.
  """
  quarter = head_size // 4
  frequencies = THETA ** -(np.arange(quarter, dtype=np.float64) / quarter)
  angles = positions[..., None].astype(jnp.float32) * frequencies.astype(np.float32)
  return angles.reshape(*positions.shape[:-1], 2 * quarter)


def attend_within_images(
  config: ModelConfig,
  queries: Float[Array, "B S N H"],
  keys: Float[Array, "B S N H"],
  values: Float[Array, "B S N H"],
  lengths: Int[Array, "B I"],
) -> Float[Array, "B S N H"]:
  """Computes attention to all patches of the same image; its output is finite at padding.

  Args:
    lengths: patches of each image; the images of a row follow each other.
  """
  same_image = KeySet(jnp.swapaxes(keys, 1, 2), jnp.swapaxes(values, 1, 2), Segments(lengths))
  return attend(config, queries[:, None], [same_image])[:, 0]


def self_attention(
  params: Params,
  x: Float[Array, "B S D"],
  angles: Float[Array, "B S H/2"],
  heads: int,
  attention: Attention,
) -> Float[Array, "B S D"]:
  """Applies the attention layer of a block, without norm and residual connection.

  Args:
    params: parameters of the block; `qkv` and `proj` are used.
    angles: rotation angles of the patches, from `rotary_angles`.
    attention: computes attention from rotated queries and keys and from values.
  """
  qkv = jnp.tensordot(x, params["qkv"]["kernel"], 1) + params["qkv"]["bias"]  # [B,S,3,D]
  qkv = _materialize_gradient(qkv)
  queries, keys, values = jnp.moveaxis(qkv.reshape(*x.shape[:2], 3, heads, -1), 2, 0)
  out = attention(rotate(queries, angles), rotate(keys, angles), values)
  return dense(params["proj"], out.reshape(x.shape))


@jax.custom_vjp
def _materialize_gradient(x: Float[Array, "..."]) -> Float[Array, "..."]:
  """Returns `x`, whose gradient is not fused with what comes before.

  XLA for GPUs would fuse the joining of heads into the product that gives the gradient of weights,
  and finds no tiles for that where the head size is 72.
  """
  return x


_materialize_gradient.defvjp(
  lambda x: (x, None), lambda _, gradient: (jax.lax.optimization_barrier(gradient),)
)


def run_blocks(
  params: Params,
  config: ModelConfig,
  x: Float[Array, "B S D"],
  *,
  angles: Float[Array, "B S H/2"],
  lengths: Int[Array, "B I"],
  activation: Callable[[Array], Array],
) -> Float[Array, "B S D"]:
  """Runs stacked blocks of LayerNorm, attention within images, and an MLP of two dense layers.

  Args:
    params: parameters of the blocks, stacked.
    x: embedded patches.
    angles: rotation angles of the patches, from `rotary_angles`.
    lengths: patches of each image; the images of a row follow each other.
    activation: activation function of the MLP.
  """

  def attention(queries: Array, keys: Array, values: Array) -> Array:
    return attend_within_images(config, queries, keys, values, lengths)

  def body(x: Array, block: Params) -> tuple[Array, None]:
    x = constrain_rows(x, config.rows)
    h = layer_norm(block["norm1"], x, NORM_EPS)
    x = x + self_attention(block, h, angles, config.vision.num_heads, attention)
    h = activation(dense(block["fc1"], layer_norm(block["norm2"], x, NORM_EPS)))
    return x + dense(block["fc2"], h), None

  return jax.lax.scan(remat(body, config.remat), x, params, unroll=config.unroll)[0]


def merge_patches(params: Params, x: Float[Array, "B S W"], unit: int) -> Float[Array, "B s D"]:
  """Merges every `unit` patches into one feature: LayerNorm, then a two-layer MLP with erf GELU.

  The size of the norm's scale decides what is normalised: W each patch, `unit` * W the concatenated
  patches of a feature, as in deepstack mergers (HF `Qwen3VLVisionPatchMerger`).

  Args:
    params: parameters of the merger: `norm`, `fc1` and `fc2`.
  """
  merged = (x.shape[0], x.shape[1] // unit, unit * x.shape[2])
  if params["norm"]["scale"].shape[-1] == x.shape[2]:
    x = layer_norm(params["norm"], x, NORM_EPS).reshape(merged)
  else:
    x = layer_norm(params["norm"], x.reshape(merged), NORM_EPS)
  return dense(params["fc2"], jax.nn.gelu(dense(params["fc1"], x), approximate=False))
