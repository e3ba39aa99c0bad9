"""Decoding on the device: the state of living trajectories, and a run of tokens for all of them.

Axes: B groups and G members in the state now, which packing changes (a group may then be there in
several parts); C tokens of a run, S cache slots, P prompt tokens. Everything of a group lies in one
row shard.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, UInt32

from sejax import models
from sejax.parallel import layouts
from sejax.sampling import filters, keys, table


class State(NamedTuple):
  """Trajectories in the making.

  Attributes:
    prefix: of each group's prompt.
    cache: of each trajectory's tokens, given and drawn. Living ones end at the same slot.
    hidden: of each trajectory's last token; the next one is drawn from it.
    keys: of each trajectory's random bits.
    count: tokens drawn so far.
    limit: tokens to draw at most.
  """

  prefix: models.Prefix
  cache: models.Cache
  hidden: Float[Array, "B G D"]
  keys: UInt32[Array, "B G 2"]
  count: Int[Array, "B G"]
  limit: Int[Array, "B G"]


class Drawn(NamedTuple):
  """Tokens of one run. A trajectory drew as many as its `count` grew by."""

  tokens: Int[Array, "B G C"]
  logp: Float[Array, "B G C"]
  behaviour_logp: Float[Array, "B G C"]


class Report(NamedTuple):
  """What the host needs to know of all trajectories, replicated.

  Attributes:
    alive: neither ended nor at its limit.
    count: tokens drawn so far.
    lengths: tokens in the cache.
    steps: tokens of this run.
  """

  alive: Bool[Array, "B G"]
  count: Int[Array, "B G"]
  lengths: Int[Array, "B G"]
  steps: Int[Array, ""]


def specs(model: models.Model, mesh: Mesh) -> State:
  """Returns the layout of the state: groups over the row axes, key-value heads over `tensor`."""
  rows = PartitionSpec(layouts.row_axes(mesh))
  prefix, cache = model.state_specs(mesh)
  return State(
    prefix=prefix,
    cache=cache,
    hidden=rows,
    keys=rows,
    count=rows,
    limit=rows,
  )


def run(
  params: models.Params,
  state: State,
  alive: Bool[Array, "B G"],
  few: Int[Array, " n"],
  *,
  model: models.Model,
  mesh: Mesh,
  settings: filters.Filters,
  eos_ids: tuple[int, ...],
  steps: int,
  filled: int,
) -> tuple[State, Drawn, Report]:
  """Draws up to `steps` tokens for every living trajectory.

  It ends early when no slot is free, or when so few are left that a smaller state would hold them.

  Args:
    params: the parameter tree, laid out for decoding.
    state: where the trajectories are.
    alive: those that go on.
    few: for each of `table.sizes(G)`: end when the living of no row shard take more places of so
      many members; negative, if not to be asked.
    mesh: with axes data, fsdp and tensor, or some of them.
    settings: filters of the distribution.
    eos_ids: tokens that end a trajectory; they belong to it.
    steps: C.
    filled: cache slots attended to; at least those used at the end of the run.

  Returns:
    The state after the run, what was drawn, and the report.
  """
  slots = state.cache.valid.shape[-1]
  eos = jnp.array(eos_ids, jnp.int32)
  params = model.decoding_params(params)
  shards = layouts.row_shards(mesh)
  members = np.array(table.sizes(alive.shape[1]))

  # Each row is filtered within one device: members, not the vocabulary, are split over `tensor`.
  rows = PartitionSpec(layouts.row_axes(mesh), layouts.tensor_axis(mesh, alive.shape[1]))
  draw_rows = jax.shard_map(
    lambda logits, key, count: filters.draw(settings, logits, keys.token_bits(key, count)),
    mesh=mesh,
    in_specs=rows,
    out_specs=rows,
    check_vma=False,
  )
  logits_sharding = NamedSharding(
    mesh, PartitionSpec(layouts.row_axes(mesh), None, layouts.tensor_axis(mesh, model.vocab_size))
  )

  def go_on(carry):
    step, state, alive, _ = carry
    places = -(-alive.sum(-1, keepdims=True) // members)
    most = places.reshape(shards, -1, len(members)).sum(1).max(0)
    return (step < steps) & (state.cache.used < slots) & (most > few).all()

  def draw_one(carry):
    step, state, alive, drawn = carry
    # Where the head's weights lie; else they, not the logits, would be moved for the draw.
    logits = jax.lax.with_sharding_constraint(model.logits(params, state.hidden), logits_sharding)
    draw = draw_rows(logits, state.keys, state.count)
    drawn = Drawn(*(x.at[step].set(new) for x, new in zip(drawn, draw, strict=True)))
    count = state.count + alive
    alive = alive & (count < state.limit) & ~(draw.token[..., None] == eos).any(-1)
    hidden, cache = model.extend(
      params,
      state.prefix,
      draw.token[..., None],
      state.cache,
      alive.astype(jnp.int32),
      filled,
    )
    state = state._replace(cache=cache, hidden=hidden[:, :, 0], count=count)
    return step + 1, state, alive, drawn

  shape = (steps, *alive.shape)
  drawn = Drawn(jnp.zeros(shape, jnp.int32), jnp.zeros(shape), jnp.zeros(shape))
  alive = alive & (state.count < state.limit)
  taken, state, alive, drawn = jax.lax.while_loop(
    go_on, draw_one, (jnp.int32(0), state, alive, drawn)
  )
  drawn = jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), drawn)
  return state, drawn, Report(alive, state.count, state.cache.lengths, taken)
