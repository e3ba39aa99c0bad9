"""Qwen3-VL's implementation of `Model`, dense sizes: configuration files, vision tower."""

import dataclasses
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from sejax.models.model import Model
from sejax.models.qwen3_vl.config import TextConfig, VisionConfig
from sejax.models.qwen3_vl.images import Images, pack_images
from sejax.models.transformer.layers import dense
from sejax.models.transformer.params import (
  DECODER_TENSOR_NAMES,
  Params,
  dense_shape,
  norm_shape,
  qkv_shape,
)
from sejax.models.transformer.state import DeepstackFeatures
from sejax.models.transformer.vision import merge_patches, rotary_angles, run_blocks

# Module in the tree -> module in the published files; `{}` stands for the index of block or merger.
_TENSOR_NAMES = {
  "vision/patch_embed": "model.visual.patch_embed.proj",
  "vision/position_table": "model.visual.pos_embed",
  "vision/blocks/norm1": "model.visual.blocks.{}.norm1",
  "vision/blocks/qkv": "model.visual.blocks.{}.attn.qkv",
  "vision/blocks/proj": "model.visual.blocks.{}.attn.proj",
  "vision/blocks/norm2": "model.visual.blocks.{}.norm2",
  "vision/blocks/fc1": "model.visual.blocks.{}.mlp.linear_fc1",
  "vision/blocks/fc2": "model.visual.blocks.{}.mlp.linear_fc2",
  "vision/merger/norm": "model.visual.merger.norm",
  "vision/merger/fc1": "model.visual.merger.linear_fc1",
  "vision/merger/fc2": "model.visual.merger.linear_fc2",
  "vision/deepstack/layers/norm": "model.visual.deepstack_merger_list.{}.norm",
  "vision/deepstack/layers/fc1": "model.visual.deepstack_merger_list.{}.linear_fc1",
  "vision/deepstack/layers/fc2": "model.visual.deepstack_merger_list.{}.linear_fc2",
} | {
  path: name.replace("model.", "model.language_model.", 1)
  for path, name in DECODER_TENSOR_NAMES.items()
}


