"""Attention of a decode step: each row's new token attends to its prompt, pages and recent tokens.

A prompt's keys are read once for all of its rows, and of a row's own keys only the pages that hold
some (PagedAttention, arXiv:2309.06180). Queries are copied to where keys lie, since they are much
smaller. The scores of all keys share one softmax, with a common maximum and a common sum (equal to
merging by log-sum-exp).

jax has kernels of its own for this, `paged_attention` and `ragged_paged_attention` for TPUs: they
return no sums, so that the shared prompt could not be merged and would be read once for each row.

Scores and softmax are fp32. Axes as in `state`; r = query heads of a key-value head.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from sejax.models.transformer.chunked_attention import MASKED
from sejax.models.transformer.state import BatchTable


class LayerKeys(NamedTuple):
  """All that the rows attend to in one layer.

  Attributes:
    prompt_keys: keys of the shared prompts; `prompt_values` likewise, and so on.
    page_keys: keys in pages.
    recent_keys: keys of the tokens of this decode run.
    own_keys: keys of the new tokens.
  """

  prompt_keys: Float[Array, "NB K P H"]
  prompt_values: Float[Array, "NB K P H"]
  page_keys: Float[Array, "NJ K S H"]
  page_values: Float[Array, "NJ K S H"]
  recent_keys: Float[Array, "NR K C H"]
  recent_values: Float[Array, "NR K C H"]
  own_keys: Float[Array, "NR K H"]
  own_values: Float[Array, "NR K H"]


def attend(
  queries: Float[Array, "NR heads H"],
  layer: LayerKeys,
  table: BatchTable,
  prompt_lengths: Int[Array, " NB"],
  recent_count: Int[Array, ""],
  *,
  shards: int,
) -> Float[Array, "NR heads H"]:
  """Computes attention of one new token of each row.

  Args:
    prompt_lengths: tokens of each prompt, without padding.
    recent_count: tokens of this decode run so far.
    shards: row shards, N; indices in the table count within a shard.
  """
  rows, heads, size = queries.shape
  kv_heads = layer.own_keys.shape[1]
  grouped = queries.reshape(rows, kv_heads, heads // kv_heads, size)

  def split(x):  # A leading axis for the shards keeps all that follows within each of them.
    return x.reshape(shards, -1, *x.shape[1:])

  by_shard = jax.tree.map(split, (grouped, layer, table, prompt_lengths))
  out = jax.vmap(_attend_in_shard, in_axes=(0, 0, 0, 0, None))(*by_shard, recent_count)
  return out.reshape(queries.shape).astype(queries.dtype)


def _attend_in_shard(
  queries: Float[Array, "R K r H"],
  layer: LayerKeys,
  table: BatchTable,
  prompt_lengths: Int[Array, " B"],
  recent_count: Int[Array, ""],
) -> Float[Array, "R K r H"]:
  """Computes attention of the rows of one shard."""
  # Heads before members: batch axes of a product that are not adjacent would be transposed.
  by_prompt = jnp.moveaxis(queries[table.row_of_member], 1, 2)
  by_page = queries[table.row_of_page]
  # Free pages, too: masked, they add nothing.
  owned = jnp.arange(len(queries))[:, None] == table.row_of_page

  prompt_scores = _scores("bkgrh,bkph->bkgrp", by_prompt, layer.prompt_keys)
  prompt_scores = _mask(prompt_scores, prompt_lengths[:, None, None, None, None])
  page_scores = _scores("jkrh,jksh->jkrs", by_page, layer.page_keys)
  page_scores = _mask(page_scores, table.tokens_in_page[:, None, None, None])
  recent_scores = _scores("nkrh,nkch->nkrc", queries, layer.recent_keys)
  recent_scores = _mask(recent_scores, recent_count)
  own_scores = _scores("nkrh,nkh->nkr", queries, layer.own_keys)

  top_of_page = page_scores.max(axis=-1)
  top = jnp.maximum(own_scores, recent_scores.max(axis=-1))
  top = jnp.maximum(top, prompt_scores.max(axis=-1)[table.prompt, :, table.member])
  top = jnp.maximum(
    top, jnp.where(owned[:, :, None, None], top_of_page, MASKED).max(axis=1, initial=MASKED)
  )

  own_weights = jnp.exp(own_scores - top)
  total = own_weights
  out = _weighted("nkr,nkh->nkrh", own_weights, layer.own_values)

  recent_weights = jnp.exp(recent_scores - top[..., None])
  total += recent_weights.sum(axis=-1)
  out += _weighted("nkrc,nkch->nkrh", recent_weights, layer.recent_values)

  top_by_prompt = jnp.moveaxis(top[table.row_of_member], 1, 2)
  prompt_weights = jnp.exp(prompt_scores - top_by_prompt[..., None])
  total += prompt_weights.sum(axis=-1)[table.prompt, :, table.member]
  prompt_out = _weighted("bkgrp,bkph->bkgrh", prompt_weights, layer.prompt_values)
  out += prompt_out[table.prompt, :, table.member]

  page_weights = jnp.exp(page_scores - top[table.row_of_page][..., None])
  # In the model's precision, as the output: one for each page would be much in fp32.
  page_out = _weighted("jkrs,jksh->jkrh", page_weights, layer.page_values, queries.dtype)
  # A product with zeros and ones instead of a scatter, whose order of sums GPUs do not fix.
  total += _sum_pages(owned, page_weights.sum(axis=-1))
  out += _sum_pages(owned, page_out)
  return out / total[..., None]


def _scores(
  equation: str, queries: Float[Array, "..."], keys: Float[Array, "..."]
) -> Float[Array, "..."]:
  """Returns scaled scores in fp32."""
  scores = jnp.einsum(equation, queries, keys, preferred_element_type=jnp.float32)
  return scores * queries.shape[-1] ** -0.5


def _mask(scores: Float[Array, "... S"], lengths: Int[Array, "..."]) -> Float[Array, "... S"]:
  """Masks the scores of keys from a length on."""
  return jnp.where(jnp.arange(scores.shape[-1]) < lengths, scores, MASKED)


def _weighted(
  equation: str,
  weights: Float[Array, "..."],
  values: Float[Array, "..."],
  dtype: DTypeLike = jnp.float32,
) -> Float[Array, "..."]:
  """Returns weighted sums of values."""
  weights = weights.astype(values.dtype)
  return jnp.einsum(equation, weights, values, preferred_element_type=dtype)


def _sum_pages(owned: Bool[Array, "R J"], x: Float[Array, "J ..."]) -> Float[Array, "R ..."]:
  """Sums what belongs to the pages of each row, in fp32."""
  return jnp.einsum(
    "nj,j...->n...",
    owned.astype(x.dtype),
    x,
    precision=jax.lax.Precision.HIGHEST,
    preferred_element_type=jnp.float32,
  )
