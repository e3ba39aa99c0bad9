"""Shapes of a Qwen2.5-VL model, read from and written as Hugging Face's `config.json`.

Field names are those of `transformers` (`Qwen2_5_VLConfig`), so that a figure in a published
configuration is found here under the name it has there.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Self

from jax.sharding import Sharding

from sejax.errors import quoted

Remat = Literal["nothing", "dots", "everything"]


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
    _check_fields(self, "vision_config")
    # A tuple, so that the configuration can be hashed.
    blocks = set(self.fullatt_block_indexes) & set(range(self.depth))
    object.__setattr__(self, "fullatt_block_indexes", tuple(sorted(blocks)))
    _require_divisible("vision_config", self, "hidden_size", "num_heads")
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


@dataclasses.dataclass(frozen=True)
class TextConfig:
  """The decoder (HF `Qwen2_5_VLTextConfig`).

  Attributes:
    vocab_size: rows of the embedding, V.
    hidden_size: width, D.
    intermediate_size: width inside the gated MLP.
    num_hidden_layers: layers, L.
    num_attention_heads: query heads, N.
    num_key_value_heads: key-value heads, K.
    mrope_section: rotary frequencies given to time, height and width; half the head size in all.
    rope_theta: base of the rotary frequencies.
    rms_norm_eps: added to the mean square in every RMSNorm of the decoder.
    max_position_embeddings: carried along so that an export keeps it; positions are not limited.
    bos_token_id: likewise carried along.
    eos_token_id: likewise carried along.

  Raises:
    ValueError: naming the field, its value and what would work.
  """

  vocab_size: int
  hidden_size: int
  intermediate_size: int
  num_hidden_layers: int
  num_attention_heads: int
  num_key_value_heads: int
  mrope_section: tuple[int, int, int] = (16, 24, 24)
  rope_theta: float = 1_000_000.0
  rms_norm_eps: float = 1e-6
  max_position_embeddings: int = 128_000
  bos_token_id: int | None = 151_643
  eos_token_id: int | tuple[int, ...] | None = 151_645

  def __post_init__(self):
    _check_fields(self, "text_config", skip=("bos_token_id", "eos_token_id"))
    object.__setattr__(self, "mrope_section", tuple(self.mrope_section))
    _require_divisible("text_config", self, "hidden_size", "num_attention_heads")
    _require_divisible("text_config", self, "num_attention_heads", "num_key_value_heads")
    is_section = len(self.mrope_section) == 3 and min(self.mrope_section) > 0
    if not is_section or 2 * sum(self.mrope_section) != self.head_size:
      raise ValueError(
        f"text_config.mrope_section is {list(self.mrope_section)}; it must be three numbers whose"
        f" sum is half the head size of {self.head_size} (hidden_size / num_attention_heads)"
      )

  @property
  def head_size(self) -> int:
    """Width of one head, H."""
    return self.hidden_size // self.num_attention_heads


@dataclasses.dataclass(frozen=True)
class Config:
  """A whole model (HF `Qwen2_5_VLConfig`) and how it is computed; hashable, so static under jit.

  Attributes:
    vision: the vision tower.
    text: the decoder.
    tie_word_embeddings: the head is the embedding, transposed (3B).
    image_token_id: placeholder whose embedding a vision feature replaces.
    video_token_id: carried along so that an export keeps it; video is not supported.
    vision_start_token_id: token before an image.
    vision_end_token_id: token after an image.
    remat: what a layer keeps for its backward pass: nothing (the layer is computed again), the
      results of its matrix products with weights, or everything.
    unroll: layers are compiled one by one instead of as a loop: faster by about a tenth where there
      are few and small ones, but compilation grows with their number.
    query_chunk: attention over more queries than this, per row, is computed in chunks, so that
      its memory does not grow with the square of the length.
    logits_chunk: tokens per row whose logits exist at once when log-probs are computed.
    fused_attention: attention of whole rows by cuDNN, in half precision, on devices that have it
      (`fused_attention.available`).
    layered_cache: while decoding, each layer's keys and values are arrays of their own, and layers
      are compiled one by one: for devices whose compiler would copy a layer out of a stack for
      each token.
    rows: where activations lie on a mesh: split by their first axis. Without it the compiler may
      split a layer's activations as its weights are, and adds partial sums up over all devices.

  Raises:
    ValueError: naming the field, its value and what would work.
  """

  vision: VisionConfig
  text: TextConfig
  tie_word_embeddings: bool = False
  image_token_id: int = 151_655
  video_token_id: int = 151_656
  vision_start_token_id: int = 151_652
  vision_end_token_id: int = 151_653
  remat: Remat = "nothing"
  unroll: bool = False
  query_chunk: int = 1024
  logits_chunk: int = 256
  fused_attention: bool = False
  layered_cache: bool = False
  rows: Sharding | None = None

  def __post_init__(self):
    if self.vision.out_hidden_size != self.text.hidden_size:
      raise ValueError(
        f"vision_config.out_hidden_size is {self.vision.out_hidden_size}; it must equal the"
        f" decoder's hidden_size of {self.text.hidden_size}"
      )
    if not isinstance(self.tie_word_embeddings, bool):
      raise ValueError(
        f"tie_word_embeddings is {quoted(self.tie_word_embeddings)}; it must be true or false"
      )
    if not 0 <= self.image_token_id < self.text.vocab_size:
      raise ValueError(
        f"image_token_id is {self.image_token_id}; it must be below vocab_size ="
        f" {self.text.vocab_size}"
      )
    if self.remat not in ("nothing", "dots", "everything"):
      raise ValueError(f"remat is {quoted(self.remat)}; choose 'nothing', 'dots' or 'everything'")
    for name in ("query_chunk", "logits_chunk"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

  @classmethod
  def qwen2_5_vl(cls, size: str) -> Self:
    """Returns a released configuration: `3b`, `7b`, `32b` or `72b`.

    The figures are those of `config.json` in the repositories `Qwen/Qwen2.5-VL-<size>-Instruct`.

    Raises:
      ValueError: there is no such size.
    """
    if size not in _RELEASED:
      raise ValueError(
        f"no released Qwen2.5-VL of size {quoted(size)}; choose from {list(_RELEASED)}"
      )
    vision_mlp, vocab, width, mlp, layers, heads, kv_heads = _RELEASED[size]
    return cls(
      vision=VisionConfig(
        depth=32,
        hidden_size=1280,
        intermediate_size=vision_mlp,
        num_heads=16,
        out_hidden_size=width,
        fullatt_block_indexes=(7, 15, 23, 31),
        tokens_per_second=2,
      ),
      text=TextConfig(vocab, width, mlp, layers, heads, kv_heads),
      tie_word_embeddings=size == "3b",
    )

  @classmethod
  def from_hf(cls, raw: Mapping[str, Any]) -> Self:
    """Reads a `config.json`, in the nested form or in the older one with the decoder's fields flat.

    Args:
      raw: the parsed file. Nested: `text_config` with `rope_parameters`. Flat: `rope_theta` and
        `rope_scaling` of type mrope, as the released checkpoints have them.

    Raises:
      ValueError: a field is missing, or its value cannot work or is not supported.
    """
    if raw.get("model_type") != "qwen2_5_vl":
      raise ValueError(
        f"config.json: model_type is {quoted(raw.get('model_type'))}; only 'qwen2_5_vl' is"
        " supported, such as Qwen/Qwen2.5-VL-3B-Instruct"
      )
    text = raw.get("text_config") or raw
    vision = raw.get("vision_config") or {}
    if text.get("use_sliding_window"):
      raise ValueError("text_config.use_sliding_window is true; only full attention is supported")
    for name, part in (("text_config", text), ("vision_config", vision)):
      if part.get("hidden_act", "silu") != "silu":
        raise ValueError(
          f"{name}.hidden_act is {quoted(part['hidden_act'])}; only 'silu' is supported"
        )
    return cls(
      vision=_from_fields(VisionConfig, "vision_config", {**_VISION_DEFAULTS, **vision}),
      text=_from_fields(TextConfig, "text_config", {**_TEXT_DEFAULTS, **text, **_rope(text)}),
      tie_word_embeddings=(
        raw.get("tie_word_embeddings") or text.get("tie_word_embeddings") or False
      ),
      **{name: raw[name] for name in _TOKEN_IDS if name in raw},
    )

  def to_hf(self) -> dict[str, Any]:
    """Returns the `config.json` that transformers 5 reads, in the nested form."""
    text = _to_fields(self.text)
    text["rope_parameters"] = {
      "rope_type": "default",
      "rope_theta": text.pop("rope_theta"),
      "mrope_section": text.pop("mrope_section"),
    }
    return {
      "architectures": ["Qwen2_5_VLForConditionalGeneration"],
      "model_type": "qwen2_5_vl",
      "text_config": {"model_type": "qwen2_5_vl_text", "hidden_act": "silu", **text},
      "vision_config": {
        "model_type": "qwen2_5_vl_vision",
        "hidden_act": "silu",
        **_to_fields(self.vision),
      },
      "tie_word_embeddings": self.tie_word_embeddings,
      **{name: getattr(self, name) for name in _TOKEN_IDS},
    }


# What transformers takes where a file is silent; the released 32B and 72B leave these out.
_VISION_DEFAULTS = {"depth": 32, "num_heads": 16, "fullatt_block_indexes": [7, 15, 23, 31]}
_TEXT_DEFAULTS = {"rms_norm_eps": 1e-5, "max_position_embeddings": 32_768}

_TOKEN_IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")

# Vision MLP width, vocabulary, width, MLP width, layers, query heads, key-value heads.
_RELEASED = {
  "3b": (3420, 151_936, 2048, 11_008, 36, 16, 2),
  "7b": (3420, 152_064, 3584, 18_944, 28, 28, 4),
  "32b": (3456, 152_064, 5120, 27_648, 64, 40, 8),
  "72b": (3456, 152_064, 8192, 29_568, 80, 64, 8),
}


def _rope(text: Mapping[str, Any]) -> dict[str, Any]:
  """Returns `rope_theta` and `mrope_section` from any of the forms they are published in."""
  rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
  kind = rope.get("rope_type", rope.get("type", "default"))
  if kind not in ("default", "mrope"):
    raise ValueError(f"rope type is {quoted(kind)}; only 'default' and 'mrope' are supported")
  found = {"rope_theta": rope.get("rope_theta", text.get("rope_theta"))}
  found["mrope_section"] = rope.get("mrope_section")
  return {name: value for name, value in found.items() if value is not None}


def _from_fields(cls: type, name: str, raw: Mapping[str, Any]) -> Any:
  """Builds a dataclass from the entries of `raw` that are its fields; `name` is for errors."""
  values = {}
  for field in dataclasses.fields(cls):
    value = raw.get(field.name)
    if value is None and field.default is dataclasses.MISSING:
      raise ValueError(f"config.json: {name}.{field.name} is missing")
    if field.name in raw:
      values[field.name] = tuple(value) if isinstance(value, list) else value
  return cls(**values)


def _to_fields(config: Any) -> dict[str, Any]:
  """Returns a dataclass as JSON has it, tuples as lists."""
  fields = dataclasses.asdict(config)
  return {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}


def _check_fields(config: Any, name: str, skip: tuple[str, ...] = ()) -> None:
  """Raises ValueError unless numbers are positive numbers and lists are of integers."""
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if field.name in skip:
      continue
    if field.type in (int, float):
      kinds = int if field.type is int else (int, float)
      if not isinstance(value, kinds) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"{name}.{field.name} is {quoted(value)}; it must be a positive number")
    elif not isinstance(value, tuple | list) or not all(isinstance(i, int) for i in value):
      raise ValueError(f"{name}.{field.name} is {quoted(value)}; it must be a list of integers")


def _require_divisible(name: str, config: Any, total: str, parts: str) -> None:
  if getattr(config, total) % getattr(config, parts):
    raise ValueError(
      f"{name}.{total} is {getattr(config, total)}; it must be a multiple of {parts} ="
      f" {getattr(config, parts)}"
    )
