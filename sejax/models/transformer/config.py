"""Configuration that all families share: the decoder's sizes and how a model is computed.

Fields that a published `config.json` has keep their names.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

from jax.sharding import Sharding

from sejax.errors import quoted

Remat = Literal["nothing", "gate", "dots", "everything"]


@dataclasses.dataclass(frozen=True)
class TextConfig:
  """Configuration of the decoder (HF `Qwen2_5_VLTextConfig`).

  Attributes:
    vocab_size: rows of the embedding, V.
    hidden_size: size of hidden states, D.
    intermediate_size: hidden size of the gated MLP.
    num_hidden_layers: number of layers, L.
    num_attention_heads: number of query heads, N.
    num_key_value_heads: number of key-value heads, K.
    mrope_section: number of rotary frequencies that follow time, height and width; their sum is
      half the head size.
    rope_theta: base of the rotary frequencies.
    rms_norm_eps: added to the mean square in every RMSNorm of the decoder.
    max_position_embeddings: context length, see `Model.context`; the decoder itself works at any
      position.
    bos_token_id: unused; kept for exports.
    eos_token_id: ids of the tokens that end a response, see `Model.eos_ids`.
    attention_bias: whether q, k and v have biases; fixed for a family, like the next two.
    qk_norm: whether each head of q and k passes through an RMSNorm before the rotation.
    interleaved_mrope: whether time, height and width alternate over the rotary frequencies, instead
      of each having a contiguous section.

  Raises:
    ValueError: a field cannot work; the message names it, its value and what would work.
  """

  attention_bias: ClassVar[bool] = True
  qk_norm: ClassVar[bool] = False
  interleaved_mrope: ClassVar[bool] = False

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
    self._check_heads()
    is_section = len(self.mrope_section) == 3 and min(self.mrope_section) > 0
    if not is_section or 2 * sum(self.mrope_section) != self.head_size:
      raise ValueError(
        f"text_config.mrope_section is {list(self.mrope_section)}; it must be three numbers whose"
        f" sum is half the head size of {self.head_size}"
      )

  def _check_heads(self) -> None:
    """Checks that hidden states divide into heads, and query heads into groups."""
    require_divisible("text_config", self, "hidden_size", "num_attention_heads")
    require_divisible("text_config", self, "num_attention_heads", "num_key_value_heads")

  @property
  def head_size(self) -> int:
    """Size of one attention head, H."""
    return self.hidden_size // self.num_attention_heads


class VisionConfig:
  """What the vision configurations of all families have in common; their fields are their own.

  Attributes:
    width: name of the field with the size of hidden states.
  """

  width: ClassVar[str] = "hidden_size"
  num_heads: int
  patch_size: int
  temporal_patch_size: int
  in_channels: int
  spatial_merge_size: int

  def check_heads(self) -> None:
    """Checks that hidden states divide into heads that the rotation can treat.

    Raises:
      ValueError: they do not; the message names the fields and their values.
    """
    require_divisible("vision_config", self, self.width, "num_heads")
    if self.head_size % 4:
      raise ValueError(
        f"vision_config: head size {self.head_size} ({self.width} / num_heads) must be a multiple"
        " of 4, for the rotation by height and by width"
      )

  @property
  def head_size(self) -> int:
    """Size of one attention head."""
    return getattr(self, self.width) // self.num_heads

  @property
  def patch_dim(self) -> int:
    """Size of one flattened patch, such as 1176."""
    return self.in_channels * self.temporal_patch_size * self.patch_size**2

  @property
  def merge_unit(self) -> int:
    """Number of patches that become one feature."""
    return self.spatial_merge_size**2


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Configuration of a whole model and how it is computed; hashable, so static under jit.

  Attributes:
    vision: configuration of the vision tower, of a subclass that the family defines.
    text: configuration of the decoder.
    tie_word_embeddings: use the transposed embedding as output head.
    image_token_id: placeholder token whose embedding an image feature replaces.
    video_token_id: unused, video is not supported; kept for exports.
    vision_start_token_id: token before an image.
    vision_end_token_id: token after an image.
    remat: what a layer saves for its backward pass: "nothing" (the layer is recomputed), "gate"
      (the product with the gate's weights, a fourteenth of a step's FLOPs), "dots" (all products
      with weights), or "everything".
    unroll: compile the layers one by one instead of as a loop. About 10% faster for few, small
      layers, but compile time grows with their number.
    query_chunk: maximum number of queries per row whose attention scores exist at once. More are
      computed in chunks, so that memory does not grow with the square of the length.
    logits_chunk: maximum number of tokens per row whose logits exist at once when log-probs are
      computed.
    fused_attention: use cuDNN's attention kernel in half precision, see `cudnn_attention`.
    layered_cache: in decoding, hold the weights, keys and values of each layer in arrays of their
      own and compile the layers one by one. For devices whose compiler would copy each layer out of
      a stacked array for every token.
    rows: sharding of activations by their first axis; None leaves it to the compiler. On a mesh the
      compiler may otherwise shard activations like the weights, and then has to sum partial results
      over all devices.

  Raises:
    ValueError: a field cannot work; the message names it, its value and what would work.
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
    if not isinstance(self.tie_word_embeddings, bool):
      raise ValueError(
        f"tie_word_embeddings is {quoted(self.tie_word_embeddings)}; it must be true or false"
      )
    if not 0 <= self.image_token_id < self.text.vocab_size:
      raise ValueError(
        f"image_token_id is {self.image_token_id}; it must be below vocab_size ="
        f" {self.text.vocab_size}"
      )
    if self.remat not in get_args(Remat):
      raise ValueError(f"remat is {quoted(self.remat)}; choose from {list(get_args(Remat))}")
    for name in ("query_chunk", "logits_chunk"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


TOKEN_IDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def read_config(
  raw: Mapping[str, Any],
  *,
  vision: type,
  text: type = TextConfig,
  vision_activation: str,
  vision_defaults: Mapping[str, Any],
  text_defaults: Mapping[str, Any],
) -> dict[str, Any]:
  """Returns the fields of a model from the contents of a `config.json`, nested or flat.

  Args:
    raw: contents of the file, see `Model.from_hf`.
    vision: dataclass of the vision tower's configuration.
    text: dataclass of the decoder's configuration.
    vision_activation: activation function of the vision tower, by its name in transformers.
    vision_defaults: values of vision fields that a file leaves out.
    text_defaults: values of decoder fields that a file leaves out.

  Raises:
    ValueError: a field is missing, or its value cannot work or is not supported.
  """
  text_raw, vision_raw = raw.get("text_config") or raw, raw.get("vision_config") or {}
  if text_raw.get("use_sliding_window"):
    raise ValueError("text_config.use_sliding_window is true; only full attention is supported")
  _require_activation("text_config", text_raw, "silu")
  _require_activation("vision_config", vision_raw, vision_activation)
  text_fields = {**text_defaults, **text_raw, **rope_fields(text_raw)}
  tied = raw.get("tie_word_embeddings") or text_raw.get("tie_word_embeddings") or False
  return {
    "vision": from_fields(vision, "vision_config", {**vision_defaults, **vision_raw}),
    "text": from_fields(text, "text_config", text_fields),
    "tie_word_embeddings": tied,
    **{name: raw[name] for name in TOKEN_IDS if name in raw},
  }


def write_config(
  config: ModelConfig, *, model_type: str, architecture: str, vision_activation: str
) -> dict[str, Any]:
  """Returns the contents of a `config.json` for transformers 5, in the nested form.

  Args:
    model_type: the family's.
    architecture: name of the class in transformers.
    vision_activation: activation function of the vision tower, by its name in transformers.
  """
  text = to_fields(config.text)
  rope = {
    "rope_type": "default",
    "rope_theta": text.pop("rope_theta"),
    "mrope_section": text.pop("mrope_section"),
  }
  if config.text.interleaved_mrope:
    rope["mrope_interleaved"] = True
  return {
    "architectures": [architecture],
    "model_type": model_type,
    "text_config": {
      "model_type": f"{model_type}_text",
      "hidden_act": "silu",
      **text,
      "rope_parameters": rope,
    },
    "vision_config": {
      "model_type": f"{model_type}_vision",
      "hidden_act": vision_activation,
      **to_fields(config.vision),
    },
    "tie_word_embeddings": config.tie_word_embeddings,
    **{name: getattr(config, name) for name in TOKEN_IDS},
  }


def rope_fields(text: Mapping[str, Any]) -> dict[str, Any]:
  """Returns `rope_theta` and `mrope_section` from any form in which files state them.

  Args:
    text: the decoder's part of a `config.json`.

  Raises:
    ValueError: the rope type is not supported.
  """
  rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
  kind = rope.get("rope_type", rope.get("type", "default"))
  if kind not in ("default", "mrope"):
    raise ValueError(f"rope type is {quoted(kind)}; only 'default' and 'mrope' are supported")
  fields = {"rope_theta": rope.get("rope_theta", text.get("rope_theta"))}
  fields["mrope_section"] = rope.get("mrope_section")
  return {name: value for name, value in fields.items() if value is not None}


def from_fields(cls: type, name: str, raw: Mapping[str, Any]) -> Any:
  """Builds a dataclass from a section of a `config.json`; entries that are not fields are ignored.

  Args:
    cls: the dataclass.
    name: the section's name, for errors.
    raw: contents of the section.

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
  """Converts a dataclass to a JSON object, tuples to lists."""
  fields = dataclasses.asdict(config)
  return {name: list(v) if isinstance(v, tuple) else v for name, v in fields.items()}


