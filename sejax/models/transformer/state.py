"""What decoding keeps of prompts and of their continuations: keys and values, and their counts."""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from sejax.models.transformer.config import ModelConfig
from sejax.models.transformer.params import Params
from sejax.parallel import layouts


class Prompt(NamedTuple):
  """Tokenized prompts.

  Attributes:
    ids: tokens, image placeholders expanded to one per feature.
    lengths: real tokens of each row, at least 1.
    positions: by time, height and width, from `rope.prompt_positions`.
  """

  ids: Int[Array, "B P"]
  lengths: Int[Array, " B"]
  positions: Int[Array, "3 B P"]


class Prefix(NamedTuple):
  """What is left of prompts that have been read.

  Attributes:
    keys: rotated keys of every layer, in the layout in which attention consumes them; or a tuple of
      layers, see `by_layer`.
    values: values, likewise.
    lengths: real tokens of each row.
    next_position: position of the first token after the prompt, in all three of M-RoPE's axes.
    last_hidden: hidden state of the prompt's last token, after the final norm.
  """

  keys: Float[Array, "L B K P H"] | tuple[Float[Array, "B K P H"], ...]
  values: Float[Array, "L B K P H"] | tuple[Float[Array, "B K P H"], ...]
  lengths: Int[Array, " B"]
  next_position: Int[Array, " B"]
  last_hidden: Float[Array, "B D"]


class Cache(NamedTuple):
  """Continuations of a prefix so far. Slots are shared by all trajectories, positions are not.

  Attributes:
    keys: rotated keys of every layer; or a tuple of layers, see `by_layer`.
    values: values, likewise.
    valid: slots that hold a real token of the trajectory.
    lengths: real tokens of each trajectory.
    used: slots written so far; the next tokens go to the slots after these.
  """

  keys: Float[Array, "L B K G S H"] | tuple[Float[Array, "B K G S H"], ...]
  values: Float[Array, "L B K G S H"] | tuple[Float[Array, "B K G S H"], ...]
  valid: Bool[Array, "B G S"]
  lengths: Int[Array, "B G"]
  used: Int[Array, ""]


PrefixOrCache = TypeVar("PrefixOrCache", Prefix, Cache)


def empty_prefix(config: ModelConfig, prompts: int, tokens: int, dtype: DTypeLike) -> Prefix:
  """Returns a prefix of B prompts of P tokens, all zero."""
  text = config.text
  shape = (text.num_hidden_layers, prompts, text.num_key_value_heads, tokens, text.head_size)
  return Prefix(
    keys=jnp.zeros(shape, dtype),
    values=jnp.zeros(shape, dtype),
    lengths=jnp.zeros(prompts, jnp.int32),
    next_position=jnp.zeros(prompts, jnp.int32),
    last_hidden=jnp.zeros((prompts, text.hidden_size), dtype),
  )


def empty_cache(
  config: ModelConfig, prompts: int, members: int, slots: int, dtype: DTypeLike
) -> Cache:
  """Returns a cache of B prompts x G members with S free slots."""
  text = config.text
  shape = (
    text.num_hidden_layers,
    prompts,
    text.num_key_value_heads,
    members,
    slots,
    text.head_size,
  )
  return Cache(
    keys=jnp.zeros(shape, dtype),
    values=jnp.zeros(shape, dtype),
    valid=jnp.zeros((prompts, members, slots), bool),
    lengths=jnp.zeros((prompts, members), jnp.int32),
    used=jnp.zeros((), jnp.int32),
  )


def specs(config: ModelConfig, mesh: Mesh) -> tuple[Prefix, Cache]:
  """Returns the layout of prefix and cache while decoding: rows, and key-value heads."""
  rows = PartitionSpec(layouts.row_axes(mesh))
  heads: Any = PartitionSpec(*rows, layouts.tensor_axis(mesh, config.text.num_key_value_heads))
  if config.layered_cache:
    heads = (heads,) * config.text.num_hidden_layers
  else:
    heads = PartitionSpec(None, *heads)
  prefix = Prefix(keys=heads, values=heads, lengths=rows, next_position=rows, last_hidden=rows)
  cache = Cache(keys=heads, values=heads, valid=rows, lengths=rows, used=PartitionSpec())
  return prefix, cache


def by_layer(x: PrefixOrCache) -> PrefixOrCache:
  """Gives the keys and values of each layer an array of their own, see `layered_cache`."""
  return x._replace(keys=tuple(x.keys), values=tuple(x.values))


def layers_apart(params: Params) -> Params:
  """Cuts the decoder's layers out of their stack, once for all tokens of a layered cache."""
  stack = params["decoder"]["layers"]
  count = len(jax.tree.leaves(stack)[0])
  layers = [jax.tree.map(lambda x, n=n: x[n], stack) for n in range(count)]
  return params | {"decoder": params["decoder"] | {"layers": layers}}
