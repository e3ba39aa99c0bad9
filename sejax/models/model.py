"""The interface of a model: all that the rest of the package knows of one, whatever its family.

A family is a subclass of `Model` in a package of its own, found by the `model_type` of a
`config.json` (`sejax.models.registry`). It says how its configuration, images and vision tower
look; decoder, caches and log-probs are shared (`sejax.models.transformer`).

Opaque to everybody else are the parameter tree, the image inputs that `pack_images` makes, and the
features that `encode` returns: pytrees whose arrays have rows in front.

Axes: B prompts, G trajectories, P prompt tokens, T new tokens, S patches or cache slots, L layers,
K key-value heads, H head size, D width, V vocabulary.
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

from sejax.models.transformer import cudnn_attention, generation, logp, params, rope, state
from sejax.models.transformer.config import ModelConfig
from sejax.models.transformer.layout import DECODING, TRAINING
from sejax.models.transformer.logp import LogProbs
from sejax.models.transformer.params import Params
from sejax.models.transformer.state import Cache, Prefix, PrefixOrCache, Prompt
from sejax.parallel.layouts import Rules

Images = Any  # what `Model.pack_images` makes
Features = Any  # what `Model.encode` returns


@dataclasses.dataclass(frozen=True)
class Model(ModelConfig, abc.ABC):
  """A model's configuration with the pure functions over its parameter tree; static under jit.

  Attributes:
    model_type: of the family, as `config.json` has it.
    title: of the family, for people.
    tensor_names: module in the tree -> module in the published files, `{}` being the number of the
      block or layer.
    layout: rules for the layout of parameters in training, see `sejax.parallel.layouts`.
    decode_layout: rules for decoding.
    vision_path: pattern of the paths of the vision tower's parameters.
    released_names: names on the hub by size, such as `7b`.
  """

  model_type: ClassVar[str]
  title: ClassVar[str]
  released_names: ClassVar[Mapping[str, str]]
  tensor_names: ClassVar[Mapping[str, str]]
  layout: ClassVar[Rules] = TRAINING
  decode_layout: ClassVar[Rules] = DECODING
  vision_path: ClassVar[str] = "^vision/"

  # ------------------------------------------------------------------ what a family says

  @classmethod
  @abc.abstractmethod
  def from_hf(cls, raw: Mapping[str, Any]) -> Self:
    """Reads a `config.json`.

    Args:
      raw: the parsed file.

    Raises:
      ValueError: a field is missing, or its value cannot work or is not supported.
    """

  @abc.abstractmethod
  def to_hf(self) -> dict[str, Any]:
    """Returns the `config.json` that transformers reads."""

  @classmethod
  @abc.abstractmethod
  def released(cls, size: str) -> Self:
    """Returns a released configuration by its size, such as `7b`.

    Raises:
      ValueError: there is no such size.
    """

  @abc.abstractmethod
  def vision_shapes(self) -> Params:
    """Returns the shapes of the vision tower's parameters."""

  def tensor_shape(self, path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of a published tensor; kernels are `[out, in]` there.

    Args:
      path: of the array in the tree, such as `vision/patch_embed/kernel`.
      shape: of the array, or of one layer where layers are stacked.
    """
    return shape[::-1] if path.endswith("/kernel") else shape

  @property
  @abc.abstractmethod
  def patch_multiple(self) -> int:
    """The size of a patch bucket must be a multiple of this."""

  @property
  @abc.abstractmethod
  def image_format(self) -> dict[str, int]:
    """Fields of the vision configuration on which patches and their order depend."""

  @abc.abstractmethod
  def pack_images(
    self,
    patches: Sequence[Float[np.ndarray, "_ patch_dim"]],
    grids: Sequence[Int[np.ndarray, "_ 3"]],
    size: int,
  ) -> Images:
    """Packs the images of each row into `size` patches, on the host.

    Args:
      patches: of all images of a row, as the image processor gives them.
      grids: for each row, its images' (time, height, width) in patches; no images: `[0, 3]`.
      size: S, a multiple of `patch_multiple`, at least the patches of the fullest row.

    Raises:
      ValueError: the size does not fit, or patches and grids disagree.
    """

  @abc.abstractmethod
  def images_shape(self, images: Images) -> tuple[int, int]:
    """Returns B and S of what `pack_images` made."""

  @abc.abstractmethod
  def encode(self, params: Params, images: Images) -> Features:
    """Returns the features of each row's images, one after the other, padding at the end."""

  # ------------------------------------------------------------------ sizes

  @property
  def vocab_size(self) -> int:
    """Rows of the embedding, V."""
    return self.text.vocab_size

  @property
  def width(self) -> int:
    """Width of hidden states, D."""
    return self.text.hidden_size

  @property
  def context(self) -> int:
    """Tokens of a sequence, at most."""
    return self.text.max_position_embeddings

  @property
  def eos_ids(self) -> tuple[int, ...]:
    """Tokens that end a response, as `config.json` has them."""
    ids = self.text.eos_token_id
    if ids is None:
      return ()
    return (ids,) if isinstance(ids, int) else tuple(ids)

  @property
  def patch_dim(self) -> int:
    """Numbers in one flattened patch."""
    return self.vision.patch_dim

  @property
  def product_weights(self) -> tuple[int, int]:
    """Weights of the matrix products of all decoder layers, and those of the head; for FLOPs."""
    text = self.text
    heads = 2 * text.num_attention_heads + 2 * text.num_key_value_heads
    per_layer = (
      text.hidden_size * text.head_size * heads + 3 * text.hidden_size * text.intermediate_size
    )
    return per_layer * text.num_hidden_layers, text.hidden_size * text.vocab_size

  def is_vision(self, path: str) -> bool:
    """Returns whether an array of the tree belongs to the vision tower.

    Args:
      path: such as `vision/blocks/qkv/kernel`.
    """
    return re.search(self.vision_path, path) is not None

  # ------------------------------------------------------------------ how it is computed

  def on_device(
    self, device: jax.Device, *, fused_attention: bool, layered_cache: bool | None
  ) -> Self:
    """Returns the model as a device computes it.

    Args:
      device: which may be one to compile for.
      fused_attention: whether cuDNN's attention is used where the device has it.
      layered_cache: see `ModelConfig`; None: on GPUs.
    """
    return dataclasses.replace(
      self,
      fused_attention=fused_attention and cudnn_attention.available(device),
      layered_cache=device.platform == "gpu" if layered_cache is None else layered_cache,
    )

  # ------------------------------------------------------------------ parameters

  def shapes(self) -> Params:
    """Returns the parameter tree with each array's shape, a tuple, in its place."""
    tree = {"vision": self.vision_shapes(), "decoder": params.decoder_shapes(self.text)}
    if not self.tie_word_embeddings:
      tree["lm_head"] = params.head_shapes(self.text)
    return tree

  def vision_params(self, params: Params) -> Params:
    """Returns the part of the parameter tree that `encode` reads."""
    return {"vision": params["vision"]}

  def init(self, key: PRNGKeyArray, dtype: DTypeLike = jnp.float32) -> Params:
    """Draws random parameters, see `params.init`."""
    return params.init(key, self.shapes(), dtype)

  # ------------------------------------------------------------------ reading and generating

  def prompt_positions(
    self,
    ids: Int[np.ndarray, "B P"],
    lengths: Int[np.ndarray, " B"],
    grids: Sequence[Int[np.ndarray, "_ 3"]],
  ) -> Int[np.ndarray, "3 B P"]:
    """Returns positions by time, height and width, on the host, see `rope.prompt_positions`."""
    return rope.prompt_positions(self, ids, lengths, grids)

  def prefill(
    self, params: Params, prompt: Prompt, features: Features | None = None
  ) -> tuple[Prefix, Float[Array, "B V"]]:
    """Reads prompts, see `generation.prefill`."""
    return generation.prefill(params, self, prompt, features)

  def extend(
    self,
    params: Params,
    prefix: Prefix,
    tokens: Int[Array, "B G T"],
    cache: Cache | None = None,
    lengths: Int[Array, "B G"] | None = None,
    filled: int | None = None,
  ) -> tuple[Float[Array, "B G T D"], Cache | None]:
    """Continues each prompt by T tokens of G trajectories, see `generation.extend`."""
    return generation.extend(params, self, prefix, tokens, cache, lengths, filled)

  def forward(
    self,
    params: Params,
    prompt: Prompt,
    features: Features | None,
    tokens: Int[Array, "B G T"],
  ) -> tuple[Float[Array, "B D"], Float[Array, "B G T D"]]:
    """Reads prompts and continuations in one pass, for training, see `generation.forward`."""
    return generation.forward(params, self, prompt, features, tokens)

  def logits(self, params: Params, hidden: Float[Array, "*b D"]) -> Float[Array, "*b V"]:
    """Returns fp32 logits of the next token."""
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
    """Returns log-probs and entropies of given tokens, see `logp.logp`."""
    return logp.logp(params, self, last_hidden, hidden, tokens, temperature, banned)

  # ------------------------------------------------------------------ state of decoding

  def decoding_params(self, params: Params) -> Params:
    """Returns parameters in the form that decoding takes, see `layered_cache`."""
    return state.layers_apart(params) if self.layered_cache else params

  def decoding_state(self, prefix_or_cache: PrefixOrCache) -> PrefixOrCache:
    """Returns a prefix or a cache in the form that decoding takes, see `layered_cache`."""
    return state.by_layer(prefix_or_cache) if self.layered_cache else prefix_or_cache

  def empty_prefix(self, prompts: int, tokens: int, dtype: DTypeLike) -> Prefix:
    """Returns a prefix for B prompts of P tokens, all zero."""
    return state.empty_prefix(self, prompts, tokens, dtype)

  def empty_cache(self, prompts: int, members: int, slots: int, dtype: DTypeLike) -> Cache:
    """Returns a cache of B prompts x G members with S free slots."""
    return state.empty_cache(self, prompts, members, slots, dtype)

  def state_specs(self, mesh: Mesh) -> tuple[Prefix, Cache]:
    """Returns the layout of prefix and cache while decoding: rows, and heads over `tensor`."""
    return state.specs(self, mesh)
