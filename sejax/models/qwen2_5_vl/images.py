"""Packs the images of each row into padded arrays for the vision tower, on the host.

Two orders of patches occur. In processor order, the patches of an image are in raster order of the
features that they become. In window order, which the vision tower needs, the patches of each
attention window are contiguous. The images of a row follow each other in both.

Axes: B rows, S patches of a row with padding, I images of a row, s = S / merge_unit features.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from sejax.models.qwen2_5_vl.config import VisionConfig
from sejax.models.transformer.images import image_lengths, pad_patches, patch_positions

PADDING = -1


class Images(NamedTuple):
  """Packed images of B rows.

  Attributes:
    patches: flattened patches in processor order, padded at the end.
    order: index in processor order of each feature of the window order; a permutation.
    positions: row and column of each patch within its image, in window order.
    lengths: patches of each image, in order; 0 after the last image of a row.
    window: index of each patch's window within the row, in window order; -1 at padding.
  """

  patches: Float[Array | np.ndarray, "B S patch_dim"]
  order: Int[Array | np.ndarray, "B s"]
  positions: Int[Array | np.ndarray, "B S 2"]
  lengths: Int[Array | np.ndarray, "B I"]
  window: Int[Array | np.ndarray, "B S"]


def pack_images(
  config: VisionConfig,
  patches: Sequence[Float[np.ndarray, "_ patch_dim"]],
  grids: Sequence[Int[np.ndarray, "_ 3"]],
  size: int,
  most: int | None = None,
) -> Images:
  """Packs the patches of each row's images into arrays of a common size, see `Model.pack_images`.

  Args:
    size: a multiple of `config.window_patches`.

  Raises:
    ValueError: patches or images do not fit, or patches and grids disagree.
  """
  if size < 1 or size % config.window_patches:
    raise ValueError(
      f"size is {size} patches; it must be a multiple of a window's {config.window_patches}"
    )
  rows = len(patches)
  images = Images(
    patches=pad_patches(patches, grids, size, config.patch_dim),
    order=np.tile(np.arange(size // config.merge_unit, dtype=np.int32), (rows, 1)),
    positions=np.zeros((rows, size, 2), np.int32),
    lengths=image_lengths(grids, most),
    window=np.full((rows, size), PADDING, np.int32),
  )
  for row, row_grids in enumerate(grids):
    _index_row(
      config,
      np.reshape(row_grids, (-1, 3)),
      order=images.order[row],
      positions=images.positions[row],
      window=images.window[row],
    )
  return images


def _index_row(
  config: VisionConfig,
  grids: Int[np.ndarray, "_ 3"],
  *,
  order: Int[np.ndarray, " s"],
  positions: Int[np.ndarray, "S 2"],
  window: Int[np.ndarray, " S"],
) -> None:
  """Fills the index arrays of one row in place, see `Images`."""
  patch_start, next_window = 0, 0
  for grid in grids:
    image_order, image_window, image_positions = _index_image(config, tuple(map(int, grid)))
    where = slice(patch_start, patch_start + int(np.prod(grid)))
    start = patch_start // config.merge_unit
    order[start : start + len(image_order)] = start + image_order
    positions[where] = image_positions
    window[where] = next_window + np.repeat(image_window, config.merge_unit)
    patch_start = where.stop
    next_window += image_window[-1] + 1


@functools.lru_cache(maxsize=1024)
def _index_image(config: VisionConfig, grid: tuple[int, int, int]) -> tuple[np.ndarray, ...]:
  """Returns the window order, window indices and patch positions of one image.

  Cached, because few different grids occur in a data set.
  """
  order, window = window_order(config, np.array(grid))
  return order, window, patch_positions(config.spatial_merge_size, grid)[order].reshape(-1, 2)


def window_order(
  config: VisionConfig, grid: Int[np.ndarray, " 3"]
) -> tuple[Int[np.ndarray, " s"], Int[np.ndarray, " s"]]:
  """Orders the features of one image by window (HF `get_vision_window_index`).

  Args:
    grid: (time, height, width) of the image in patches.

  Returns:
    For each feature in window order, its index in processor order and the index of its window.
  """
  side = config.window_size // (config.patch_size * config.spatial_merge_size)
  shape = np.asarray(grid) // (1, config.spatial_merge_size, config.spatial_merge_size)
  time, row, column = np.indices(shape).reshape(3, -1)
  across, down = -(-shape[2] // side), -(-shape[1] // side)
  window = (time * down + row // side) * across + column // side
  order = np.argsort(window, kind="stable")
  return order, window[order]
