"""Low-rank adapters (LoRA, arXiv:2106.09685): W x becomes W x + (alpha / rank) B A x, W frozen.

Adapters are a separate tree with the same structure as the part of the parameter tree that they
adapt. `attach` combines both into one tree that the model runs like any other. It copies no
weights, so Actor, Judge and reference policy share one copy of the frozen weights. `merge` adds the
adapters into plain weights for export.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray

from sejax.errors import ConfigError, OptionError, quoted
from sejax.models.model import Model
from sejax.models.transformer.params import DENSE_LAYERS, LAYERS, Params

TARGETS = DENSE_LAYERS


@dataclasses.dataclass(frozen=True)
class Options:
  """Options of the LoRA adapters.

  Attributes:
    rank: inner size r of each adapter.
    alpha: the adapters' output is multiplied by alpha / rank.
    targets: names of the decoder's dense layers that get adapters, from `TARGETS`.

  Raises:
    OptionError: rank or alpha is out of range; the message names it as a field of `config.lora`.
    ConfigError: a target is unknown, or there is none; likewise.
  """

  rank: int
  alpha: float
  targets: tuple[str, ...]

  def __post_init__(self):
    if self.rank < 1:
      raise OptionError("lora.rank", self.rank, "at least 1, or 0 for training all weights")
    if self.alpha <= 0:
      raise OptionError("lora.alpha", self.alpha, "above 0")
    choices = f"choose from {', '.join(TARGETS)}"
    if unknown := [name for name in self.targets if name not in TARGETS]:
      raise ConfigError(f"config.lora.targets has {quoted(unknown[0])}; {choices}")
    if not self.targets:
      raise ConfigError(f"config.lora.targets is empty; {choices}")

  @classmethod
  def of(cls, options: Mapping[str, Any]) -> "Options | None":
    """Builds options from the configuration section `lora`; None if its rank is 0.

    Args:
      options: the section, with the fields of this class.

    Raises:
      ConfigError: an option cannot work, see the class.
    """
    if not options["rank"]:
      return None
    # On the command line, several targets are one string with commas.
    targets = (name.strip() for part in options["targets"] for name in part.split(","))
    return cls(options["rank"], options["alpha"], tuple(targets))


def init(key: PRNGKeyArray, model: Model, options: Options) -> Params:
  """Initialises fp32 adapters that leave the model's output unchanged.

  As in PEFT `LoraLayer`: A is uniform (Kaiming), B zero.
  """
  layers = model.shapes()["decoder"]["layers"]
  draw = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", batch_axis=0)
  adapters = {}
  for number, name in enumerate(options.targets):
    depth, inputs, outputs = layers[name]["kernel"]
    adapters[name] = {
      "lora_a": draw(jax.random.fold_in(key, number), (depth, inputs, options.rank)),
      "lora_b": jnp.zeros((depth, options.rank, outputs)),
    }
  return traverse_util.unflatten_dict({LAYERS: adapters})


def attach(params: Params, adapters: Params, options: Options) -> Params:
  """Combines frozen weights and adapters into one tree, in the precision of the weights.

  Args:
    params: frozen parameter tree; its arrays are shared with the result.
    adapters: adapters from `init`, possibly trained.
    options: the options that the adapters were made with.
  """
  dtype = jax.tree.leaves(params["decoder"]["layers"])[0].dtype
  return combine(params, scaled(adapters, options=options, dtype=dtype))


def scaled(adapters: Params, *, options: Options, dtype: DTypeLike) -> Params:
  """Returns adapters as they are applied: B times alpha / rank, in the precision of the weights.

  Args:
    adapters: adapters from `init`, possibly trained.
    options: the options that the adapters were made with.
  """
  scale = options.alpha / options.rank
  # Cast before scaling: the update step casts its adapters first too, and both must round to the
  # same numbers.
  layers = {
    name: {
      "lora_a": adapter["lora_a"].astype(dtype),
      "lora_b": scale * adapter["lora_b"].astype(dtype),
    }
    for name, adapter in adapters["decoder"]["layers"].items()
  }
  return {"decoder": {"layers": layers}}


def combine(params: Params, adapters: Params) -> Params:
  """Combines frozen weights and adapters from `scaled` into one tree; copies no array."""
  decoder = dict(params["decoder"])
  layers = adapters["decoder"]["layers"]
  decoder["layers"] = decoder["layers"] | {
    name: decoder["layers"][name] | adapter for name, adapter in layers.items()
  }
  return params | {"decoder": decoder}


def merge(params: Params, dtype: DTypeLike) -> Params:
  """Merges adapters into the weights: returns a plain tree that computes the same function.

  Sums are computed in fp32 and rounded once.

  Args:
    params: parameter tree with adapters, from `attach`.
    dtype: precision of the merged kernels; other arrays keep theirs.
  """
  decoder = dict(params["decoder"])
  decoder["layers"] = {
    name: _merged(layer, jnp.dtype(dtype)) for name, layer in decoder["layers"].items()
  }
  return params | {"decoder": decoder}


def _merged(layer: Params, dtype: jnp.dtype) -> Params:
  if "lora_a" not in layer:
    return layer
  plain = {name: x for name, x in layer.items() if not name.startswith("lora_")}
  return plain | {"kernel": _add(layer["kernel"], layer["lora_a"], layer["lora_b"], dtype)}


@functools.partial(jax.jit, static_argnums=3)
def _add(
  kernel: Float[Array, "L I O"],
  a: Float[Array, "L I r"],
  b: Float[Array, "L r O"],
  dtype: jnp.dtype,
) -> Float[Array, "L I O"]:
  product = jnp.matmul(a, b, preferred_element_type=jnp.float32)
  return (kernel.astype(jnp.float32) + product).astype(dtype)
