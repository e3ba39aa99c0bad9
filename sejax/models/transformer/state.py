"""Inputs and KV cache of the decoder: prompts, their prefixes, and the cache of continuations.

Axes as in `generation`.
"""

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
    ids: token ids, padded on the right; an image is one placeholder token per feature.
    lengths: number of tokens of each row, without padding; at least 1.
    positions: M-RoPE positions by time, height and width, from `rope.prompt_positions`.
  """

  ids: Int[Array, "B P"]
  lengths: Int[Array, " B"]
  positions: Int[Array, "3 B P"]


class DeepstackFeatures(NamedTuple):
  """Image features of several levels of a vision tower (DeepStack, arXiv:2406.04334).

  Attributes:
    embeddings: features that replace the embeddings of image tokens.
    levels: features that are added to the hidden states of image tokens: the n-th after decoder
      layer n, counted from 0.
  """

  embeddings: Float[Array, "B s D"]
  levels: tuple[Float[Array, "B s D"], ...]


class Prefix(NamedTuple):
  """Keys and values of prefilled prompts, shared by all continuations of a prompt.

  Attributes:
    keys: rotated keys, stacked over layers, or a tuple of layers, see `ModelConfig.layered_cache`.
    values: values in the same form.
    lengths: number of tokens of each prompt, without padding.
    next_position: position of the first token after the prompt, the same in all axes of M-RoPE.
    last_hidden: hidden state of the prompt's last token, after the final norm.
  """

  keys: Float[Array, "L B K P H"] | tuple[Float[Array, "B K P H"], ...]
  values: Float[Array, "L B K P H"] | tuple[Float[Array, "B K P H"], ...]
  lengths: Int[Array, " B"]
  next_position: Int[Array, " B"]
  last_hidden: Float[Array, "B D"]


class Cache(NamedTuple):
  """KV cache of the continuations of prompts.

  All continuations write their next token to the same cache position `used`, which makes the update
  one slice. Where a continuation has no token at a cache position, for instance because it has
  ended, `valid` is false. A token's position in RoPE counts only the valid ones before it.

  Attributes:
    keys: rotated keys, stacked over layers, or a tuple of layers, see `ModelConfig.layered_cache`.
    values: values in the same form.
    valid: cache positions that hold a token of the continuation.
    lengths: number of valid cache positions of each continuation.
    used: number of cache positions in use; the next tokens are written after them.
  """

  keys: Float[Array, "L B K G S H"] | tuple[Float[Array, "B K G S H"], ...]
  values: Float[Array, "L B K G S H"] | tuple[Float[Array, "B K G S H"], ...]
  valid: Bool[Array, "B G S"]
  lengths: Int[Array, "B G"]
  used: Int[Array, ""]


PrefixOrCache = TypeVar("PrefixOrCache", Prefix, Cache)


def empty_prefix(config: ModelConfig, prompts: int, tokens: int, dtype: DTypeLike) -> Prefix:
  """Returns a prefix of zeros for B prompts of P tokens."""
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
  config: ModelConfig, prompts: int, members: int, cache_length: int, dtype: DTypeLike
) -> Cache:
  """Returns an empty KV cache for B prompts x G members with S cache positions."""
  text = config.text
  shape = (
    text.num_hidden_layers,
    prompts,
    text.num_key_value_heads,
    members,
    cache_length,
    text.head_size,
  )
  return Cache(
    keys=jnp.zeros(shape, dtype),
    values=jnp.zeros(shape, dtype),
    valid=jnp.zeros((prompts, members, cache_length), bool),
    lengths=jnp.zeros((prompts, members), jnp.int32),
    used=jnp.zeros((), jnp.int32),
  )


def specs(config: ModelConfig, mesh: Mesh) -> tuple[Prefix, Cache]:
  """Returns the partition specs of prefix and cache: rows, and KV heads over `tensor`."""
  rows = PartitionSpec(layouts.row_axes(mesh))
  heads: Any = PartitionSpec(*rows, layouts.tensor_axis(mesh, config.text.num_key_value_heads))
  if config.layered_cache:
    heads = (heads,) * config.text.num_hidden_layers
  else:
    heads = PartitionSpec(None, *heads)
  prefix = Prefix(keys=heads, values=heads, lengths=rows, next_position=rows, last_hidden=rows)
  cache = Cache(keys=heads, values=heads, valid=rows, lengths=rows, used=PartitionSpec())
  return prefix, cache


def unstack_state(x: PrefixOrCache) -> PrefixOrCache:
  """Splits stacked keys and values into a tuple of layers, see `ModelConfig.layered_cache`."""
  return x._replace(keys=tuple(x.keys), values=tuple(x.values))


def unstack_params(params: Params) -> Params:
  """Splits the decoder's stacked layers into a list, see `ModelConfig.layered_cache`.

  Done once per decode run, so that no token has to copy a layer out of the stack.
  """
  stack = params["decoder"]["layers"]
  count = len(jax.tree.leaves(stack)[0])
  layers = [jax.tree.map(lambda x, n=n: x[n], stack) for n in range(count)]
  return params | {"decoder": params["decoder"] | {"layers": layers}}
