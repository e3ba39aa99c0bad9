"""Device side of continuous batching: prefill prompts, insert them into free slots, repack slots.

Slots and prompts are indexed within a row shard, so nothing moves between shards. Axes as in
`decode`: B slots and G sequences of a slot; U prompts that are admitted together; P prompt tokens,
T given tokens, S KV cache positions, L layers, K key-value heads, H head size, D width.
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


class PromptRows(NamedTuple):
  """Device arrays of all prompts of a call, waiting ones included; rows are sharded.

  Attributes:
    ids: prompt tokens.
    lengths: number of prompt tokens, without padding.
    positions: positions as in `Prompt`, but with rows in front.
    features: image features; None without images.
    given: tokens that each sequence starts with; None without any.
    given_lengths: number of given tokens, without padding; None as `given`.
    keys: random key data of each sequence.
    limit: maximum number of tokens to sample for each sequence.
  """

  ids: Int[Array, "B P"]
  lengths: Int[Array, " B"]
  positions: Int[Array, "B 3 P"]
  features: models.Features | None
  given: Int[Array, "B G T"] | None
  given_lengths: Int[Array, "B G"] | None
  keys: UInt32[Array, "B G 2"]
  limit: Int[Array, "B G"]


class PrefilledGroups(NamedTuple):
  """Groups after prefill, to be inserted into a state.

  Attributes:
    prefix: keys and values of each prompt.
    given: KV cache of the given tokens; None without any.
    hidden: hidden state of each sequence's last token, of the prompt or given.
    keys: random key data of each sequence.
    limit: maximum number of tokens to sample for each sequence.
  """

  prefix: models.Prefix
  given: models.Cache | None
  hidden: Float[Array, "U G D"]
  keys: UInt32[Array, "U G 2"]
  limit: Int[Array, "U G"]


def group_specs(specs: decode.State, *, given: bool) -> PrefilledGroups:
  """Returns the partition specs of prefilled groups, which are laid out like the state.

  Args:
    specs: partition specs of a state, from `decode.specs`.
    given: whether sequences start with given tokens.
  """
  return PrefilledGroups(
    prefix=specs.prefix,
    given=specs.cache if given else None,
    hidden=specs.hidden,
    keys=specs.keys,
    limit=specs.limit,
  )


def empty_state(
  *,
  model: models.Model,
  slots: int,
  members: int,
  prompt_length: int,
  cache_length: int,
  dtype: DTypeLike,
) -> decode.State:
  """Returns a state without active sequences.

  Args:
    slots: slots over all row shards, B.
    members: sequences of a slot, G.
    prompt_length: prompt tokens with padding, P.
    cache_length: KV cache positions of each sequence, S.
    dtype: precision of keys, values and hidden states.
  """
  return decode.State(
    prefix=model.decoding_state(model.empty_prefix(slots, prompt_length, dtype)),
    cache=model.decoding_state(model.empty_cache(slots, members, cache_length, dtype)),
    hidden=jnp.zeros((slots, members, model.width), dtype),
    keys=jnp.zeros((slots, members, 2), jnp.uint32),
    num_sampled=jnp.zeros((slots, members), jnp.int32),
    limit=jnp.zeros((slots, members), jnp.int32),
  )


def prefill(
  params: models.Params,
  rows: PromptRows,
  index: Int[Array, " U"],
  *,
  model: models.Model,
  mesh: Mesh,
) -> PrefilledGroups:
  """Prefills prompts, each once for its whole group, and the given tokens of their sequences.

  Args:
    params: parameter tree in the decoding layout.
    rows: all prompts of the call.
    index: the prompts to prefill, indexed within each row shard.
    mesh: mesh with any of the axes data, fsdp and tensor.
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
    given_hidden, cache = model.extend(
      params,
      prefix,
      rows.given,
      cache=cache,
      lengths=rows.given_lengths,
      attended_length=0,
    )
    last_given = models.select_last(given_hidden, rows.given_lengths)
    hidden = jnp.where(rows.given_lengths[..., None] > 0, last_given, hidden)
  return PrefilledGroups(
    prefix=model.decoding_state(prefix),
    given=None if cache is None else model.decoding_state(cache),
    hidden=hidden,
    keys=rows.keys,
    limit=rows.limit,
  )


