"""Configuration of the vision tower; fields are named as in HF `Qwen2VLVisionConfig`."""

import dataclasses
from typing import ClassVar

from sejax.models.transformer import config as shared
from sejax.models.transformer.config import check_fields


@dataclasses.dataclass(frozen=True)
class VisionConfig(shared.VisionConfig):
  """Configuration of the vision tower (HF `Qwen2VLVisionConfig`).

  Attributes:
    depth: number of blocks.
    embed_dim: size of hidden states.
    hidden_size: size of an output feature; equals the decoder's hidden size.
    num_heads: number of attention heads.
    mlp_ratio: hidden size of the MLP over `embed_dim`.
    patch_size: side of a patch, in pixels.
    temporal_patch_size: frames of a patch; a still image is repeated to fill them.
    in_channels: number of colour channels.
    spatial_merge_size: side, in patches, of the square of patches that becomes one feature.

  Raises:
    ValueError: a field cannot work; the message names it, its value and what would work.
  """

  width: ClassVar[str] = "embed_dim"

  depth: int
  embed_dim: int
  hidden_size: int
  num_heads: int
  mlp_ratio: float = 4
  patch_size: int = 14
  temporal_patch_size: int = 2
  in_channels: int = 3
  spatial_merge_size: int = 2

  def __post_init__(self):
    check_fields(self, "vision_config")
    self.check_heads()

  @property
  def intermediate_size(self) -> int:
    """Hidden size of the MLP."""
    return int(self.embed_dim * self.mlp_ratio)
