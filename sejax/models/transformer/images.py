"""Packs the images of each row into padded arrays for vision towers without windows, on the host.

Axes: B rows, S patches of a row with padding, I images of a row, s features of an image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int


class Images(NamedTuple):
  """Packed images of B rows.

  Attributes:
    patches: flattened patches, image after image as from the image processor, padded at the end.
    positions: row and column of each patch within its image.
    lengths: patches of each image, in order; 0 after the last image of a row.
  """

  patches: Float[Array | np.ndarray, "B S patch_dim"]
  positions: Int[Array | np.ndarray, "B S 2"]
  lengths: Int[Array | np.ndarray, "B I"]


def pack_images(
  patches: Sequence[Float[np.ndarray, "_ patch_dim"]],
  grids: Sequence[Int[np.ndarray, "_ 3"]],
  size: int,
  *,
  most: int | None = None,
  merge: int,
  patch_dim: int,
) -> Images:
  """Packs the patches of each row's images into arrays of a common size.

  Args:
    patches: for each row, the flattened patches of all its images, from the image processor.
    grids: for each row, the (time, height, width) of its images in patches; `[0, 3]` without
      images.
    size: patches of a row with padding, S: a multiple of `merge**2` and at least the patches of the
      fullest row.
    most: images of a row, I; None for those of the row with most.
    merge: side, in patches, of the square of patches that becomes one feature.
    patch_dim: size of one flattened patch.

  Raises:
    ValueError: patches or images do not fit, or patches and grids disagree.
  """
  if size < 1 or size % merge**2:
    raise ValueError(f"size is {size} patches; it must be a multiple of {merge**2}")
  shape = (len(patches), size)
  images = Images(
    patches=pad_patches(patches, grids, size, patch_dim),
    positions=np.zeros((*shape, 2), np.int32),
    lengths=image_lengths(grids, most),
  )
  for row, row_grids in enumerate(grids):
    start = 0
    for grid in np.reshape(row_grids, (-1, 3)):
      where = slice(start, start + int(grid.prod()))
      positions = patch_positions(merge, tuple(map(int, grid)))
      images.positions[row, where] = positions.reshape(-1, 2)
      start = where.stop
  return images


def image_lengths(
  grids: Sequence[Int[np.ndarray, "_ 3"]], most: int | None
) -> Int[np.ndarray, "B I"]:
  """Returns the patches of each image, 0 after the last image of a row, see `pack_images`.

  Raises:
    ValueError: a row has more images than `most`.
  """
  counts = [np.reshape(row, (-1, 3)).prod(axis=1) for row in grids]
  fullest = max(map(len, counts), default=0)
  if most is None:
    most = max(fullest, 1)
  if fullest > most:
    raise ValueError(f"a row has {fullest} images; there is room for {most}")
  lengths = np.zeros((len(grids), most), np.int32)
  for row, row_counts in zip(lengths, counts, strict=True):
    row[: len(row_counts)] = row_counts
  return lengths


def pad_patches(
  patches: Sequence[Float[np.ndarray, "_ patch_dim"]],
  grids: Sequence[Int[np.ndarray, "_ 3"]],
  size: int,
  patch_dim: int,
) -> Float[np.ndarray, "B S patch_dim"]:
  """Returns the patches of each row, padded with zeros; for the arguments see `pack_images`.

  Raises:
    ValueError: the patches do not fit the size, or patches and grids disagree.
  """
  padded = np.zeros((len(patches), size, patch_dim), np.float32)
  for row, (row_patches, row_grids) in enumerate(zip(patches, grids, strict=True)):
    used = int(np.reshape(row_grids, (-1, 3)).prod(axis=1).sum())
    if used > size:
      raise ValueError(f"row {row}: {used} patches do not fit a size of {size}")
    if len(row_patches) != used:
      raise ValueError(f"row {row}: {len(row_patches)} patches, but its grids hold {used}")
    padded[row, :used] = np.reshape(row_patches, (used, patch_dim))
  return padded


def patch_positions(merge: int, grid: tuple[int, int, int]) -> Int[np.ndarray, "s merge_unit 2"]:
  """Returns row and column of the patches of each feature (HF `get_vision_position_ids`).

  Args:
    merge: side, in patches, of the square of patches that becomes one feature.
    grid: (time, height, width) of the image in patches.
  """
  time, height, width = grid
  position = np.stack(np.indices((height, width)), axis=-1)
  blocks = position.reshape(height // merge, merge, width // merge, merge, 2).swapaxes(1, 2)
  return np.tile(blocks.reshape(-1, merge * merge, 2), (time, 1, 1))
