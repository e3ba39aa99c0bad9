"""Qwen2.5-VL's implementation of `Model`: configuration files, released sizes, vision tower."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Array, Float, Int

from sejax.models.model import Model
from sejax.models.qwen2_5_vl.config import VisionConfig
from sejax.models.qwen2_5_vl.images import Images, pack_images
from sejax.models.qwen2_5_vl.params import TENSOR_NAMES, vision_shapes
from sejax.models.qwen2_5_vl.vision import encode_images
from sejax.models.transformer.config import TextConfig
from sejax.models.transformer.params import DECODER_TENSOR_NAMES, Params


@dataclasses.dataclass(frozen=True)
class Qwen25VL(Model):
  """A Qwen2.5-VL model (HF `Qwen2_5_VLForConditionalGeneration`).

  Raises:
    ValueError: a field cannot work; the message names it, its value and what would work.
  """

  model_type = "qwen2_5_vl"
  title = "Qwen2.5-VL"
  architecture = "Qwen2_5_VLForConditionalGeneration"
  vision_config = VisionConfig
  vision_activation = "silu"
  # As the released 32B and 72B leave them out.
  vision_defaults: ClassVar[Mapping[str, Any]] = {
    "depth": 32,
    "num_heads": 16,
    "fullatt_block_indexes": [7, 15, 23, 31],
  }
  text_defaults: ClassVar[Mapping[str, Any]] = {
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 32_768,
  }
  released_names: ClassVar[Mapping[str, str]] = {
    size: f"Qwen/Qwen2.5-VL-{size.upper()}-Instruct" for size in ("3b", "7b", "32b", "72b")
  }
  image_fields = (*Model.image_fields, "window_size")
  tensor_names: ClassVar[Mapping[str, str]] = {**TENSOR_NAMES, **DECODER_TENSOR_NAMES}

  @classmethod
  def _released(cls, size: str) -> Self:
    """See `Model.released`."""
    text = _RELEASED_TEXT[size]
    return cls(
      vision=VisionConfig(
        depth=32,
        hidden_size=1280,
        intermediate_size=_RELEASED_VISION_MLP[size],
        num_heads=16,
        out_hidden_size=text.hidden_size,
        fullatt_block_indexes=(7, 15, 23, 31),
        tokens_per_second=2,
      ),
      text=text,
      tie_word_embeddings=size == "3b",
    )

  def vision_shapes(self) -> Params:
    """Returns the `vision` part of `shapes`."""
    return vision_shapes(self.vision)

  @property
  def patch_multiple(self) -> int:
    """Number of patches in a full window: patch buckets hold whole windows."""
    return self.vision.window_patches

  def pack_images(
    self,
    patches: Sequence[Float[np.ndarray, "_ patch_dim"]],
    grids: Sequence[Int[np.ndarray, "_ 3"]],
    size: int,
    most: int | None = None,
  ) -> Images:
    """Packs the patches of each row's images to a common size, see `images.pack_images`."""
    return pack_images(self.vision, patches, grids, size, most)

  def encode(self, params: Params, images: Images) -> Float[Array, "B s D"]:
    """Encodes images with the vision tower, see `vision.encode_images`."""
    return encode_images(params["vision"], self, images)


# The decoder's sizes, and the hidden size of the vision tower's MLP.
_RELEASED_TEXT = {
  "3b": TextConfig(
    vocab_size=151_936,
    hidden_size=2048,
    intermediate_size=11_008,
    num_hidden_layers=36,
    num_attention_heads=16,
    num_key_value_heads=2,
  ),
  "7b": TextConfig(
    vocab_size=152_064,
    hidden_size=3584,
    intermediate_size=18_944,
    num_hidden_layers=28,
    num_attention_heads=28,
    num_key_value_heads=4,
  ),
  "32b": TextConfig(
    vocab_size=152_064,
    hidden_size=5120,
    intermediate_size=27_648,
    num_hidden_layers=64,
    num_attention_heads=40,
    num_key_value_heads=8,
  ),
  "72b": TextConfig(
    vocab_size=152_064,
    hidden_size=8192,
    intermediate_size=29_568,
    num_hidden_layers=80,
    num_attention_heads=64,
    num_key_value_heads=8,
  ),
}
_RELEASED_VISION_MLP = {"3b": 3420, "7b": 3420, "32b": 3456, "72b": 3456}
