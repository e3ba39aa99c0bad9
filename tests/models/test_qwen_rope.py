"""Compares positions and angles with transformers'."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sejax.models import qwen2_5_vl as qwen
from sejax.models.transformer.generation import next_position
from sejax.models.transformer.rope import rotate, text_angles
from tests.models import torch_reference

ROWS = [
  [3, (10, 18), 4, (4, 4), (8, 6), 2],  # Two images with only their markers between them.
  [(4, 12), 1],
  [(12, 4)],  # Ends with an image.
  [9],  # Text only, in a batch with images.
]


def test_positions(tiny):
  batch = torch_reference.make_batch(tiny.config, ROWS)
  inputs = batch.torch_inputs()
  want, deltas = tiny.torch_model.model.get_rope_index(
    inputs["input_ids"],
    mm_token_type_ids=inputs["mm_token_type_ids"],
    image_grid_thw=inputs["image_grid_thw"],
    attention_mask=inputs["attention_mask"],
  )
  prompt = batch.prompt(tiny.config)
  np.testing.assert_array_equal(prompt.positions, want.numpy())
  ends = batch.lengths + deltas.numpy()[:, 0]
  np.testing.assert_array_equal(next_position(prompt), ends)
  # Whatever stands in the padding.
  real = np.arange(prompt.ids.shape[1]) < batch.lengths[:, None]
  padded = prompt._replace(positions=np.where(real, prompt.positions, 999))
  np.testing.assert_array_equal(next_position(padded), ends)


@pytest.mark.parametrize(
  ("tokens", "grids"),
  [
    (4, [(1, 4, 4), (1, 4, 4)]),  # An image without tokens.
    (3, [(1, 4, 4)]),  # Too few tokens.
    (5, [(1, 4, 4)]),  # Too many.
    (4, []),  # Tokens without an image.
    (1, [(1, 3, 3)]),  # Patches that do not merge into whole features.
  ],
)
def test_refuses_tokens_that_do_not_fit_the_images(tokens, grids):
  config = torch_reference.tiny_config()
  ids = np.array([[7] * 8, [7, 7] + [torch_reference.IMAGE] * tokens + [7] * (6 - tokens)])
  grids = [np.zeros((0, 3), int), np.array(grids, int).reshape(-1, 3)]
  with pytest.raises(ValueError, match=rf"row 1: .*{tokens}"):
    config.prompt_positions(ids, np.array([8, 8]), grids)


def test_rotation_stays_fp32_under_bf16():
  config = qwen.Qwen25VL.released("7b").text
  # At large positions, rounding angles or frequencies to bf16 would give large errors.
  positions = np.stack([np.arange(9000, 9008), np.arange(30, 38), np.arange(4000, 4008)])[:, None]
  angles = text_angles(config, jnp.asarray(positions))
  assert angles.dtype == jnp.float32

  inverse = 1.0 / (1e6 ** (torch.arange(0, 128, 2, dtype=torch.float64) / 128))
  by_axis = torch.tensor(positions, dtype=torch.float64)[:, 0, :, None] * inverse
  sections = [part[i] for i, part in enumerate(by_axis.split([16, 24, 24], dim=-1))]
  want = torch.cat(sections, dim=-1)
  # Relative error of one rounding of the frequency and one of the product in fp32.
  np.testing.assert_allclose(angles[0], want.numpy(), rtol=2e-7)

  x = jnp.ones((1, 8, 1, 128), jnp.bfloat16)
  rotated = rotate(x, angles)
  assert rotated.dtype == jnp.bfloat16
  first = want.cos() - want.sin()
  # Half an ulp of bf16, and the error of an fp32 angle of 9,007 radians.
  np.testing.assert_allclose(
    rotated[0, :, 0, :64].astype(jnp.float32), first.numpy(), rtol=2**-8, atol=2e-3
  )
