"""Runs given tokens through `Model.decode`, in batches whose rows and pages are in a random order.

Axes as in `sejax.models.transformer.state`; W pages of a continuation.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from sejax import models

# Rows and pages of each shard that belong to no continuation.
FREE_ROWS, FREE_PAGES = 2, 3


class Layout(NamedTuple):
  """Where the continuations of prompts are in a device batch.

  Attributes:
    table: the same for the model.
    rows: row of each continuation, counted over all shards; -1 for those that have none.
    pages: pages of each continuation, counted over all shards.
    page_count: pages of all shards, NJ.
    page_size: S.
  """

  table: models.BatchTable
  rows: Int[np.ndarray, "B G"]
  pages: Int[np.ndarray, "B G W"]
  page_count: int
  page_size: int


def random_layout(
  rng: np.random.Generator,
  lengths: Int[np.ndarray, "B G"],
  present: Bool[np.ndarray, "B G"],
  *,
  max_length: int,
  page_size: int,
  shards: int,
) -> Layout:
  """Draws an order of rows and pages; entries of the table that mean nothing are random too.

  Args:
    lengths: tokens of each continuation in pages.
    present: continuations that have a row.
    max_length: tokens that a continuation may have in pages; the shapes follow from it.
    shards: row shards; each has the same number of prompts.
  """
  members = lengths.shape[1]
  width = -(-max_length // page_size)
  sequences = lengths.size // shards
  row_count, page_count = sequences + FREE_ROWS, sequences * width + FREE_PAGES
  tables, rows, pages = [], [], []
  for shard, (length, has_row) in enumerate(
    zip(np.split(lengths, shards), np.split(present, shards), strict=True)
  ):
    row = rng.permutation(row_count)[:sequences].reshape(length.shape)
    page = rng.permutation(page_count)[: sequences * width].reshape(*length.shape, width)
    table = models.BatchTable(
      prompt=rng.integers(len(length), size=row_count),
      member=rng.integers(members, size=row_count),
      row_of_member=rng.integers(row_count, size=length.shape),
      lengths=np.zeros(row_count, int),
      row_of_page=rng.integers(row_count, size=page_count),
      tokens_in_page=np.zeros(page_count, int),
    )
    for b, g in np.argwhere(has_row):
      table.prompt[row[b, g]], table.member[row[b, g]] = b, g
      table.row_of_member[b, g] = row[b, g]
      table.lengths[row[b, g]] = length[b, g]
      tokens = np.clip(length[b, g] - page_size * np.arange(width), 0, page_size)
      table.row_of_page[page[b, g][tokens > 0]] = row[b, g]
      table.tokens_in_page[page[b, g]] = tokens
    tables.append(table)
    rows.append(np.where(has_row, shard * row_count + row, -1))
    pages.append(shard * page_count + page)
  fields = zip(*tables, strict=True)
  table = models.BatchTable(*(np.concatenate(x).astype(np.int32) for x in fields))
  return Layout(table, np.concatenate(rows), np.concatenate(pages), shards * page_count, page_size)


def junk(rng: np.random.Generator, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
  """Returns large numbers of both signs, for keys and values that must not be read.

  They are finite, because a key that is masked has a weight of zero, and zero times NaN is NaN.
  """
  return (1e4 * rng.standard_normal(shape)).astype(np.float32)


def to_pages(
  rng: np.random.Generator, layout: Layout, x: Float[np.ndarray, "L B K G T H"]
) -> Float[np.ndarray, "L NJ K S H"]:
  """Writes keys or values to the pages of a layout; all other positions hold junk."""
  size = layout.page_size
  pages = junk(rng, (len(x), layout.page_count, x.shape[2], size, x.shape[-1]))
  for b, g in np.argwhere(layout.rows >= 0):
    for number, page in enumerate(layout.pages[b, g]):
      count = layout.table.tokens_in_page[page]
      pages[:, page, :, :count] = x[:, b, :, g, number * size : number * size + count]
  return pages


@functools.partial(jax.jit, static_argnames="model")
def _extend(model, params, prefix, tokens):
  return model.extend(params, prefix, tokens)


@functools.partial(jax.jit, static_argnames=("model", "shards"))
def _step(model, params, tokens, prefix, pages, recent, table, shards):
  return model.decode(
    params, tokens, prefix=prefix, pages=pages, recent=recent, table=table, shards=shards
  )


def decode(
  model: models.Model,
  params: models.Params,
  prefix: models.Prefix,
  tokens: Int[np.ndarray, "B G T"],
  *,
  given: int | Int[np.ndarray, "B G"] = 0,
  steps: int | None = None,
  page_size: int = 4,
  shards: int = 1,
) -> Float[np.ndarray, "B G T D"]:
  """Runs the tokens of continuations one by one.

  Every decode run has an order of rows and pages of its own. Continuations whose tokens have ended
  go on with other tokens until the run ends, and have no row after it.

  Args:
    prefix: from `prefill`.
    given: first tokens of each continuation that `extend` runs at once.
    steps: tokens of a decode run, which are then written to pages; None for all tokens in one run.
    shards: row shards, which divide the prompts among them.

  Returns:
    Hidden states after the final norm.
  """
  rng = np.random.default_rng(0)
  shape, length = tokens.shape[:2], tokens.shape[2]
  done = np.broadcast_to(given, shape).astype(int)
  steps = steps or length
  dtype = prefix.last_hidden.dtype
  cached = _Cached(model, tokens.shape, dtype)
  hidden = np.zeros((*tokens.shape, model.width), dtype)
  prefix = model.decoding_state(prefix)
  if model.layered_cache:
    params = model.with_layers(params, models.unstack_layers(model.layers(params)))

  if count := done.max():
    states, new = _extend(model, params, prefix, tokens[:, :, :count])
    # What follows the tokens of shorter ones is overwritten later.
    hidden[:, :, :count] = states
    cached.keys[..., :count, :], cached.values[..., :count, :] = map(_stacked, new)

  while (done < length).any():
    layout = random_layout(
      rng, done, done < length, max_length=length, page_size=page_size, shards=shards
    )
    pages = models.Pages(
      *(jnp.asarray(to_pages(rng, layout, x), dtype) for x in (cached.keys, cached.values))
    )
    recent = model.empty_recent(len(layout.table.prompt), steps, dtype)
    recent = recent._replace(
      keys=jax.tree.map(lambda x: jnp.asarray(junk(rng, x.shape), dtype), recent.keys),
      values=jax.tree.map(lambda x: jnp.asarray(junk(rng, x.shape), dtype), recent.values),
    )
    places = np.argwhere(done < length)
    for n in range(min(steps, length - done.min())):
      row_tokens = rng.integers(2, 100, len(layout.table.prompt)).astype(np.int32)
      at = {(b, g): done[b, g] + n for b, g in places if done[b, g] + n < length}
      for (b, g), t in at.items():
        row_tokens[layout.rows[b, g]] = tokens[b, g, t]
      states, recent = _step(
        model, params, row_tokens, prefix, model.decoding_state(pages), recent, layout.table, shards
      )
      states = np.asarray(states)
      for (b, g), t in at.items():
        hidden[b, g, t] = states[layout.rows[b, g]]
    new_keys, new_values = _stacked(recent.keys), _stacked(recent.values)
    for b, g in places:
      start, stop = done[b, g], min(done[b, g] + steps, length)
      for old, new in ((cached.keys, new_keys), (cached.values, new_values)):
        old[:, b, :, g, start:stop] = new[:, layout.rows[b, g], :, : stop - start]
    done = np.minimum(done + steps, length)
  return hidden


class _Cached:
  """Keys and values of continuations so far, on the host: `[L,B,K,G,T,H]`."""

  def __init__(self, model: models.Model, shape: tuple[int, int, int], dtype):
    pages = jax.eval_shape(lambda: model.empty_pages(1, 1, dtype))
    (batch, members, length), (layers, _, heads, _, size) = shape, pages.keys.shape
    self.keys = np.zeros((layers, batch, heads, members, length, size), dtype)
    self.values = self.keys.copy()


def _stacked(
  x: Shaped[Array, "L ..."] | tuple[Shaped[Array, "..."], ...],
) -> Shaped[np.ndarray, "L ..."]:
  return np.stack(x) if isinstance(x, tuple) else np.asarray(x)
