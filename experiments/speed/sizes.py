"""What the scripts with `--size` share: prompts with an image, and what decoding must read."""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import jax
import numpy as np
from absl import flags
from jaxtyping import DTypeLike, Int

from sejax import config as config_lib
from sejax import models
from sejax.config import parts
from sejax.parallel import environment

_Size = TypeVar("_Size", bound=NamedTuple)
SIZE = flags.DEFINE_enum(
  "size",
  "small",
  ["3b", "small", "dry"],
  "Of the model and of what it reads: the real ones, a CPU's, or so small that it only shows that"
  " all of it runs.",
)
REPEATS = flags.DEFINE_integer(
  "repeats", 3, "Times that each thing is measured, after a warm-up.", lower_bound=1
)
TOKENS = flags.DEFINE_integer(
  "tokens", None, "Tokens of a trajectory at most; None: those of the size.", lower_bound=1
)
IMAGE_SIDE = 28  # Tokens along each side of the 3B's images: 784 of a prompt.


def chosen(sizes: Mapping[str, _Size]) -> _Size:
  """Returns the size that `--size` names, its `model` as the first device computes it.

  Args:
    sizes: by name; each has a `model`.
  """
  environment.prepare()
  size = sizes[SIZE.value]
  return size._replace(model=parts.compute(config_lib.default()).on_devices(size.model, None))


def random_prompts(
  config: models.Model, count: int, length: int, side: int
) -> tuple[models.Prompt, models.Images | None]:
  """Draws prompts of one length, and the image that each of them begins with.

  Args:
    config: the model.
    count: prompts.
    length: tokens of each, those of its image included.
    side: tokens along each side of the image; 0 for prompts without one.
  """
  rng = np.random.default_rng(0)
  ids = rng.integers(2, text_ids(config), (count, length)).astype(np.int32)
  merge = config.vision.spatial_merge_size
  grids = [np.array([[1, side * merge, side * merge]] if side else np.zeros((0, 3)), int)] * count
  images = None
  if side:
    ids[:, 0], ids[:, side**2 + 1] = config.vision_start_token_id, config.vision_end_token_id
    ids[:, 1 : side**2 + 1] = config.image_token_id
    shape = ((side * merge) ** 2, config.patch_dim)
    patches = [rng.standard_normal(shape, np.float32) for _ in range(count)]
    multiple = config.patch_multiple
    images = config.pack_images(patches, grids, -(-shape[0] // multiple) * multiple)
  lengths = np.full(count, length, np.int32)
  return models.Prompt(ids, lengths, config.prompt_positions(ids, lengths, grids)), images


def text_ids(config: models.Model) -> int:
  """Returns below what every id is one of text."""
  return min(config.image_token_id, config.video_token_id, config.vision_start_token_id)


def encode(
  params: models.Params, config: models.Model, images: models.Images | None
) -> models.Features | None:
  """Returns the features of prompts' images; None where there is none."""
  if images is None:
    return None
  return jax.jit(config.encode)(params, images)


def decode_bytes(
  config: models.Model,
  dtype: DTypeLike,
  steps: int,
  prompts: Int[np.ndarray, " B"],
  lengths: Int[np.ndarray, "B G"],
  shards: int = 1,
) -> float:
  """Returns what decoding must read: weights, prompts once for a group, each row's own tokens.

  Args:
    config: the model.
    dtype: of weights and cache.
    steps: tokens drawn one after the other.
    prompts: tokens of each prompt.
    lengths: tokens drawn.
    shards: of rows; every device of one reads its part of the weights for each token.
  """
  text, item = config.text, np.dtype(dtype).itemsize
  token = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_size * item
  own = (lengths.astype(float) ** 2 / 2).sum()
  weights = sum(config.matmul_params) * item * shards
  return steps * weights + token * (float((prompts * lengths.max(axis=1)).sum()) + own)
