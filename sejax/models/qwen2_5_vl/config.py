"""Configuration of the vision tower, under the names of HF `Qwen2_5_VLVisionConfig`."""

import dataclasses

from sejax.models.transformer.config import check_fields, require_divisible


@dataclasses.dataclass(frozen=True)
class VisionConfig:
  """The vision tower (HF `Qwen2_5_VLVisionConfig`). Sizes in pixels unless said otherwise.

  Attributes:
    depth: number of blocks.
    hidden_size: width of a block.
    intermediate_size: width inside the gated MLP.
    num_heads: attention heads; their size is `hidden_size / num_heads`.
    out_hidden_size: width of a feature, that of the decoder.
    fullatt_block_indexes: blocks that attend within the whole image; all others within windows.
      Indexes of no block, beyond the depth or negative, are left out, as in transformers.
    window_size: side of an attention window.
    patch_size: side of a patch.
    temporal_patch_size: frames in a patch; a still image is repeated to fill them.
    in_channels: colour channels.
    spatial_merge_size: patches along each side of the square that becomes one feature.
    tokens_per_second: only for video; carried along so that an export keeps it.

  Raises:
    ValueError: naming the field, its value and what would work.
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
    # A tuple, so that the configuration can be hashed.
    blocks = set(self.fullatt_block_indexes) & set(range(self.depth))
    object.__setattr__(self, "fullatt_block_indexes", tuple(sorted(blocks)))
    require_divisible("vision_config", self, "hidden_size", "num_heads")
    if self.head_size % 4:
      raise ValueError(
        f"vision_config: head size {self.head_size} (hidden_size / num_heads) must be a multiple"
        " of 4, for the rotation by height and by width"
      )
    merged = self.patch_size * self.spatial_merge_size
    if self.window_size % merged:
      raise ValueError(
        f"vision_config.window_size is {self.window_size}; it must be a multiple of patch_size x"
        f" spatial_merge_size = {merged}"
      )

  @property
  def head_size(self) -> int:
    """Width of one head."""
    return self.hidden_size // self.num_heads

  @property
  def patch_dim(self) -> int:
    """Numbers in one flattened patch (1176 for the released models)."""
    return self.in_channels * self.temporal_patch_size * self.patch_size**2

  @property
  def merge_unit(self) -> int:
    """Patches that become one feature."""
    return self.spatial_merge_size**2

  @property
  def window_patches(self) -> int:
    """Patches in a whole window; windows at an image's edge hold fewer."""
    return (self.window_size // self.patch_size) ** 2
