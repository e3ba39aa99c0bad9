"""The shape of a decoder and how a model is computed, for every family.

Field names are those of transformers, so that a figure in a published configuration is found here
under the name it has there.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from jax.sharding import Sharding

from sejax.errors import quoted

Remat = Literal["nothing", "dots", "everything"]


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
    check_fields(self, "text_config", skip=("bos_token_id", "eos_token_id"))
    object.__setattr__(self, "mrope_section", tuple(self.mrope_section))
    require_divisible("text_config", self, "hidden_size", "num_attention_heads")
    require_divisible("text_config", self, "num_attention_heads", "num_key_value_heads")
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
class ModelConfig:
  """A whole model and how it is computed; hashable, so static under jit.

  Attributes:
    vision: the vision tower, of the family's own type.
    text: the decoder.
    tie_word_embeddings: the head is the embedding, transposed.
    image_token_id: placeholder whose embedding a vision feature replaces.
    video_token_id: carried along so that an export keeps it; video is not supported.
    vision_start_token_id: token before an image.
    vision_end_token_id: token after an image.
    remat: what a layer keeps for its backward pass: nothing (the layer is computed again), the
      results of its matrix products with weights, or everything.
    unroll: compile the layers one by one instead of as a loop: faster by about a tenth where there
      are few and small ones, but compilation grows with their number.
    query_chunk: attention over more queries than this, per row, is computed in chunks, so that
      its memory does not grow with the square of the length.
    logits_chunk: tokens per row whose logits exist at once when log-probs are computed.
    fused_attention: attention of whole rows by cuDNN, in half precision, see `cudnn_attention`.
    layered_cache: while decoding, the keys and values of each layer are arrays of their own, and
      layers are compiled one by one: for devices whose compiler would copy a layer out of a stack
      for each token.
    rows: sharding of activations on a mesh, by their first axis. Without it the compiler may
      split the activations of a layer as its weights are, and adds partial sums over all devices.

  Raises:
    ValueError: naming the field, its value and what would work.
  """

  vision: Any
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


TOKEN_IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def rope_fields(text: Mapping[str, Any]) -> dict[str, Any]:
  """Returns `rope_theta` and `mrope_section` from any of the forms they are published in.

  Args:
    text: the decoder's part of a `config.json`.

  Raises:
    ValueError: the rotation is of another kind.
  """
  rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
  kind = rope.get("rope_type", rope.get("type", "default"))
  if kind not in ("default", "mrope"):
    raise ValueError(f"rope type is {quoted(kind)}; only 'default' and 'mrope' are supported")
  fields = {"rope_theta": rope.get("rope_theta", text.get("rope_theta"))}
  fields["mrope_section"] = rope.get("mrope_section")
  return {name: value for name, value in fields.items() if value is not None}


def from_fields(cls: type, name: str, raw: Mapping[str, Any]) -> Any:
  """Builds a dataclass from the entries of `raw` that are its fields.

  Args:
    cls: the dataclass.
    name: of the section, for errors.
    raw: a section of a `config.json`.

  Raises:
    ValueError: a field without a default is missing.
  """
  values = {}
  for field in dataclasses.fields(cls):
    value = raw.get(field.name)
    if value is None and field.default is dataclasses.MISSING:
      raise ValueError(f"config.json: {name}.{field.name} is missing")
    if field.name in raw:
      values[field.name] = tuple(value) if isinstance(value, list) else value
  return cls(**values)


def to_fields(config: Any) -> dict[str, Any]:
  """Returns a dataclass as JSON has it, tuples as lists."""
  fields = dataclasses.asdict(config)
  return {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}


def check_fields(config: Any, name: str, skip: tuple[str, ...] = ()) -> None:
  """Checks that numbers are positive and lists hold integers.

  Args:
    config: a dataclass.
    name: of the section, for errors.
    skip: fields that are not checked.

  Raises:
    ValueError: naming the field and its value.
  """
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


def require_divisible(name: str, config: Any, total: str, parts: str) -> None:
  """Checks that one field is a multiple of another.

  Raises:
    ValueError: naming both fields of the section `name`, and their values.
  """
  if getattr(config, total) % getattr(config, parts):
    raise ValueError(
      f"{name}.{total} is {getattr(config, total)}; it must be a multiple of {parts} ="
      f" {getattr(config, parts)}"
    )
