"""Inputs and KV cache of the decoder: prompts, their prefixes, and the pages of continuations.

Axes as in `generation`; and N row shards, R rows of a shard's batch, J pages of a shard, S
positions of a page, C steps of a decode run. NR stands for the rows of all shards, one shard after
the other.
"""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, DTypeLike, Float, Int

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


class Pages(NamedTuple):
  """Paged KV cache of continuations (PagedAttention, arXiv:2309.06180).

  A page holds S consecutive tokens of one continuation; a continuation owns as many as its tokens
  need. Which pages these are is kept on the host, see `BatchTable`.

  Attributes:
    keys: rotated keys, stacked over layers, or a tuple of layers, see `ModelConfig.layered_cache`.
    values: values in the same form.
  """

  keys: Float[Array, "L NJ K S H"] | tuple[Float[Array, "NJ K S H"], ...]
  values: Float[Array, "L NJ K S H"] | tuple[Float[Array, "NJ K S H"], ...]


class Recent(NamedTuple):
  """Keys and values of the tokens of one decode run, which are not in pages yet.

  Each row's n-th token of the run lies at position n, so that a step writes one slice.

  Attributes:
    keys: rotated keys, stacked over layers, or a tuple of layers, as in `Pages`.
    values: values in the same form.
    count: tokens of every row so far.
  """

  keys: Float[Array, "L NR K C H"] | tuple[Float[Array, "NR K C H"], ...]
  values: Float[Array, "L NR K C H"] | tuple[Float[Array, "NR K C H"], ...]
  count: Int[Array, ""]


class BatchTable(NamedTuple):
  """What the rows of a device batch attend to: indices of prompts, rows and pages of their shard.

  Attributes:
    prompt: prompt of each row.
    member: number of each row among those of its prompt, of which there are at most G.
    row_of_member: row of each number of a prompt; any row for those that no row has.
    lengths: tokens of each row in pages.
    row_of_page: row that owns each page; any row for free pages.
    tokens_in_page: tokens in each page; 0 for free pages.
  """

  prompt: Int[Array, " NR"]
  member: Int[Array, " NR"]
  row_of_member: Int[Array, "NB G"]
  lengths: Int[Array, " NR"]
  row_of_page: Int[Array, " NJ"]
  tokens_in_page: Int[Array, " NJ"]


PrefixOrPages = TypeVar("PrefixOrPages", Prefix, Pages)


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


def empty_pages(config: ModelConfig, pages: int, page_size: int, dtype: DTypeLike) -> Pages:
  """Returns pages of zeros, each of `page_size` positions."""
  text = config.text
  shape = (text.num_hidden_layers, pages, text.num_key_value_heads, page_size, text.head_size)
  return Pages(keys=jnp.zeros(shape, dtype), values=jnp.zeros(shape, dtype))


def empty_recent(config: ModelConfig, rows: int, steps: int, dtype: DTypeLike) -> Recent:
  """Returns room for the tokens of a decode run of up to C steps, in the form for decoding."""
  pages = empty_pages(config, rows, steps, dtype)
  if config.layered_cache:
    pages = unstack_state(pages)
  return Recent(keys=pages.keys, values=pages.values, count=jnp.zeros((), jnp.int32))


def specs(config: ModelConfig, mesh: Mesh) -> tuple[Prefix, Pages, Recent]:
  """Returns the partition specs of the decoding state: rows, and KV heads over `tensor`."""
  rows = PartitionSpec(layouts.row_axes(mesh))
  heads: Any = PartitionSpec(*rows, layouts.tensor_axis(mesh, config.text.num_key_value_heads))
  if config.layered_cache:
    heads = (heads,) * config.text.num_hidden_layers
  else:
    heads = PartitionSpec(None, *heads)
  prefix = Prefix(keys=heads, values=heads, lengths=rows, next_position=rows, last_hidden=rows)
  return prefix, Pages(heads, heads), Recent(heads, heads, PartitionSpec())


def unstack_state(x: PrefixOrPages) -> PrefixOrPages:
  """Splits stacked keys and values into a tuple of layers, see `ModelConfig.layered_cache`."""
  return x._replace(keys=tuple(x.keys), values=tuple(x.values))


def unstack_layers(stack: Params) -> list[Params]:
  """Splits the decoder's stacked layers into a list, see `ModelConfig.layered_cache`.

  Done once per call of the sampler, so that no token has to copy a layer out of the stack.
  """
  count = len(jax.tree.leaves(stack)[0])
  return [jax.tree.map(lambda x, n=n: x[n], stack) for n in range(count)]
