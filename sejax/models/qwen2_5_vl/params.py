"""Vision parameters: their shapes in the parameter tree and their names in published files."""

from sejax.models.qwen2_5_vl.config import VisionConfig
from sejax.models.transformer.params import Params, dense_shape, qkv_shape

# Module in the tree -> module in the published files; `{}` stands for the block's index.
TENSOR_NAMES = {
  "vision/patch_embed": "visual.patch_embed.proj",
  "vision/blocks/norm1": "visual.blocks.{}.norm1",
  "vision/blocks/qkv": "visual.blocks.{}.attn.qkv",
  "vision/blocks/proj": "visual.blocks.{}.attn.proj",
  "vision/blocks/norm2": "visual.blocks.{}.norm2",
  "vision/blocks/gate": "visual.blocks.{}.mlp.gate_proj",
  "vision/blocks/up": "visual.blocks.{}.mlp.up_proj",
  "vision/blocks/down": "visual.blocks.{}.mlp.down_proj",
  "vision/merger/norm": "visual.merger.ln_q",
  "vision/merger/fc1": "visual.merger.mlp.0",
  "vision/merger/fc2": "visual.merger.mlp.2",
}


def vision_shapes(c: VisionConfig) -> Params:
  """Returns the `vision` part of the parameter tree, with shapes in place of arrays."""
  merged = c.hidden_size * c.merge_unit
  return {
    "patch_embed": dense_shape(c.patch_dim, c.hidden_size, bias=False),
    "blocks": {
      "norm1": {"scale": (c.depth, c.hidden_size)},
      "qkv": qkv_shape(c.hidden_size, stack=c.depth),
      "proj": dense_shape(c.hidden_size, c.hidden_size, stack=c.depth),
      "norm2": {"scale": (c.depth, c.hidden_size)},
      "gate": dense_shape(c.hidden_size, c.intermediate_size, stack=c.depth),
      "up": dense_shape(c.hidden_size, c.intermediate_size, stack=c.depth),
      "down": dense_shape(c.intermediate_size, c.hidden_size, stack=c.depth),
    },
    "merger": {
      "norm": {"scale": (c.hidden_size,)},
      "fc1": dense_shape(merged, merged),
      "fc2": dense_shape(merged, c.out_hidden_size),
    },
  }