def insert(
  state: decode.State,
  groups: PrefilledGroups,
  slots: Int[Array, " U"],
  *,
  mesh: Mesh,
  specs: decode.State,
) -> decode.State:
  """Writes prefilled groups into free slots.

  Given tokens are written directly before the next cache position, so `state.cache.used` must be at
  least T.

  Args:
    groups: from `prefill`.
    slots: slot of each group within its row shard. A group whose slot is past the last one is
      dropped.
    specs: partition specs of a state, from `decode.specs`.
  """
  rows = PartitionSpec(layouts.row_axes(mesh))
  in_specs = (specs, group_specs(specs, given=groups.given is not None), rows)

  def insert_in_shard(state, groups, slots):
    def put(x, new):
      return x.at[slots].set(new, mode="drop")

    def put_prompt_keys(x, new):
      return x.at[_slot_index(x, slots)].set(new, mode="drop")

    def put_given(x, new):  # [B,K,G,S,H], or [L,B,K,G,S,H] where layers are stacked
      return _put_given(x, new, slots, start, slot_axis=x.ndim - 5, position_axis=x.ndim - 2)

    old = state.cache
    cache = old._replace(valid=put(old.valid, False), lengths=put(old.lengths, 0))
    if groups.given is not None:
      start = old.used - groups.given.valid.shape[-1]
      cache = models.Cache(
        keys=jax.tree.map(put_given, cache.keys, groups.given.keys),
        values=jax.tree.map(put_given, cache.values, groups.given.values),
        valid=_put_given(
          cache.valid, groups.given.valid, slots, start, slot_axis=0, position_axis=2
        ),
        lengths=put(cache.lengths, groups.given.lengths),
        used=old.used,
      )
    prefix = models.Prefix(
      keys=jax.tree.map(put_prompt_keys, state.prefix.keys, groups.prefix.keys),
      values=jax.tree.map(put_prompt_keys, state.prefix.values, groups.prefix.values),
      lengths=put(state.prefix.lengths, groups.prefix.lengths),
      next_position=put(state.prefix.next_position, groups.prefix.next_position),
      last_hidden=put(state.prefix.last_hidden, groups.prefix.last_hidden),
    )
    return decode.State(
      prefix=prefix,
      cache=cache,
      hidden=put(state.hidden, groups.hidden),
      keys=put(state.keys, groups.keys),
      num_sampled=put(state.num_sampled, 0),
      limit=put(state.limit, groups.limit),
    )

  return jax.shard_map(insert_in_shard, mesh=mesh, in_specs=in_specs, out_specs=specs)(
    state, groups, slots
  )


def _put_given(
  x: Array,
  new: Array,
  slots: Int[Array, " U"],
  start: Int[Array, ""],
  slot_axis: int,
  position_axis: int,
) -> Array:
  """Writes the given tokens of groups into part of a cache array, beginning at position `start`.

  One group after the other and in place, so that no copy of the slots' whole cache is made.
  """

  def put_one(n, x):
    slot = jnp.minimum(slots[n], x.shape[slot_axis] - 1)
    at = [0] * x.ndim
    at[slot_axis], at[position_axis] = slot, start
    group = jax.lax.dynamic_slice_in_dim(new, n, 1, slot_axis)
    old = jax.lax.dynamic_slice(x, at, group.shape)
    kept = jnp.where(slots[n] < x.shape[slot_axis], group, old)
    return jax.lax.dynamic_update_slice(x, kept, at)

  return jax.lax.fori_loop(0, len(slots), put_one, x)


