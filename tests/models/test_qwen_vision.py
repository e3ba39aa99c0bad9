"""Compares the vision tower with transformers': features, windows, packing."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import torch
from transformers.vision_utils import get_vision_window_index

from sejax.models import qwen2_5_vl as qwen
from sejax.models.qwen2_5_vl.images import window_order
from tests.models import torch_reference

# Patches of a 140x252 px image; its windows are incomplete at two edges.
ODD = (10, 18)


@functools.partial(jax.jit, static_argnums=1)
def encode(params, config, images):
  return config.encode(params, images)


def torch_features(model, batch) -> list[np.ndarray]:
  """Returns torch's features of each row, encoded without the images of other rows."""
  found = []
  for patches, grids in zip(batch.patches, batch.grids, strict=True):
    with torch.no_grad():
      out = model.get_image_features(torch.from_numpy(patches), torch.from_numpy(grids))
    found.append(torch.cat(out.pooler_output).numpy())
  return found


def assert_features(features, batch, want):
  for row, row_want in enumerate(want):
    np.testing.assert_allclose(features[row, : len(row_want)], row_want, rtol=0, atol=2e-5)


def test_images_of_different_sizes(tiny):
  rows = [[ODD], [ODD, (4, 4), (8, 6)], [(2, 2), (12, 4)], [(4, 6), ODD]]
  batch = torch_reference.make_batch(tiny.config, rows)
  features = encode(tiny.params, tiny.config, batch.images(tiny.config))
  assert_features(features, batch, torch_features(tiny.torch_model, batch))


def test_an_image_gives_the_same_features_alone_and_beside_another(tiny):
  batch = torch_reference.make_batch(tiny.config, [[ODD]])
  patches, grid = batch.patches[0], batch.grids[0]
  other = torch_reference.make_batch(tiny.config, [[(8, 6)]], seed=1)
  beside = dataclasses.replace(
    batch,
    patches=[
      patches,
      np.concatenate([patches, other.patches[0]]),
      np.concatenate([other.patches[0], patches]),
      np.zeros((0, tiny.config.vision.patch_dim), np.float32),
    ],
    grids=[
      grid,
      np.concatenate([grid, other.grids[0]]),
      np.concatenate([other.grids[0], grid]),
      np.zeros((0, 3), np.int64),
    ],
  )
  features = np.asarray(encode(tiny.params, tiny.config, beside.images(tiny.config)))
  assert np.isfinite(features).all()  # Also of padding, and of the row without images.
  (want,) = torch_features(tiny.torch_model, batch)
  for row, start in ((0, 0), (1, 0), (2, 12)):
    np.testing.assert_allclose(features[row, start : start + len(want)], want, rtol=0, atol=2e-5)


@pytest.mark.long
@pytest.mark.parametrize(
  "full",
  [
    (0, 2),
    (2,),
    (0, 1, 2, 3),
    (),
    (7, 15, 23, 31),  # The default, beyond the depth of four: no block.
    (1, 4),
    (-1, 2),
    (3, 0, 3, 99),
  ],
)
def test_any_pattern_of_full_blocks(full):
  tiny = torch_reference.tiny_config()
  raw = tiny.to_hf()
  raw["vision_config"]["fullatt_block_indexes"] = list(full)
  config = qwen.Qwen25VL.from_hf(raw)
  model = torch_reference.torch_model(config, raw=raw)
  params = torch_reference.to_params(dict(model.named_parameters()), config)
  batch = torch_reference.make_batch(config, [[ODD]])
  features = encode(params, config, batch.images(config))
  assert_features(features, batch, torch_features(model, batch))


def test_full_attention_in_chunks(tiny):
  batch = torch_reference.make_batch(tiny.config, [[ODD, (4, 4)]])
  config = dataclasses.replace(tiny.config, query_chunk=56)  # Does not divide the 208 patches.
  features = encode(tiny.params, config, batch.images(config))
  assert_features(features, batch, torch_features(tiny.torch_model, batch))


@pytest.mark.parametrize("grid", [(1, 10, 18), (1, 16, 16), (1, 2, 2), (1, 40, 26), (2, 10, 6)])
@pytest.mark.parametrize("size", ["3b", "tiny"])
def test_window_order(grid, size):
  config = torch_reference.tiny_config() if size == "tiny" else qwen.Qwen25VL.released(size)
  vision = config.vision
  want, bounds = get_vision_window_index(
    torch.tensor([grid]), vision.spatial_merge_size, vision.window_size, vision.patch_size
  )
  order, window = window_order(vision, np.array(grid))
  np.testing.assert_array_equal(order, want.numpy())
  starts = np.flatnonzero(np.diff(window, prepend=-1)) * vision.merge_unit
  np.testing.assert_array_equal(starts, bounds[:-1].numpy())


def test_compiled_size_does_not_grow_with_depth():
  def lowered_size(depth):
    tiny = torch_reference.tiny_config()
    full = tuple(range(7, depth, 8))
    vision = dataclasses.replace(tiny.vision, depth=depth, fullatt_block_indexes=full)
    config = dataclasses.replace(tiny, vision=vision)
    images = torch_reference.make_batch(config, [[ODD]]).images(config)
    params = jax.eval_shape(lambda key: config.init(key), jax.random.key(0))
    return len(jax.jit(config.encode).lower(params, images).as_text())

  assert lowered_size(32) < 1.05 * lowered_size(16)


@pytest.mark.parametrize(
  ("size", "dropped", "message"),
  [
    (200, 0, r"size is 200 patches.*multiple of a window's 16"),
    (160, 0, r"row 0: 180 patches do not fit a size of 160"),
    (192, 1, r"row 0: 179 patches, but its grids hold 180"),
  ],
)
def test_refuses_to_pack(size, dropped, message):
  config = torch_reference.tiny_config()
  batch = torch_reference.make_batch(config, [[ODD]])
  with pytest.raises(ValueError, match=message):
    qwen.pack_images(config.vision, [batch.patches[0][dropped:]], batch.grids, size)


def test_sizes_of_one_bucket_share_a_program(tiny):
  sizes = [(2, 2), (2, 4), (4, 2), (4, 4), (4, 6), (6, 4), (6, 6), (8, 4), (8, 6), (8, 8)]
  programs = jax.jit(lambda params, images: tiny.config.encode(params, images))
  for size in sizes:
    batch = torch_reference.make_batch(tiny.config, [[size]])
    images = qwen.pack_images(tiny.config.vision, batch.patches, batch.grids, 64)
    programs(tiny.params, images)
  assert programs._cache_size() == 1