def check_fields(config: Any, name: str, skip: tuple[str, ...] = ()) -> None:
  """Checks that all numbers of a dataclass are positive and that lists hold integers.

  Args:
    config: a dataclass.
    name: the section's name, for errors.
    skip: fields that are not checked.

  Raises:
    ValueError: a field is of another kind; the message names it and its value.
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


def _require_activation(name: str, raw: Mapping[str, Any], supported: str) -> None:
  """Checks the activation function of a section of a `config.json`, if the section names one.

  Args:
    name: name of the section, for errors.
    raw: contents of the section.
    supported: the only function that works, by its name in transformers.

  Raises:
    ValueError: it is another one.
  """
  if (found := raw.get("hidden_act", supported)) != supported:
    raise ValueError(f"{name}.hidden_act is {quoted(found)}; only '{supported}' is supported")


def require_divisible(name: str, config: Any, total: str, parts: str) -> None:
  """Checks that the field `total` is a multiple of the field `parts`.

  Args:
    name: name of the section, for errors.
    config: a dataclass with both fields.

  Raises:
    ValueError: it is not; the message names both fields and their values.
  """
  if getattr(config, total) % getattr(config, parts):
    raise ValueError(
      f"{name}.{total} is {getattr(config, total)}; it must be a multiple of {parts} ="
      f" {getattr(config, parts)}"
    )
