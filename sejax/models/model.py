"""Interface of a vision-language model; the rest of the package uses every model through it.

A model family is a subclass of `Model` in its own package, and `sejax.models.registry` finds it by
the `model_type` of a `config.json`. The family implements its configuration, image packing and
vision tower. The decoder, the KV cache and log-probs are shared (`sejax.models.transformer`).

Code outside `sejax.models` must treat three pytrees as opaque: the parameter tree, the image inputs
from `pack_images`, and the features from `encode`. Arrays of the last two have a row axis in front.

Axes: B prompts, G continuations of each prompt, P prompt tokens, T new tokens, S patches or cache
positions, L layers, K key-value heads, H head size, D hidden size, V vocabulary.
"""

import abc
import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray

from sejax.errors import quoted
from sejax.models.transformer import (
  cudnn_attention,
  generation,
  logp,
  packed,
  params,
  rope,
  state,
)
from sejax.models.transformer.config import ModelConfig, TextConfig, read_config, write_config
from sejax.models.transformer.layout import DECODING, TRAINING
from sejax.models.transformer.logp import LogProbs
from sejax.models.transformer.packing import Packing
from sejax.models.transformer.params import Params
from sejax.models.transformer.state import (
  BatchTable,
  Pages,
  Prefix,
  PrefixOrPages,
  Prompt,
  Recent,
)
from sejax.parallel.layouts import Rules

Images = Any  # opaque pytree from `Model.pack_images`
Features = Any  # opaque pytree from `Model.encode`


