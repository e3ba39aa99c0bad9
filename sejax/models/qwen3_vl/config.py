"""Configuration of vision tower and decoder; fields are named as in HF `Qwen3VLConfig`."""

import dataclasses
import math
from typing import ClassVar

from sejax.models.transformer import config as shared
from sejax.models.transformer.config import check_fields, require_divisible


@dataclasses.dataclass(frozen=True)
class VisionConfig(shared.VisionConfig):
  """Configuration of the vision tower (HF `Qwen3VLVisionConfig`).

  Attributes:
    depth: number of blocks.
    hidden_size: size of hidden states.
    intermediate_size: hidden size of the MLP.
    num_heads: number of attention heads.
    out_hidden_size: size of an output feature; equals the decoder's hidden size.
    num_position_embeddings: entries of the square table of learned positions.
    deepstack_visual_indexes: blocks, ascending, whose outputs also become features, each by its own
      merger. Those of the n-th listed block are added to the hidden states after decoder layer n;
      blocks and layers are counted from 0, and so is n.
    patch_size: side of a patch, in pixels.
    temporal_patch_size: frames of a patch; a still image is repeated to fill them.
    in_channels: number of colour channels.
    spatial_merge_size: side, in patches, of the square of patches that becomes one feature.

  Raises:
    ValueError: a field cannot work; the message names it, its value and what would work.
  """

  depth: int
  hidden_size: int
  intermediate_size: int
  num_heads: int
  out_hidden_size: int
  num_position_embeddings: int
  deepstack_visual_indexes: tuple[int, ...]
  patch_size: int = 16
  temporal_patch_size: int = 2
  in_channels: int = 3
  spatial_merge_size: int = 2

  def __post_init__(self):
    check_fields(self, "vision_config")
    object.__setattr__(self, "deepstack_visual_indexes", tuple(self.deepstack_visual_indexes))
    self.check_heads()
    if self.table_side**2 != self.num_position_embeddings:
      raise ValueError(
        f"vision_config.num_position_embeddings is {self.num_position_embeddings}; it must be a"
        " square number"
      )
    indexes = self.deepstack_visual_indexes
    if list(indexes) != sorted(set(indexes)) or any(not 0 <= i < self.depth for i in indexes):
      raise ValueError(
        f"vision_config.deepstack_visual_indexes is {list(indexes)}; it must list blocks in"
        f" ascending order, from 0 to {self.depth - 1}"
      )

  @property
  def table_side(self) -> int:
    """Entries along each side of the square table of learned positions."""
    return math.isqrt(self.num_position_embeddings)


@dataclasses.dataclass(frozen=True)
class TextConfig(shared.TextConfig):
  """Configuration of the decoder (HF `Qwen3VLTextConfig`).

  Attributes:
    head_dim: size of one attention head, H; need not be `hidden_size / num_attention_heads`.
  """

  attention_bias: ClassVar[bool] = False
  qk_norm: ClassVar[bool] = True
  interleaved_mrope: ClassVar[bool] = True

  mrope_section: tuple[int, int, int] = (24, 20, 20)
  rope_theta: float = 500_000.0
  bos_token_id: int | None = None
  eos_token_id: int | tuple[int, ...] | None = None
  head_dim: int = 128

  @property
  def head_size(self) -> int:
    """Size of one attention head, H."""
    return self.head_dim

  def _check_heads(self) -> None:
    require_divisible("text_config", self, "num_attention_heads", "num_key_value_heads")
