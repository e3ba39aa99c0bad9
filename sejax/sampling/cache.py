"""Device side of continuous batching: reads prompts and given tokens, and writes and moves pages.

Prompts, sequences and pages are indexed within a row shard, so nothing moves between shards. Axes
as in `decode`; and U prompts or rows that are read together, P prompt tokens, T given tokens, S
positions of a page, W pages of a row, L layers, K key-value heads, H head size.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, DTypeLike, Float, Int, Shaped

from sejax import models
from sejax.parallel import layouts
from sejax.sampling import decode


class PromptRows(NamedTuple):
  """Device arrays of all prompts of a call, waiting ones included; rows are sharded.

  Attributes:
    ids: prompt tokens.
    lengths: number of prompt tokens, without padding.
    positions: positions as in `Prompt`, but with rows in front.
    features: image features; None without images.
  """

  ids: Int[Array, "B P"]
  lengths: Int[Array, " B"]
  positions: Int[Array, "B 3 P"]
  features: models.Features | None


class GivenRows(NamedTuple):
  """Sequences whose first tokens are read.

  Attributes:
    tokens: padded on the right to whole pages.
    lengths: number of tokens, without padding.
    sequence: sequence of each row; one past the last for none.
    place: place of its prompt among those on the device.
    pages: pages for its tokens; one past the last for none.
  """

  tokens: Int[Array, "NU T"]
  lengths: Int[Array, " NU"]
  sequence: Int[Array, " NU"]
  place: Int[Array, " NU"]
  pages: Int[Array, "NU W"]


def empty_state(
  *,
  model: models.Model,
  prompts: int,
  prompt_length: int,
  pages: int,
  page_size: int,
  sequences: int,
  dtype: DTypeLike,
) -> decode.State:
  """Returns a state without prompts and tokens.

  Args:
    prompts: prompts on the devices of all row shards.
    prompt_length: prompt tokens with padding, P.
    pages: pages of all row shards.
    page_size: positions of a page, S.
    sequences: sequences of all row shards.
    dtype: precision of keys, values and hidden states.
  """
  return decode.State(
    prefix=model.decoding_state(model.empty_prefix(prompts, prompt_length, dtype)),
    pages=model.decoding_state(model.empty_pages(pages, page_size, dtype)),
    hidden=jnp.zeros((sequences, model.width), dtype),
  )


def read_prompts(
  params: models.Params,
  prefix: models.Prefix,
  hidden: Float[Array, "NQ D"],
  rows: PromptRows,
  index: Int[Array, " NU"],
  places: Int[Array, " NU"],
  *,
  model: models.Model,
  mesh: Mesh,
) -> tuple[models.Prefix, Float[Array, "NQ D"]]:
  """Reads prompts, each once for all of its sequences, and puts them on the device.

  Args:
    params: parameter tree in the decoding layout and form.
    prefix: the prompts on the device.
    hidden: hidden state of each sequence's last token; that of a new prompt's sequences becomes
      that of the prompt's.
    rows: all prompts of the call.
    index: the prompts to read; one past the last for none.
    places: the place of each on the device; one past the last for none.
    mesh: mesh with any of the axes data, fsdp and tensor.
  """
  members = len(hidden) // len(rows.lengths)
  rows = jax.tree.map(lambda x: decode.take_rows(mesh, x, index), rows)
  prompt = models.Prompt(rows.ids, rows.lengths, jnp.moveaxis(rows.positions, 1, 0))
  new, _ = model.prefill(params, prompt, rows.features)
  new = model.decoding_state(new)
  row_spec = PartitionSpec(layouts.row_axes(mesh))
  prefix_specs = decode.specs(model, mesh).prefix

  def put_in_shard(prefix, hidden, new, index, places):
    def put(x, new):
      return x.at[places].set(new.astype(x.dtype), mode="drop")

    def put_keys(x, new):  # [B,K,P,H], or [L,B,K,P,H] where layers are stacked
      return x.at[:, places].set(new, mode="drop") if x.ndim == 5 else put(x, new)

    prefix = models.Prefix(
      keys=jax.tree.map(put_keys, prefix.keys, new.keys),
      values=jax.tree.map(put_keys, prefix.values, new.values),
      lengths=put(prefix.lengths, new.lengths),
      next_position=put(prefix.next_position, new.next_position),
      last_hidden=put(prefix.last_hidden, new.last_hidden),
    )
    by_prompt = hidden.reshape(-1, members, hidden.shape[-1])
    by_prompt = by_prompt.at[index].set(new.last_hidden[:, None], mode="drop")
    return prefix, by_prompt.reshape(hidden.shape)

  return jax.shard_map(
    put_in_shard,
    mesh=mesh,
    in_specs=(prefix_specs, row_spec, prefix_specs, row_spec, row_spec),
    out_specs=(prefix_specs, row_spec),
  )(prefix, hidden, new, index, places)


def read_given(
  params: models.Params,
  pages: models.Pages,
  hidden: Float[Array, "NQ D"],
  prefix: models.Prefix,
  rows: GivenRows,
  *,
  model: models.Model,
  mesh: Mesh,
) -> tuple[models.Pages, Float[Array, "NQ D"]]:
  """Reads the first tokens of sequences, and writes their keys and values to pages.

  Args:
    params: parameter tree in the decoding layout and form.
    hidden: hidden state of each sequence's last token; that of the rows is updated.
    prefix: the prompts on the device, those of the rows among them.
    mesh: mesh with any of the axes data, fsdp and tensor.
  """
  shards = layouts.row_shards(mesh)
  prompts = rows.place.reshape(shards, -1)
  states, new = model.extend(params, prefix, rows.tokens[:, None], prompts)
  last = models.select_last(states[:, 0], rows.lengths)
  new = model.decoding_state(new)
  specs = decode.specs(model, mesh)
  row_spec = PartitionSpec(layouts.row_axes(mesh))

  def put_in_shard(pages, hidden, new, last, sequence, targets):
    def put(x, at, new):  # new: [U,K,1,T,H]
      split = new[:, :, 0].reshape(*new.shape[:2], -1, *x.shape[-2:])  # [U,K,W,S,H]
      by_page = jnp.moveaxis(split, 2, 1).reshape(-1, new.shape[1], *x.shape[-2:])
      return x.at[(*at, targets.reshape(-1))].set(_finite(by_page), mode="drop")

    pages = jax.tree.map(functools.partial(_update_layers, put), pages, new)
    return pages, hidden.at[sequence].set(last, mode="drop")

  return jax.shard_map(
    put_in_shard,
    mesh=mesh,
    in_specs=(specs.pages, row_spec, specs.pages, row_spec, row_spec, row_spec),
    out_specs=(specs.pages, row_spec),
  )(pages, hidden, new, last, rows.sequence, rows.pages)


def write(
  x: Float[Array, "L NJ K S H"] | Float[Array, "NJ K S H"],
  recent: Float[Array, "L NR K C H"] | Float[Array, "NR K C H"],
  count: Int[Array, ""],
  targets: Int[Array, "NR W"],
  start: Int[Array, " NR"],
  *,
  mesh: Mesh,
  spec: PartitionSpec,
) -> Float[Array, "L NJ K S H"] | Float[Array, "NJ K S H"]:
  """Writes the tokens of a decode run to pages, of one array of keys or values.

  Args:
    x: pages, of all layers or of one.
    recent: keys or values of the new tokens.
    count: new tokens of each row.
    targets: pages of each row, from the one that gets its first new token; one past the last page
      for none.
    start: position of the first new token in its page.
    spec: partition spec of both arrays.
  """
  row_spec = PartitionSpec(layouts.row_axes(mesh))

  def write_in_shard(x, recent, count, targets, start):
    def write_layer(x, at, new):  # new: [R,K,C,H]
      size, steps = x.shape[-2], new.shape[2]
      for number in range(targets.shape[1]):
        target = targets[:, number]
        token = number * size + jnp.arange(size) - start[:, None]  # [R,S]
        is_new = (token >= 0) & (token < count)
        index = jnp.clip(token, 0, steps - 1)[:, None, :, None]
        page = jnp.take_along_axis(new, index, axis=2)
        if number == 0:  # The others hold nothing yet.
          old = x.at[(*at, target)].get(mode="clip")
          page = jnp.where(is_new[:, None, :, None], page, old)
        x = x.at[(*at, target)].set(_finite(page), mode="drop")
      return x

    return _update_layers(write_layer, x, recent)

  return jax.shard_map(
    write_in_shard,
    mesh=mesh,
    in_specs=(spec, spec, PartitionSpec(), row_spec, row_spec),
    out_specs=spec,
  )(x, recent, count, targets, start)


def take(
  x: Shaped[Array, "..."],
  index: Int[Array, " Nj"],
  *,
  is_stacked: bool,
  mesh: Mesh,
  spec: PartitionSpec,
) -> Shaped[Array, "..."]:
  """Takes entries of an array, such as pages, along its axis that is sharded by rows.

  Args:
    index: entries within each row shard.
    is_stacked: whether layers are stacked in front of that axis. They are taken one by one:
      compilers would transpose the whole array instead.
    spec: partition spec of the array.
  """

  def take_in_shard(x, index):
    def take_layer(layer):
      return layer.at[index].get(mode="clip")

    return jax.lax.map(take_layer, x) if is_stacked else take_layer(x)

  return jax.shard_map(
    take_in_shard,
    mesh=mesh,
    in_specs=(spec, PartitionSpec(layouts.row_axes(mesh))),
    out_specs=spec,
  )(x, index)


def _finite(x: Float[Array, "..."]) -> Float[Array, "..."]:
  """Returns zeros for what is not finite: a masked NaN would reach other sequences as 0 x NaN."""
  return jnp.where(jnp.isfinite(x), x, 0)


def _update_layers(
  update: Callable[[Array, tuple[Any, ...], Array], Array],
  x: Float[Array, "L J K S H"] | Float[Array, "J K S H"],
  new: Float[Array, "L ..."] | Float[Array, "..."],
) -> Float[Array, "L J K S H"] | Float[Array, "J K S H"]:
  """Updates pages in place; where layers are stacked, one layer after the other.

  Args:
    update: gets the pages, the index of the layer in them (empty where they are one layer's), and
      what is new in this layer.
  """
  if x.ndim == 4:
    return update(x, (), new)
  return jax.lax.fori_loop(0, len(x), lambda n, x: update(x, (n,), new[n]), x)