def repack(
  state: decode.State,
  sources: Int[Array, "B G"],
  active: Bool[Array, "B G"],
  used: Int[Array, ""],
  *,
  mesh: Mesh,
  specs: decode.State,
) -> decode.State:
  """Gathers sequences into a state of another shape and aligns them at one cache position.

  The tokens of a sequence move to the cache positions directly before `used`, without gaps.

  Args:
    sources: for each new position the flat index `slot * old_members + member` of the old position
      that its sequence comes from, within the row shard; see `Schedule.repack`. A slot's prefix
      comes from the source of its first sequence.
    active: new positions that hold a sequence; the contents of the others mean nothing.
    used: cache positions in use afterwards, at least the tokens of the longest active sequence.
    specs: partition specs of a state, from `decode.specs`.
  """
  rows = PartitionSpec(layouts.row_axes(mesh))

  def repack_shard(state, sources, active, used):
    slots, members = jnp.divmod(sources, state.num_sampled.shape[1])
    prefix_slots = slots[:, 0]

    def take(x):  # [B,G,...]
      return x[slots, members]

    lengths = jnp.where(active, take(state.cache.lengths), 0)
    positions, valid = _align(take(state.cache.valid), lengths, used)

    def take_aligned(x):  # [B,K,G,S,H]
      return jnp.moveaxis(x[slots[..., None], :, members[..., None], positions], 3, 1)

    def take_prompt_keys(x):
      return x[_slot_index(x, prefix_slots)]

    prefix = models.Prefix(
      keys=jax.tree.map(take_prompt_keys, state.prefix.keys),
      values=jax.tree.map(take_prompt_keys, state.prefix.values),
      lengths=state.prefix.lengths[prefix_slots],
      next_position=state.prefix.next_position[prefix_slots],
      last_hidden=state.prefix.last_hidden[prefix_slots],
    )
    cache = models.Cache(
      keys=_map_layers(take_aligned, state.cache.keys),
      values=_map_layers(take_aligned, state.cache.values),
      valid=valid,
      lengths=lengths,
      used=used,
    )
    return decode.State(
      prefix=prefix,
      cache=cache,
      hidden=take(state.hidden),
      keys=take(state.keys),
      num_sampled=take(state.num_sampled),
      limit=take(state.limit),
    )

  return jax.shard_map(
    repack_shard, mesh=mesh, in_specs=(specs, rows, rows, PartitionSpec()), out_specs=specs
  )(state, sources, active, used)


def _slot_index(x: Array, slots: Int[Array, " U"]) -> Array | tuple[slice, Array]:
  """Returns the index of slots in prompt keys `[B,K,P,H]`, or `[L,B,K,P,H]` if stacked."""
  return (slice(None), slots) if x.ndim == 5 else slots


def _map_layers(
  function: Callable[[Array], Array],
  x: Float[Array, "L B K G S H"] | tuple[Float[Array, "B K G S H"], ...],
) -> Float[Array, "L b K g S H"] | tuple[Float[Array, "b K g S H"], ...]:
  """Applies a function to each layer of a cache array without ever holding a second cache.

  Where the shape does not change, each layer is updated in place.
  """
  if isinstance(x, tuple):
    return _map_in_order(function, x)
  if jax.eval_shape(function, x[0]).shape != x.shape[1:]:
    return jax.lax.map(function, x)
  return jax.lax.fori_loop(0, len(x), lambda n, x: x.at[n].set(function(x[n])), x)


def _map_in_order(
  function: Callable[[Array], Array], layers: tuple[Float[Array, "B K G S H"], ...]
) -> tuple[Float[Array, "b K g S H"], ...]:
  """Applies a function to layers one after the other.

  The barriers keep the compiler from computing several layers at once, which would need the memory
  of a second cache.
  """
  done: list[Array] = []
  for layer in layers:
    if done:
      layer, done[-1] = jax.lax.optimization_barrier((layer, done[-1]))
    done.append(function(layer))
  return tuple(done)


def _align(
  valid: Bool[Array, "B G S"], lengths: Int[Array, "B G"], used: Int[Array, ""]
) -> tuple[Int[Array, "B G S"], Bool[Array, "B G S"]]:
  """Aligns the tokens of every sequence so that the last one lies directly before `used`.

  Returns:
    For each new cache position the old position that its token comes from, and whether the new
    position holds a token.
  """
  size = valid.shape[-1]
  position = jnp.arange(size)
  order = jnp.argsort(valid, axis=-1, stable=True)  # Real tokens last, in their order.
  source = jnp.take_along_axis(
    order, jnp.broadcast_to(jnp.minimum(position + size - used, size - 1), valid.shape), axis=-1
  )
  return source, (position >= used - lengths[..., None]) & (position < used)
