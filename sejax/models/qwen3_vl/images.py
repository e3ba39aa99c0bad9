"""Packs the images of each row into padded arrays for the vision tower, on the host.

The table of learned positions has one size, and images have many. How its entries are mixed for
each patch depends on the grid alone, and so is computed here.

Axes: B rows, S patches of a row with padding, I images of a row.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from sejax.models.qwen3_vl.config import VisionConfig
from sejax.models.transformer import images as shared


class Images(NamedTuple):
  """Packed images of B rows.

  Attributes:
    patches: flattened patches, image after image as from the image processor, padded at the end.
    positions: row and column of each patch within its image.
    lengths: patches of each image, in order; 0 after the last image of a row.
    entries: indices of the four entries of the position table around each patch.
    weights: weights of these entries in the bilinear interpolation; 0 at padding.
  """

  patches: Float[Array | np.ndarray, "B S patch_dim"]
  positions: Int[Array | np.ndarray, "B S 2"]
  lengths: Int[Array | np.ndarray, "B I"]
  entries: Int[Array | np.ndarray, "B S 4"]
  weights: Float[Array | np.ndarray, "B S 4"]


def pack_images(
  config: VisionConfig,
  patches: Sequence[Float[np.ndarray, "_ patch_dim"]],
  grids: Sequence[Int[np.ndarray, "_ 3"]],
  size: int,
  most: int | None = None,
) -> Images:
  """Packs the images of each row to a common size, see `transformer.images.pack_images`."""
  merge = config.spatial_merge_size
  packed = shared.pack_images(
    patches, grids, size, most=most, merge=merge, patch_dim=config.patch_dim
  )
  entries = np.zeros((len(grids), size, 4), np.int32)
  weights = np.zeros((len(grids), size, 4), np.float32)
  for row, row_grids in enumerate(grids):
    start = 0
    for grid in np.reshape(row_grids, (-1, 3)):
      grid_entries, grid_weights = _interpolation(config.table_side, merge, tuple(map(int, grid)))
      stop = start + len(grid_entries)
      entries[row, start:stop], weights[row, start:stop] = grid_entries, grid_weights
      start = stop
  return Images(*packed, entries, weights)


@functools.lru_cache(maxsize=1024)
def _interpolation(
  side: int, merge: int, grid: tuple[int, int, int]
) -> tuple[Int[np.ndarray, "S 4"], Float[np.ndarray, "S 4"]]:
  """Returns the entries and weights that resample the square table to the grid of one image.

  Bilinear with aligned corners (HF `get_vision_interpolation_indices_and_weights`). Cached, because
  few different grids occur in a data set.
  """
  positions = shared.patch_positions(merge, grid).reshape(-1, 2)
  rows, row_weights = _axis(positions[:, 0], grid[1], side)
  columns, column_weights = _axis(positions[:, 1], grid[2], side)
  entries = rows[:, :, None] * side + columns[:, None, :]
  weights = row_weights[:, :, None] * column_weights[:, None, :]
  return entries.reshape(-1, 4), weights.reshape(-1, 4)


def _axis(
  positions: Int[np.ndarray, " S"], length: int, side: int
) -> tuple[Int[np.ndarray, "S 2"], Float[np.ndarray, "S 2"]]:
  """Returns the two entries around each position along one axis, and their weights."""
  # In fp32 and in this order, as the reference computes it.
  place = positions.astype(np.float32) * np.float32(side - 1) / np.float32(max(length - 1, 1))
  floor = np.floor(place)
  offsets = np.arange(2, dtype=np.float32)
  entries = np.clip(floor.astype(np.int64)[:, None] + np.arange(2), 0, side - 1)
  distance = np.abs(place[:, None] - floor[:, None] - offsets)
  return entries, np.maximum(1 - distance, 0)
