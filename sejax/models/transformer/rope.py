"""Rotary position embeddings: M-RoPE positions and angles of the decoder, and the rotation.

M-RoPE gives each token three positions, by time, height and width. The positions of a prompt depend
on the sizes of its images and are computed on the host. Angles and rotation are computed in fp32,
whatever the precision of the parameters.
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
  """Computes M-RoPE positions of prompts (HF `get_rope_index`, without video).

  A text token has the same position in all three axes, one past the token before it. The tokens of
  an image share one time; height and width are their row and column. All three are counted from the
  position where the image begins, and the text after it continues past the largest of them.

  Args:
    config: `image_token_id` and the vision tower's merge size are used.
    ids: prompts, padded on the right.
    lengths: number of tokens of each row, without padding.
    grids: for each row, the (time, height, width) of its images in patches, in order.

  Returns:
    int32 positions by (time, height, width); 0 at padding.

  Raises:
    ValueError: the image tokens of a row do not match its grids.
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
  """Computes the positions of one prompt; `row` is for errors."""
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
  """Returns the fp32 rotation angles of the decoder (HF `Qwen2_5_VLRotaryEmbedding`).

  Each frequency follows the position by time, height or width; `config.mrope_section` says how many
  frequencies follow each, and `config.interleaved_mrope` in which order.
  """
  half = config.head_size // 2
  frequencies = config.rope_theta ** -(np.arange(half, dtype=np.float64) / half)
  chosen = jnp.moveaxis(positions[_axis_of_frequency(config)], 0, -1)
  return chosen.astype(jnp.float32) * frequencies.astype(np.float32)


def _axis_of_frequency(config: TextConfig) -> Int[np.ndarray, " H/2"]:
  """Returns which of time, height and width (0, 1, 2) each frequency follows."""
  if not config.interleaved_mrope:
    return np.repeat(np.arange(3), config.mrope_section)
  # t, h, w, t, h, w, ... until height and width have their shares; the rest follows time.
  axes = np.zeros(config.head_size // 2, np.int64)
  for axis in (1, 2):
    axes[axis : 3 * config.mrope_section[axis] : 3] = axis
  return axes


def rotate(
  x: Float[Array, "B S heads H"], angles: Float[Array, "B S H/2"]
) -> Float[Array, "B S heads H"]:
  """Rotates each pair (i, i + H/2) of a head by its angle (HF `apply_rotary_pos_emb`)."""
  cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
  return rotated.astype(x.dtype)
