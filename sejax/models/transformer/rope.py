"""Rotary position embeddings: M-RoPE of the decoder, and the rotation itself.

Positions of prompts are laid out on the host, as they depend on the sizes of the images; angles and
the rotation itself are fp32 whatever the parameters are.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sejax.models.transformer.config import ModelConfig, TextConfig


def prompt_positions(
  config: ModelConfig,
  ids: Int[np.ndarray, "B P"],
  lengths: Int[np.ndarray, " B"],
  grids: Sequence[Int[np.ndarray, "_ 3"]],
) -> Int[np.ndarray, "3 B P"]:
  """Lays out each row's positions by time, height and width (HF `get_rope_index`, images only).

  Text counts on in all three. An image's tokens share one time, and take their rows and columns,
  counted from the position where the image begins; text after it goes on past the largest of these.
  Each row counts for itself, text-only rows too.

  Args:
    config: gives the image token and the merge size.
    ids: prompts, padded on the right.
    lengths: real tokens of each row.
    grids: for each row, its images' (time, height, width) in patches, in order.

  Returns:
    int32 positions; 0 at padding.

  Raises:
    ValueError: a row's image tokens are not what its grids ask for.
  """
  positions = np.zeros((3, *ids.shape), np.int32)
  for row, (tokens, length, images) in enumerate(zip(ids, lengths, grids, strict=True)):
    positions[:, row, :length] = _row_positions(config, tokens[:length], images, row)
  return positions


def _row_positions(
  config: ModelConfig,
  tokens: Int[np.ndarray, " P"],
  grids: Int[np.ndarray, "_ 3"],
  row: int,
) -> Int[np.ndarray, "3 P"]:
  is_image = tokens == config.image_token_id
  merge = config.vision.spatial_merge_size
  if (np.reshape(grids, (-1, 3))[:, 1:] % merge).any():
    raise ValueError(f"row {row}: grids {grids} must be multiples of {merge} patches each way")
  parts, start, position = [], 0, 0
  for time, height, width in np.reshape(grids, (-1, 3)) // (1, merge, merge):
    remaining = np.flatnonzero(is_image[start:])
    text = remaining[0] if remaining.size else 0
    stop = start + text + time * height * width
    if not remaining.size or not is_image[start + text : stop].all() or stop > len(tokens):
      raise ValueError(
        f"row {row}: an image of {time}x{height}x{width} features needs as many image tokens in"
        f" succession, and the row holds {is_image.sum()}, which do not fit"
      )
    parts.append(np.broadcast_to(position + np.arange(text), (3, text)))
    position += text
    parts.append(position + np.indices((time, height, width)).reshape(3, -1))
    position += max(height, width)
    start = stop
  if is_image[start:].any():
    raise ValueError(
      f"row {row}: {is_image.sum()} image tokens, but its {len(grids)} images account for"
      f" {is_image[:start].sum()}"
    )
  text = len(tokens) - start
  return np.concatenate([*parts, np.broadcast_to(position + np.arange(text), (3, text))], axis=1)


def text_angles(config: TextConfig, positions: Int[Array, "3 B S"]) -> Float[Array, "B S H/2"]:
  """Angles of the decoder's rotation, fp32: each frequency follows time, height or width.

  Source: HF `Qwen2_5_VLRotaryEmbedding`; `mrope_section` says how many frequencies follow each.
  """
  half = config.head_size // 2
  frequencies = config.rope_theta ** -(np.arange(half, dtype=np.float64) / half)
  axis = np.repeat(np.arange(3), config.mrope_section)
  chosen = jnp.moveaxis(positions[axis], 0, -1)
  return chosen.astype(jnp.float32) * frequencies.astype(np.float32)


def rotate(
  x: Float[Array, "B S heads H"], angles: Float[Array, "B S H/2"]
) -> Float[Array, "B S heads H"]:
  """Turns each pair (i, i + H/2) of a head by its angle (HF `apply_rotary_pos_emb`)."""
  cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
  return turned.astype(x.dtype)