@dataclasses.dataclass(frozen=True)
class Qwen3VL(Model):
  """A Qwen3-VL model (HF `Qwen3VLForConditionalGeneration`).

  Raises:
    ValueError: a field cannot work; the message names it, its value and what would work.
  """

  model_type = "qwen3_vl"
  title = "Qwen3-VL"
  architecture = "Qwen3VLForConditionalGeneration"
  vision_config = VisionConfig
  text_config = TextConfig
  vision_activation = "gelu_pytorch_tanh"
  vision_defaults: ClassVar[Mapping[str, Any]] = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [8, 16, 24],
  }
  text_defaults: ClassVar[Mapping[str, Any]] = {}
  released_names: ClassVar[Mapping[str, str]] = {
    size: f"Qwen/Qwen3-VL-{size.upper()}-Instruct" for size in ("2b", "4b", "8b", "32b")
  }
  image_fields = (*Model.image_fields, "num_position_embeddings")
  tensor_names: ClassVar[Mapping[str, str]] = _TENSOR_NAMES

  def __post_init__(self):
    super().__post_init__()
    if len(self.vision.deepstack_visual_indexes) > self.text.num_hidden_layers:
      raise ValueError(
        f"vision_config.deepstack_visual_indexes has {len(self.vision.deepstack_visual_indexes)}"
        f" levels; the decoder has {self.text.num_hidden_layers} layers to add them to"
      )

  @classmethod
  def _released(cls, size: str) -> Self:
    """See `Model.released`."""
    width, mlp, layers, heads = _RELEASED[size]
    is_large = size in ("8b", "32b")
    return cls(
      vision=VisionConfig(
        depth=27 if is_large else 24,
        hidden_size=1152 if is_large else 1024,
        intermediate_size=4304 if is_large else 4096,
        num_heads=16,
        out_hidden_size=width,
        num_position_embeddings=2304,
        deepstack_visual_indexes=(8, 16, 24) if is_large else (5, 11, 17),
      ),
      text=TextConfig(
        vocab_size=151_936,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=8,
        rope_theta=5_000_000.0,
        max_position_embeddings=262_144,
        bos_token_id=151_643,
        eos_token_id=151_645,
      ),
      tie_word_embeddings=not is_large,
    )

  @classmethod
  def from_hf(cls, raw: Mapping[str, Any]) -> Self:
    """Builds a model from the contents of a `config.json`.

    Raises:
      ValueError: a field is missing, or its value cannot work or is not supported.
    """
    if (raw.get("text_config") or {}).get("attention_bias"):
      raise ValueError("text_config.attention_bias is true; only layers without are supported")
    return super().from_hf(raw)

  def vision_shapes(self) -> Params:
    """Returns the `vision` part of `shapes`."""
    c = self.vision
    merged, levels = c.hidden_size * c.merge_unit, len(c.deepstack_visual_indexes)
    tree = {
      "patch_embed": dense_shape(c.patch_dim, c.hidden_size),
      "position_table": {"embedding": (c.num_position_embeddings, c.hidden_size)},
      "blocks": {
        "norm1": norm_shape(c.hidden_size, stack=c.depth),
        "qkv": qkv_shape(c.hidden_size, stack=c.depth),
        "proj": dense_shape(c.hidden_size, c.hidden_size, stack=c.depth),
        "norm2": norm_shape(c.hidden_size, stack=c.depth),
        "fc1": dense_shape(c.hidden_size, c.intermediate_size, stack=c.depth),
        "fc2": dense_shape(c.intermediate_size, c.hidden_size, stack=c.depth),
      },
      "merger": {
        "norm": norm_shape(c.hidden_size),
        "fc1": dense_shape(merged, merged),
        "fc2": dense_shape(merged, c.out_hidden_size),
      },
    }
    if levels:
      tree["deepstack"] = {
        "layers": {  # A name that sharding rules know as a stack.
          "norm": norm_shape(merged, stack=levels),
          "fc1": dense_shape(merged, merged, stack=levels),
          "fc2": dense_shape(merged, c.out_hidden_size, stack=levels),
        }
      }
    return tree

  def pack_images(
    self,
    patches: Sequence[Float[np.ndarray, "_ patch_dim"]],
    grids: Sequence[Int[np.ndarray, "_ 3"]],
    size: int,
    most: int | None = None,
  ) -> Images:
    """Packs the patches of each row's images to a common size, see `images.pack_images`."""
    return pack_images(self.vision, patches, grids, size, most)

  def encode(self, params: Params, images: Images) -> DeepstackFeatures:
    """Encodes images with the vision tower (HF `Qwen3VLVisionModel`)."""
    params, vision = params["vision"], self.vision
    images = jax.tree.map(jnp.asarray, images)  # numpy arrays, if this is called outside of jit.
    x = dense(params["patch_embed"], images.patches.astype(params["patch_embed"]["kernel"].dtype))
    entries = params["position_table"]["embedding"][images.entries]
    x = x + (entries * images.weights[..., None]).sum(axis=2).astype(x.dtype)
    angles = rotary_angles(vision.head_size, images.positions)
    gelu = functools.partial(jax.nn.gelu, approximate=True)
    levels = []
    ends = [*(index + 1 for index in vision.deepstack_visual_indexes), vision.depth]
    for number, (start, stop) in enumerate(itertools.pairwise((0, *ends))):
      blocks = jax.tree.map(lambda p, start=start, stop=stop: p[start:stop], params["blocks"])
      x = run_blocks(blocks, self, x, angles=angles, lengths=images.lengths, activation=gelu)
      if number < len(ends) - 1:
        merger = jax.tree.map(lambda p, n=number: p[n], params["deepstack"]["layers"])
        levels.append(merge_patches(merger, x, vision.merge_unit))
    return DeepstackFeatures(
      embeddings=merge_patches(params["merger"], x, vision.merge_unit), levels=tuple(levels)
    )


# Hidden size, hidden size of the MLP, layers, query heads.
_RELEASED = {
  "2b": (2048, 6144, 28, 16),
  "4b": (2560, 9728, 36, 32),
  "8b": (4096, 12_288, 36, 32),
  "32b": (5120, 25_600, 64, 64),
}
