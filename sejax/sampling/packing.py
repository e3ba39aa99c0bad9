"""Groups on the device: how they enter the state, and how the living are moved together.

Indexes of groups count within a row shard, so that nothing moves between shards. Axes as in
`decode`: B groups and G members of the state; U groups that enter; T given tokens; S slots.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, DTypeLike, Float, Int, UInt32

from sejax import models
from sejax.parallel import layouts
from sejax.sampling import decode


class Rows(NamedTuple):
  """Everything of all prompts of a call; rows are split over shards.

  Attributes:
    ids: the prompts' tokens.
    lengths: real tokens of each.
    positions: as in `Prompt`, rows first.
    features: of the prompts' images; None, where there is none.
    given: the tokens that each trajectory begins with; None, where there are none.
    given_lengths: real ones of these.
    keys: of each trajectory's random bits.
    limit: tokens to draw for each trajectory.
  """

  ids: Int[Array, "B P"]
  lengths: Int[Array, " B"]
  positions: Int[Array, "B 3 P"]
  features: models.Features | None
  given: Int[Array, "B G T"] | None
  given_lengths: Int[Array, "B G"] | None
  keys: UInt32[Array, "B G 2"]
  limit: Int[Array, "B G"]


class Entry(NamedTuple):
  """Groups that have been read; `given` is the cache of the given tokens, if there are any."""

  prefix: models.Prefix
  given: models.Cache | None
  hidden: Float[Array, "U G D"]
  keys: UInt32[Array, "U G 2"]
  limit: Int[Array, "U G"]


def empty(
  *, model: models.Model, groups: int, members: int, prompt: int, slots: int, dtype: DTypeLike
) -> decode.State:
  """Returns a state in which nobody lives, for prompts of P tokens."""
  return decode.State(
    prefix=model.decoding_state(model.empty_prefix(groups, prompt, dtype)),
    cache=model.decoding_state(model.empty_cache(groups, members, slots, dtype)),
    hidden=jnp.zeros((groups, members, model.width), dtype),
    keys=jnp.zeros((groups, members, 2), jnp.uint32),
    count=jnp.zeros((groups, members), jnp.int32),
    limit=jnp.zeros((groups, members), jnp.int32),
  )


def enter(
  params: models.Params, rows: Rows, index: Int[Array, " U"], *, model: models.Model, mesh: Mesh
) -> Entry:
  """Reads prompts, each once, and the tokens given for their trajectories.

  Args:
    params: the parameter tree, laid out for decoding.
    rows: all prompts.
    index: which of each shard's prompts enter.
    mesh: with axes data, fsdp and tensor, or some of them.
  """
  spec = PartitionSpec(layouts.row_axes(mesh))
  rows = jax.shard_map(
    lambda rows, index: jax.tree.map(lambda x: x[index], rows),
    mesh=mesh,
    in_specs=(spec, spec),
    out_specs=spec,
  )(rows, index)
  prompt = models.Prompt(rows.ids, rows.lengths, jnp.moveaxis(rows.positions, 1, 0))
  prefix, _ = model.prefill(params, prompt, rows.features)
  hidden = jnp.broadcast_to(
    prefix.last_hidden[:, None], (*rows.limit.shape, prefix.last_hidden.shape[-1])
  )
  cache = None
  if rows.given is not None:
    cache = model.empty_cache(*rows.given.shape, prefix.keys.dtype)
    new, cache = model.extend(
      params, prefix, rows.given, cache, rows.given_lengths, attended_length=0
    )
    new = models.select_last(new, rows.given_lengths)
    hidden = jnp.where(rows.given_lengths[..., None] > 0, new, hidden)
  return Entry(
    model.decoding_state(prefix),
    None if cache is None else model.decoding_state(cache),
    hidden,
    rows.keys,
    rows.limit,
  )


def insert(
  state: decode.State,
  entry: Entry,
  places: Int[Array, " U"],
  *,
  mesh: Mesh,
  specs: decode.State,
) -> decode.State:
  """Puts groups into free places; a place outside the state drops its group.

  Given tokens come to lie before the slot that is written next, so at least T slots are used.
  """
  given = None if entry.given is None else specs.cache
  entry_specs = Entry(specs.prefix, given, specs.hidden, specs.keys, specs.limit)
  rows = PartitionSpec(layouts.row_axes(mesh))

  def local(state, entry, places):
    def put(x, new):
      return x.at[places].set(new, mode="drop")

    def put_keys(x, new):
      return x.at[_of_groups(x, places)].set(new, mode="drop")

    def put_slots(x, new):  # [B,K,G,S,H], behind an axis of layers or not
      return _put_slots(x, new, places, start, axis=x.ndim - 5, slots=x.ndim - 2)

    old = state.cache
    cache = old._replace(valid=put(old.valid, False), lengths=put(old.lengths, 0))
    if entry.given is not None:
      start = old.used - entry.given.valid.shape[-1]
      cache = models.Cache(
        keys=jax.tree.map(put_slots, cache.keys, entry.given.keys),
        values=jax.tree.map(put_slots, cache.values, entry.given.values),
        valid=_put_slots(cache.valid, entry.given.valid, places, start, axis=0, slots=2),
        lengths=put(cache.lengths, entry.given.lengths),
        used=old.used,
      )
    prefix = models.Prefix(
      jax.tree.map(put_keys, state.prefix.keys, entry.prefix.keys),
      jax.tree.map(put_keys, state.prefix.values, entry.prefix.values),
      *map(put, state.prefix[2:], entry.prefix[2:]),
    )
    return decode.State(
      prefix=prefix,
      cache=cache,
      hidden=put(state.hidden, entry.hidden),
      keys=put(state.keys, entry.keys),
      count=put(state.count, 0),
      limit=put(state.limit, entry.limit),
    )

  return jax.shard_map(local, mesh=mesh, in_specs=(specs, entry_specs, rows), out_specs=specs)(
    state, entry, places
  )


def _put_slots(
  x: Array, new: Array, places: Int[Array, " U"], start: Int[Array, ""], axis: int, slots: int
) -> Array:
  """Writes groups' given tokens in place, one group after the other: never all slots at once."""

  def put_one(n, x):
    place = jnp.minimum(places[n], x.shape[axis] - 1)
    at = [0] * x.ndim
    at[axis], at[slots] = place, start
    group = jax.lax.dynamic_slice_in_dim(new, n, 1, axis)
    old = jax.lax.dynamic_slice(x, at, group.shape)
    kept = jnp.where(places[n] < x.shape[axis], group, old)
    return jax.lax.dynamic_update_slice(x, kept, at)

  return jax.lax.fori_loop(0, len(places), put_one, x)


