"""Qwen2-VL's implementation of `Model`: configuration files, released sizes, vision tower."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from sejax.models.model import Model
from sejax.models.qwen2_vl.config import VisionConfig
from sejax.models.transformer.config import TextConfig
from sejax.models.transformer.images import Images, pack_images
from sejax.models.transformer.layers import dense
from sejax.models.transformer.params import (
  DECODER_TENSOR_NAMES,
  Params,
  dense_shape,
  norm_shape,
  qkv_shape,
)
from sejax.models.transformer.vision import merge_patches, rotary_angles, run_blocks

# Module in the tree -> module in the published files; `{}` stands for the block's index.
_TENSOR_NAMES = {
  "vision/patch_embed": "visual.patch_embed.proj",
  "vision/blocks/norm1": "visual.blocks.{}.norm1",
  "vision/blocks/qkv": "visual.blocks.{}.attn.qkv",
  "vision/blocks/proj": "visual.blocks.{}.attn.proj",
  "vision/blocks/norm2": "visual.blocks.{}.norm2",
  "vision/blocks/fc1": "visual.blocks.{}.mlp.fc1",
  "vision/blocks/fc2": "visual.blocks.{}.mlp.fc2",
  "vision/merger/norm": "visual.merger.ln_q",
  "vision/merger/fc1": "visual.merger.mlp.0",
  "vision/merger/fc2": "visual.merger.mlp.2",
}


@dataclasses.dataclass(frozen=True)
class Qwen2VL(Model):
  """A Qwen2-VL model (HF `Qwen2VLForConditionalGeneration`).

  Raises:
    ValueError: a field cannot work; the message names it, its value and what would work.
  """

  model_type = "qwen2_vl"
  title = "Qwen2-VL"
  architecture = "Qwen2VLForConditionalGeneration"
  vision_config = VisionConfig
  vision_activation = "quick_gelu"
  vision_defaults: ClassVar[Mapping[str, Any]] = {"depth": 32, "embed_dim": 1280, "num_heads": 16}
  text_defaults: ClassVar[Mapping[str, Any]] = {
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 32_768,
  }
  feature_size = "hidden_size"
  released_names: ClassVar[Mapping[str, str]] = {
    size: f"Qwen/Qwen2-VL-{size.upper()}-Instruct" for size in ("2b", "7b", "72b")
  }
  tensor_names: ClassVar[Mapping[str, str]] = {**_TENSOR_NAMES, **DECODER_TENSOR_NAMES}

  @classmethod
  def _released(cls, size: str) -> Self:
    """See `Model.released`."""
    vocab, width, mlp, layers, heads, kv_heads = _RELEASED[size]
    return cls(
      vision=VisionConfig(depth=32, embed_dim=1280, hidden_size=width, num_heads=16),
      text=TextConfig(
        vocab_size=vocab,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=32_768,
      ),
      tie_word_embeddings=size == "2b",
    )

  def vision_shapes(self) -> Params:
    """Returns the `vision` part of `shapes`."""
    c = self.vision
    merged = c.embed_dim * c.merge_unit
    return {
      "patch_embed": dense_shape(c.patch_dim, c.embed_dim, bias=False),
      "blocks": {
        "norm1": norm_shape(c.embed_dim, stack=c.depth),
        "qkv": qkv_shape(c.embed_dim, stack=c.depth),
        "proj": dense_shape(c.embed_dim, c.embed_dim, stack=c.depth),
        "norm2": norm_shape(c.embed_dim, stack=c.depth),
        "fc1": dense_shape(c.embed_dim, c.intermediate_size, stack=c.depth),
        "fc2": dense_shape(c.intermediate_size, c.embed_dim, stack=c.depth),
      },
      "merger": {
        "norm": norm_shape(c.embed_dim),
        "fc1": dense_shape(merged, merged),
        "fc2": dense_shape(merged, c.hidden_size),
      },
    }

  def pack_images(
    self,
    patches: Sequence[Float[np.ndarray, "_ patch_dim"]],
    grids: Sequence[Int[np.ndarray, "_ 3"]],
    size: int,
    most: int | None = None,
  ) -> Images:
    """Packs the patches of each row's images to a common size, see `images.pack_images`."""
    merge = self.vision.spatial_merge_size
    return pack_images(patches, grids, size, most=most, merge=merge, patch_dim=self.patch_dim)

  def encode(self, params: Params, images: Images) -> Float[Array, "B s D"]:
    """Encodes images with the vision tower (HF `Qwen2VisionTransformerPretrainedModel`)."""
    params, vision = params["vision"], self.vision
    images = jax.tree.map(jnp.asarray, images)  # numpy arrays, if this is called outside of jit.
    x = dense(params["patch_embed"], images.patches.astype(params["patch_embed"]["kernel"].dtype))
    angles = rotary_angles(vision.head_size, images.positions)
    x = run_blocks(
      params["blocks"], self, x, angles=angles, lengths=images.lengths, activation=_quick_gelu
    )
    return merge_patches(params["merger"], x, vision.merge_unit)


def _quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
  """Applies the sigmoid approximation of GELU (HF `QuickGELUActivation`)."""
  return x * jax.nn.sigmoid(1.702 * x)


# Vocabulary, hidden size, hidden size of the MLP, layers, query heads, key-value heads.
_RELEASED = {
  "2b": (151_936, 1536, 8960, 28, 12, 2),
  "7b": (152_064, 3584, 18_944, 28, 28, 4),
  "72b": (152_064, 8192, 29_568, 80, 64, 8),
}
