"""Configuration of the vision tower; fields are named as in HF `Qwen2_5_VLVisionConfig`."""

import dataclasses

from sejax.models.transformer import config as shared
from sejax.models.transformer.config import check_fields


@dataclasses.dataclass(frozen=True)
class VisionConfig(shared.VisionConfig):
  """Configuration of the vision tower (HF `Qwen2_5_VLVisionConfig`).

  Attributes:
    depth: number of blocks.
    hidden_size: size of hidden states.
    intermediate_size: hidden size of the gated MLP.
    num_heads: number of attention heads.
    out_hidden_size: size of an output feature; equals the decoder's hidden size.
    fullatt_block_indexes: blocks with attention over the whole image; all others attend within
      windows. Indices outside the depth are dropped, as in transformers.
    window_size: side of an attention window, in pixels.
    patch_size: side of a patch, in pixels.
    temporal_patch_size: frames of a patch; a still image is repeated to fill them.
    in_channels: number of colour channels.
    spatial_merge_size: side, in patches, of the square of patches that becomes one feature.
    tokens_per_second: unused, for video only; kept for exports.

  Raises:
    ValueError: a field cannot work; the message names it, its value and what would work.
  """

  depth: int
  hidden_size: int
  intermediate_size: int
  num_heads: int
  out_hidden_size: int
  fullatt_block_indexes: tuple[int, ...]
  window_size: int = 112
  patch_size: int = 14
  temporal_patch_size: int = 2
  in_channels: int = 3
  spatial_merge_size: int = 2
  tokens_per_second: int = 4

  def __post_init__(self):
    check_fields(self, "vision_config")
    # A tuple, because a static argument under jit must be hashable.
    blocks = set(self.fullatt_block_indexes) & set(range(self.depth))
    object.__setattr__(self, "fullatt_block_indexes", tuple(sorted(blocks)))
    self.check_heads()
    merged = self.patch_size * self.spatial_merge_size
    if self.window_size % merged:
      raise ValueError(
        f"vision_config.window_size is {self.window_size}; it must be a multiple of patch_size x"
        f" spatial_merge_size = {merged}"
      )

  @property
  def window_patches(self) -> int:
    """Number of patches in a full window; windows at the edge of an image hold fewer."""
    return (self.window_size // self.patch_size) ** 2