@dataclasses.dataclass(frozen=True)
class Model(ModelConfig, abc.ABC):
  """A model's configuration and the pure functions over its parameters; static under jit.

  Attributes:
    model_type: the family's `model_type` in `config.json`.
    title: the family's name in messages.
    architecture: the family's class in transformers.
    vision_config: dataclass of the vision tower's configuration.
    text_config: dataclass of the decoder's configuration.
    vision_activation: activation function of the vision tower, by its name in transformers.
    vision_defaults: transformers' values of vision fields that a `config.json` leaves out.
    text_defaults: transformers' values of decoder fields that a `config.json` leaves out.
    feature_size: vision configuration field with the size of an output feature.
    tensor_names: maps modules of the parameter tree to modules of the published files; `{}` stands
      for the index of the block or layer.
    layout: sharding rules for parameters in training, see `sejax.parallel.layouts`.
    decode_layout: sharding rules for parameters in decoding.
    vision_path: regular expression that matches the paths of vision parameters.
    image_fields: vision configuration fields that image inputs depend on.
    released_names: maps sizes, such as `7b`, to names on the Hugging Face hub.

  Raises:
    ValueError: a field cannot work; the message names it, its value and what would work.
  """

  model_type: ClassVar[str]
  title: ClassVar[str]
  architecture: ClassVar[str]
  vision_config: ClassVar[type]
  text_config: ClassVar[type[TextConfig]] = TextConfig
  vision_activation: ClassVar[str]
  vision_defaults: ClassVar[Mapping[str, Any]]
  text_defaults: ClassVar[Mapping[str, Any]]
  feature_size: ClassVar[str] = "out_hidden_size"
  released_names: ClassVar[Mapping[str, str]]
  tensor_names: ClassVar[Mapping[str, str]]
  layout: ClassVar[Rules] = TRAINING
  decode_layout: ClassVar[Rules] = DECODING
  vision_path: ClassVar[str] = "^vision/"
  image_fields: ClassVar[tuple[str, ...]] = (
    "patch_size",
    "temporal_patch_size",
    "in_channels",
    "spatial_merge_size",
  )

  def __post_init__(self):
    super().__post_init__()
    if (size := getattr(self.vision, self.feature_size)) != self.text.hidden_size:
      raise ValueError(
        f"vision_config.{self.feature_size} is {size}; it must equal the decoder's hidden_size of"
        f" {self.text.hidden_size}"
      )

  # ------------------------------------------------------------------ configuration files

  @classmethod
  def from_hf(cls, raw: Mapping[str, Any]) -> Self:
    """Builds a model from the contents of a `config.json`, in its nested or its flat form.

    Args:
      raw: contents of the file. The nested form of transformers 5 has the decoder's fields in
        `text_config`, with `rope_parameters`. The flat form of older checkpoints has them at the
        top, with `rope_theta` and `rope_scaling` of type mrope.

    Raises:
      ValueError: a field is missing, or its value cannot work or is not supported.
    """
    fields = read_config(
      raw,
      vision=cls.vision_config,
      text=cls.text_config,
      vision_activation=cls.vision_activation,
      vision_defaults=cls.vision_defaults,
      text_defaults=cls.text_defaults,
    )
    return cls(**fields)

  def to_hf(self) -> dict[str, Any]:
    """Returns the contents of a `config.json` for transformers 5, in the nested form."""
    return write_config(
      self,
      model_type=self.model_type,
      architecture=self.architecture,
      vision_activation=self.vision_activation,
    )

  @classmethod
  def released(cls, size: str) -> Self:
    """Returns a released configuration by its size, such as `7b`.

    Source: `config.json` of the repositories in `released_names`.

    Raises:
      ValueError: the family has no such size.
    """
    if size not in cls.released_names:
      raise ValueError(
        f"no released {cls.title} of size {quoted(size)}; choose from {list(cls.released_names)}"
      )
    return cls._released(size)

  # ------------------------------------------------------------------ implemented by a family

  @classmethod
  @abc.abstractmethod
  def _released(cls, size: str) -> Self:
    """Returns the configuration of one of the sizes in `released_names`, see `released`."""

  @abc.abstractmethod
  def vision_shapes(self) -> Params:
    """Returns the `vision` part of `shapes`."""

  def tensor_shape(self, path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape that an array has in published files, where kernels are `[out, in]`.

    Args:
      path: path of the array in the tree, such as `vision/patch_embed/kernel`.
      shape: shape of the array in the tree, or of one layer where layers are stacked.
    """
    # The published patch embedding is a convolution. As its stride equals its kernel size, it is a
    # dense layer over flattened patches.
    if path == "vision/patch_embed/kernel":
      vision = self.vision
      patch = (vision.temporal_patch_size, vision.patch_size, vision.patch_size)
      return (shape[-1], vision.in_channels, *patch)
    shape = params.fused_shape(path, shape)
    return shape[::-1] if path.endswith("/kernel") else shape

  @property
  def patch_multiple(self) -> int:
    """Patch buckets are multiples of this; by default the patches that merge into a feature."""
    return self.vision.merge_unit

  @property
  def image_format(self) -> dict[str, int]:
    """Values of `image_fields`; models that agree in them can share inputs of `pack_images`."""
    return {name: getattr(self.vision, name) for name in self.image_fields}

  @abc.abstractmethod
  def pack_images(
    self,
    patches: Sequence[Float[np.ndarray, "_ patch_dim"]],
    grids: Sequence[Int[np.ndarray, "_ 3"]],
    size: int,
    most: int | None = None,
  ) -> Images:
    """Packs the patches of each row's images into arrays of a common size, on the host.

    Args:
      patches: for each row, the flattened patches of all its images, from the image processor.
      grids: for each row, the (time, height, width) of its images in patches; `[0, 3]` without
        images.
      size: patches of a row with padding, S: a multiple of `patch_multiple` and at least the
        patches of the fullest row.
      most: images of a row that there is room for, as programs are compiled for a number; None for
        those of the row with most.

    Raises:
      ValueError: patches or images do not fit, or patches and grids disagree.
    """

  def images_shape(self, images: Images) -> tuple[int, int]:
    """Returns the rows B and the patches per row S of packed images."""
    return images.patches.shape[:2]

  @abc.abstractmethod
  def encode(self, params: Params, images: Images) -> Features:
    """Encodes images with the vision tower.

    Returns:
      The features of each row's images, one image after the other, padding at the end.
    """

  # ------------------------------------------------------------------ sizes

  @property
  def vocab_size(self) -> int:
    """Rows of the embedding table, V; may exceed the tokenizer's vocabulary."""
    return self.text.vocab_size

  @property
  def width(self) -> int:
    """Size of hidden states, D."""
    return self.text.hidden_size

  @property
  def context(self) -> int:
    """Maximum number of tokens of a prompt and its continuation together."""
    return self.text.max_position_embeddings

  @property
  def eos_ids(self) -> tuple[int, ...]:
    """Ids of the tokens that end a response, from `config.json`."""
    ids = self.text.eos_token_id
    if ids is None:
      return ()
    return (ids,) if isinstance(ids, int) else tuple(ids)

  @property
  def patch_dim(self) -> int:
    """Size of one flattened patch."""
    return self.vision.patch_dim

  @property
  def matmul_params(self) -> tuple[int, int]:
    """Number of weights in matrix products: (of all decoder layers, of the head); for FLOPs."""
    text = self.text
    heads = 2 * text.num_attention_heads + 2 * text.num_key_value_heads
    per_layer = (
      text.hidden_size * text.head_size * heads + 3 * text.hidden_size * text.intermediate_size
    )
    return per_layer * text.num_hidden_layers, text.hidden_size * text.vocab_size

  def is_vision(self, path: str) -> bool:
    """Returns whether a parameter belongs to the vision tower.

    Args:
      path: path in the parameter tree, such as `vision/blocks/qkv/kernel`.
    """
    return re.search(self.vision_path, path) is not None

  # ------------------------------------------------------------------ device-specific options

  def for_device(
    self, device: jax.Device, *, fused_attention: bool, layered_cache: bool | None
  ) -> Self:
    """Returns a copy with the options that suit a device.

    Args:
      device: may be a topology device that is not attached (ahead-of-time compilation).
      fused_attention: use cuDNN's attention where the device supports it.
      layered_cache: see `ModelConfig`; None turns it on except for TPUs.
    """
    return dataclasses.replace(
      self,
      fused_attention=fused_attention and cudnn_attention.available(device),
      layered_cache=device.platform != "tpu" if layered_cache is None else layered_cache,
    )

  # ------------------------------------------------------------------ parameters

  def shapes(self) -> Params:
    """Returns the parameter tree with the shape of each array, a tuple, in its place."""
    tree = {"vision": self.vision_shapes(), "decoder": params.decoder_shapes(self.text)}
    if not self.tie_word_embeddings:
      tree["lm_head"] = params.head_shapes(self.text)
    return tree

  def vision_params(self, params: Params) -> Params:
    """Returns the part of the parameter tree that `encode` reads."""
    return {"vision": params["vision"]}

  def init(self, key: PRNGKeyArray, dtype: DTypeLike = jnp.float32) -> Params:
    """Initialises random parameters, see `params.init`."""
    return params.init(key, self.shapes(), dtype)

  # ------------------------------------------------------------------ forward passes

  def prompt_positions(
    self,
    ids: Int[np.ndarray, "B P"],
    lengths: Int[np.ndarray, " B"],
    grids: Sequence[Int[np.ndarray, "_ 3"]],
  ) -> Int[np.ndarray, "3 B P"]:
    """Computes M-RoPE positions on the host, see `rope.prompt_positions`."""
    return rope.prompt_positions(self, ids, lengths, grids)

  def prefill(
    self, params: Params, prompt: Prompt, features: Features | None = None
  ) -> tuple[Prefix, Float[Array, "B V"]]:
    """Prefills prompts: computes their keys and values, see `generation.prefill`."""
    return generation.prefill(params, self, prompt, features)

  def extend(
    self,
    params: Params,
    prefix: Prefix,
    tokens: Int[Array, "B G T"],
    prompts: Int[Array, "N U"] | None = None,
  ) -> tuple[Float[Array, "B G T D"], Pages]:
    """Extends the G continuations of each prompt by T tokens, see `generation.extend`."""
    return generation.extend(params, self, prefix, tokens, prompts)

  def decode(
    self,
    params: Params,
    tokens: Int[Array, " NR"],
    *,
    prefix: Prefix,
    pages: Pages,
    recent: Recent,
    table: BatchTable,
    shards: int,
  ) -> tuple[Float[Array, "NR D"], Recent]:
    """Runs the next token of each row of a batch, see `generation.decode`."""
    return generation.decode(
      params,
      self,
      tokens,
      prefix=prefix,
      pages=pages,
      recent=recent,
      table=table,
      shards=shards,
    )

  def forward(
    self,
    params: Params,
    prompt: Prompt,
    features: Features | None,
    tokens: Int[Array, "B G T"],
  ) -> tuple[Float[Array, "B D"], Float[Array, "B G T D"]]:
    """Runs prompts and their continuations in one pass, see `generation.forward`."""
    return generation.forward(params, self, prompt, features, tokens)

  def logits(self, params: Params, hidden: Float[Array, "*b D"]) -> Float[Array, "*b V"]:
    """Computes fp32 logits of the next token."""
    return generation.logits(params, hidden)

  def logp(
    self,
    params: Params,
    last_hidden: Float[Array, "B D"] | Float[Array, "B G D"],
    hidden: Float[Array, "B G T D"],
    tokens: Int[Array, "B G T"],
    temperature: float | Float[Array, ""] = 1.0,
    banned: Bool[Array, " V"] | None = None,
  ) -> LogProbs:
    """Computes log-probs and entropies of given tokens, see `logp.logp`."""
    return logp.logp(
      params,
      self,
      last_hidden=last_hidden,
      hidden=hidden,
      tokens=tokens,
      temperature=temperature,
      banned=banned,
    )

  def packed_log_probs(
    self,
    params: Params,
    prompt: Prompt,
    features: Features | None,
    tokens: Int[Array, "NU G R"],
    packing: Packing,
    *,
    block: int,
    temperature: float | Float[Array, ""] = 1.0,
    banned: Bool[Array, " V"] | None = None,
  ) -> LogProbs:
    """Computes log-probs and entropies of continuations in packed rows, see `packed.log_probs`."""
    return packed.log_probs(
      params,
      self,
      prompt,
      features,
      tokens,
      packing,
      block=block,
      temperature=temperature,
      banned=banned,
    )

  # ------------------------------------------------------------------ decoding state

  def layers(self, params: Params) -> Params:
    """Returns the decoder's layers in the parameter tree, stacked or a list."""
    return params["decoder"]["layers"]

  def with_layers(self, params: Params, layers: Params) -> Params:
    """Returns parameters with other layers of the decoder, see `layers`."""
    return params | {"decoder": params["decoder"] | {"layers": layers}}

  def decoding_state(self, prefix_or_pages: PrefixOrPages) -> PrefixOrPages:
    """Converts a prefix or pages to the form used in decoding, see `ModelConfig.layered_cache`."""
    is_stacked = self.layered_cache and not isinstance(prefix_or_pages.keys, tuple)
    return state.unstack_state(prefix_or_pages) if is_stacked else prefix_or_pages

  def empty_prefix(self, prompts: int, tokens: int, dtype: DTypeLike) -> Prefix:
    """Returns a prefix of zeros for B prompts of P tokens."""
    return state.empty_prefix(self, prompts, tokens, dtype)

  def empty_pages(self, pages: int, page_size: int, dtype: DTypeLike) -> Pages:
    """Returns pages of zeros, each of `page_size` positions."""
    return state.empty_pages(self, pages, page_size, dtype)

  def empty_recent(self, rows: int, steps: int, dtype: DTypeLike) -> Recent:
    """Returns room for the tokens of a decode run, in the form used in decoding."""
    return state.empty_recent(self, rows, steps, dtype)

  def state_specs(self, mesh: Mesh) -> tuple[Prefix, Pages, Recent]:
    """Returns the partition specs of the decoding state: rows, and KV heads over `tensor`."""
    return state.specs(self, mesh)