def move(
  state: decode.State,
  sources: Int[Array, "B G"],
  alive: Bool[Array, "B G"],
  used: Int[Array, ""],
  *,
  mesh: Mesh,
  specs: decode.State,
) -> decode.State:
  """Gathers trajectories into a state of another shape, and aligns them at one slot.

  A trajectory's tokens come to lie in the slots just before `used`, without gaps.

  Args:
    state: the old state.
    sources: for each place the old one that its trajectory comes from, of all members of all
      groups of the shard; a group's prefix comes with its first member.
    alive: places that somebody comes to; what lies in others means nothing.
    used: slots in use afterwards; at least the tokens of any living trajectory.
    mesh: with axes data, fsdp and tensor, or some of them.
    specs: layout of a state.
  """
  rows = PartitionSpec(layouts.row_axes(mesh))

  def local(state, sources, alive, used):
    rows, members = jnp.divmod(sources, state.count.shape[1])
    groups = rows[:, 0]

    def pick(x):  # [B,G,...]
      return x[rows, members]

    lengths = jnp.where(alive, pick(state.cache.lengths), 0)
    slots, valid = _align(pick(state.cache.valid), lengths, used)

    def align(x):  # [B,K,G,S,H]
      return jnp.moveaxis(x[rows[..., None], :, members[..., None], slots], 3, 1)

    def pick_keys(x):
      return x[_of_groups(x, groups)]

    prefix = models.Prefix(
      jax.tree.map(pick_keys, state.prefix.keys),
      jax.tree.map(pick_keys, state.prefix.values),
      *(x[groups] for x in state.prefix[2:]),
    )
    keys, values = (_by_layer(align, x) for x in (state.cache.keys, state.cache.values))
    cache = models.Cache(keys, values, valid, lengths, used)
    return decode.State(prefix, cache, *map(pick, state[2:]))

  return jax.shard_map(
    local, mesh=mesh, in_specs=(specs, rows, rows, PartitionSpec()), out_specs=specs
  )(state, sources, alive, used)


def _of_groups(x: Array, groups: Int[Array, " U"]) -> Array | tuple[slice, Array]:
  """Returns the index of groups in prompts' keys `[B,K,P,H]`, behind an axis of layers or not."""
  return (slice(None), groups) if x.ndim == 5 else groups


def _by_layer(
  function: Callable[[Array], Array],
  x: Float[Array, "L B K G S H"] | tuple[Float[Array, "B K G S H"], ...],
) -> Float[Array, "L b K g S H"] | tuple[Float[Array, "b K g S H"], ...]:
  """Maps each layer; where the shape stays in place, so that there is never a second cache."""
  if isinstance(x, tuple):
    return _one_by_one(function, x)
  if jax.eval_shape(function, x[0]).shape != x.shape[1:]:
    return jax.lax.map(function, x)
  return jax.lax.fori_loop(0, len(x), lambda n, x: x.at[n].set(function(x[n])), x)


def _one_by_one(
  function: Callable[[Array], Array], layers: tuple[Float[Array, "B K G S H"], ...]
) -> tuple[Float[Array, "b K g S H"], ...]:
  """Maps layers, each after the one before it, so that there is never a second cache."""
  done: list[Array] = []
  for layer in layers:
    if done:
      layer, done[-1] = jax.lax.optimization_barrier((layer, done[-1]))
    done.append(function(layer))
  return tuple(done)


def _align(
  valid: Bool[Array, "B G S"], lengths: Int[Array, "B G"], used: Int[Array, ""]
) -> tuple[Int[Array, "B G S"], Bool[Array, "B G S"]]:
  """Returns for each slot which old one comes to it, and whether it then holds a token."""
  size = valid.shape[-1]
  slot = jnp.arange(size)
  order = jnp.argsort(valid, axis=-1, stable=True)  # Real tokens last, in their order.
  source = jnp.take_along_axis(
    order, jnp.broadcast_to(jnp.minimum(slot + size - used, size - 1), valid.shape), axis=-1
  )
  return source, (slot >= used - lengths[..., None]) & (slot < used)
