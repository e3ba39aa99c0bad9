"""The vision tower: encodes image patches to features of the decoder's hidden size.

Axes: B rows, S patches of a row, s features of a row, N heads, H head size, D hidden size.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sejax.models.qwen2_5_vl.images import Images
from sejax.models.transformer.attention import KeySet, attend
from sejax.models.transformer.config import ModelConfig
from sejax.models.transformer.layers import constrain_rows, dense, mlp, remat, rms_norm
from sejax.models.transformer.params import Params
from sejax.models.transformer.vision import (
  NORM_EPS,
  Attention,
  attend_within_images,
  rotary_angles,
  self_attention,
)


def encode_images(params: Params, config: ModelConfig, images: Images) -> Float[Array, "B s D"]:
  """Encodes the images of each row (HF `Qwen2_5_VisionTransformerPretrainedModel`).

  Args:
    params: the `vision` part of the parameter tree.
    images: packed images; S must be a multiple of `window_patches`.

  Returns:
    s = S / merge_unit features per row, in processor order; padding is at the end.
  """
  vision = config.vision
  images = jax.tree.map(jnp.asarray, images)  # numpy arrays, if this is called outside of jit.
  rows, size, _ = images.patches.shape
  units = images.patches.reshape(rows, size // vision.merge_unit, -1)
  ordered = jnp.take_along_axis(units, images.order[..., None], axis=1)
  patches = ordered.reshape(images.patches.shape)
  x = dense(params["patch_embed"], patches.astype(params["patch_embed"]["kernel"].dtype))

  angles = rotary_angles(vision.head_size, images.positions)

  def block(attention: Attention) -> Callable:
    def body(x, block_params):
      x = constrain_rows(x, config.rows)
      return _block(block_params, x, angles, vision.num_heads, attention), None

    return remat(body, config.remat)

  windowed = block(lambda q, k, v: _within_windows(config, q, k, v, images.window))
  full = block(lambda q, k, v: attend_within_images(config, q, k, v, images.lengths))
  x = _scan_blocks(
    params["blocks"],
    x,
    fullatt_block_indexes=vision.fullatt_block_indexes,
    windowed=windowed,
    full=full,
    unroll=config.unroll,
  )

  features = _merge(params["merger"], x, vision.merge_unit)
  return jnp.take_along_axis(features, jnp.argsort(images.order)[..., None], axis=1)


def _block(
  params: Params,
  x: Float[Array, "B S D"],
  angles: Float[Array, "B S H/2"],
  heads: int,
  attention: Attention,
) -> Float[Array, "B S D"]:
  """Applies one block: attention, then the MLP, each with a residual connection."""
  x = x + self_attention(params, rms_norm(params["norm1"], x, NORM_EPS), angles, heads, attention)
  return x + mlp(params, rms_norm(params["norm2"], x, NORM_EPS))


def _within_windows(
  config: ModelConfig,
  queries: Float[Array, "B S N H"],
  keys: Float[Array, "B S N H"],
  values: Float[Array, "B S N H"],
  window: Int[Array, "B S"],
) -> Float[Array, "B S N H"]:
  """Computes attention to the patches of the same window, which are contiguous.

  Patches are cut into blocks as long as a full window. A window then spans at most two neighbouring
  blocks, so each block of queries attends to itself and to the blocks on both sides. This needs no
  gather, and memory linear in S.
  """
  batch, size, heads, _ = queries.shape
  length = config.vision.window_patches
  blocks = size // length

  def cut(x):  # [B,S,N,H] -> [B,N,blocks,length,H]
    return jnp.moveaxis(x.reshape(batch, blocks, length, heads, -1), 3, 1)

  def with_neighbours(x, outside):  # [...,blocks,length,_] -> [...,blocks,3 x length,_]
    edges = [(0, 0)] * (x.ndim - 3) + [(1, 1), (0, 0), (0, 0)]
    padded = jnp.pad(x, edges, constant_values=outside)
    shifted = [padded[..., i : i + blocks, :, :] for i in range(3)]
    return jnp.concatenate(shifted, axis=-2)

  query_window = window.reshape(batch, blocks, length, 1)
  # -2 outside the row equals neither a window nor padding (-1), so it is never attended to.
  key_window = jnp.swapaxes(with_neighbours(query_window, -2), -1, -2)
  near = KeySet(
    with_neighbours(cut(keys), 0),
    with_neighbours(cut(values), 0),
    lambda index: query_window[:, :, index] == key_window,
  )
  by_block = queries.reshape(batch, blocks, length, heads, -1)
  return attend(config, by_block, [near], chunk=size).reshape(queries.shape)


def _scan_blocks(
  params: Params,
  x: Float[Array, "B S D"],
  *,
  fullatt_block_indexes: tuple[int, ...],
  windowed: Callable,
  full: Callable,
  unroll: bool,
) -> Float[Array, "B S D"]:
  """Runs the stacked blocks.

  A period is some windowed blocks followed by a block with full attention. Consecutive periods of
  equal length share one scan, so that compile time does not grow with depth.

  Args:
    params: parameters of all blocks, stacked.
    windowed: body of a scan over windowed blocks.
    full: body of a scan over blocks with full attention.
    unroll: see `ModelConfig`.
  """

  def period(x, blocks):
    x, _ = jax.lax.scan(windowed, x, jax.tree.map(lambda p: p[:-1], blocks), unroll=unroll)
    return full(x, jax.tree.map(lambda p: p[-1], blocks))

  windowed_counts = np.diff([-1, *sorted(fullatt_block_indexes)]) - 1
  start = 0
  for windowed_count, group in itertools.groupby(windowed_counts.tolist()):
    periods = len(list(group))
    stop = start + periods * (windowed_count + 1)

    def split(p, start=start, stop=stop, periods=periods):
      return p[start:stop].reshape(periods, -1, *p.shape[1:])

    x, _ = jax.lax.scan(period, x, jax.tree.map(split, params), unroll=unroll)
    start = stop
  # Windowed blocks after the last full one; the released towers have none.
  x, _ = jax.lax.scan(windowed, x, jax.tree.map(lambda p: p[start:], params), unroll=unroll)
  return x


def _merge(params: Params, x: Float[Array, "B S W"], unit: int) -> Float[Array, "B s D"]:
  """Merges every `unit` patches into one feature (HF `Qwen2_5_VLPatchMerger`)."""
  x = rms_norm(params["norm"], x, NORM_EPS)
  merged = x.reshape(x.shape[0], x.shape[1] // unit, -1)
  return dense(params["fc2"], jax.nn.gelu(dense(params["fc1"], merged), approximate=False))
