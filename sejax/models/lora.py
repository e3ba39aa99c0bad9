"""Low-rank adapters (LoRA, arXiv:2106.09685): W x becomes W x + (alpha / rank) B A x, W frozen.

Adapters are a tree of their own, shaped like the part of the parameter tree that they belong to.
`attach` lays both into one tree, which copies nothing and which the model takes like any other, so
Actor, Judge and reference share one copy of the frozen weights. `merge` makes plain weights of it.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray

from sejax.errors import quoted
from sejax.models.model import Model
from sejax.models.transformer.params import DENSE_LAYERS, LAYERS, Params

TARGETS = DENSE_LAYERS


@dataclasses.dataclass(frozen=True)
class Options:
  """Which adapters there are.

  Attributes:
    rank: r, inner size of each.
    alpha: what they add is multiplied by alpha / rank.
    targets: dense layers of the decoder that have one, of `TARGETS`.

  Raises:
    ValueError: naming the option that cannot be.
  """

  rank: int
  alpha: float
  targets: tuple[str, ...]

  def __post_init__(self):
    if self.rank < 1:
      raise ValueError(
        f"rank={quoted(self.rank)} must be at least 1, or 0 for training all weights"
      )
    if self.alpha <= 0:
      raise ValueError(f"alpha={quoted(self.alpha)} must be above 0")
    if unknown := [name for name in self.targets if name not in TARGETS]:
      raise ValueError(f"targets has {quoted(unknown[0])}; choose from {', '.join(TARGETS)}")
    if not self.targets:
      raise ValueError(f"targets is empty; choose from {', '.join(TARGETS)}")

  @classmethod
  def of(cls, options: Mapping[str, Any]) -> "Options | None":
    """Returns what a configuration's section `lora` describes; None if its rank is 0.

    Raises:
      ValueError: naming the option that cannot be.
    """
    if not options["rank"]:
      return None
    # A command line gives several in one text, joined by commas.
    targets = (name.strip() for part in options["targets"] for name in part.split(","))
    return cls(options["rank"], options["alpha"], tuple(targets))


def init(key: PRNGKeyArray, model: Model, options: Options) -> Params:
  """Returns adapters that change nothing yet, fp32: A uniform as in PEFT `LoraLayer`, B zero.

  Args:
    key: a PRNG key.
    model: that they belong to.
    options: which there are.
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
  """Returns one tree of frozen weights and adapters, in the precision of the former.

  Args:
    params: the frozen tree.
    adapters: from `init`, or trained.
    options: which they are.
  """
  scale = options.alpha / options.rank
  decoder = dict(params["decoder"])
  decoder["layers"] = dict(decoder["layers"])
  for name, adapter in adapters["decoder"]["layers"].items():
    layer = decoder["layers"][name]
    dtype = layer["kernel"].dtype
    decoder["layers"][name] = layer | {
      "lora_a": adapter["lora_a"].astype(dtype),
      # Cast first: the update's adapters are so already, and must be rounded to the same numbers.
      "lora_b": scale * adapter["lora_b"].astype(dtype),
    }
  return params | {"decoder": decoder}


def merge(params: Params, dtype: DTypeLike) -> Params:
  """Returns the plain tree that computes the same; sums are rounded once.

  Args:
    params: from `attach`.
    dtype: of the kernels that adapters are added to.
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
