"""Device side of decoding: the state of all sequences, and the loop that samples their tokens.

Axes: B slots and G sequences of a slot in the current device batch, which repacking changes; C
steps of a decode run, S KV cache positions, P prompt tokens, D width. A slot's prefix and sequences
lie on one row shard.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, UInt32

from sejax import models
from sejax.parallel import layouts
from sejax.sampling import filters as filters_lib
from sejax.sampling import keys, scheduler


class State(NamedTuple):
  """Device state of all sequences in the batch.

  Attributes:
    prefix: keys and values of each slot's prompt.
    cache: KV cache of each sequence's given and sampled tokens. The tokens of active sequences end
      at the same cache position.
    hidden: hidden state of each sequence's last token, from which the next one is sampled.
    keys: random key data of each sequence.
    num_sampled: tokens sampled so far.
    limit: maximum number of tokens to sample.
  """

  prefix: models.Prefix
  cache: models.Cache
  hidden: Float[Array, "B G D"]
  keys: UInt32[Array, "B G 2"]
  num_sampled: Int[Array, "B G"]
  limit: Int[Array, "B G"]


class SampledTokens(NamedTuple):
  """Tokens of one decode run, with their log-probs in nats.

  Only the first n entries of a sequence are valid, where n is the growth of its `num_sampled` in
  this run. For the two kinds of log-probs see `filters.Draw`.
  """

  tokens: Int[Array, "B G C"]
  logp: Float[Array, "B G C"]
  behaviour_logp: Float[Array, "B G C"]


class Status(NamedTuple):
  """Progress of all sequences after a decode run, replicated so that every process can read it.

  Attributes:
    active: sequences that have neither ended nor reached their limit.
    num_sampled: tokens sampled so far.
    num_cached: tokens in the KV cache.
    steps: steps of this decode run.
  """

  active: Bool[Array, "B G"]
  num_sampled: Int[Array, "B G"]
  num_cached: Int[Array, "B G"]
  steps: Int[Array, ""]


def specs(model: models.Model, mesh: Mesh) -> State:
  """Returns the partition specs of a state: slots over the row axes, KV heads over `tensor`."""
  rows = PartitionSpec(layouts.row_axes(mesh))
  prefix, cache = model.state_specs(mesh)
  return State(
    prefix=prefix,
    cache=cache,
    hidden=rows,
    keys=rows,
    num_sampled=rows,
    limit=rows,
  )


def decode_tokens(
  params: models.Params,
  state: State,
  active: Bool[Array, "B G"],
  repack_thresholds: Int[Array, " n"],
  *,
  model: models.Model,
  mesh: Mesh,
  filters: filters_lib.Filters,
  eos_ids: tuple[int, ...],
  steps: int,
  attended_length: int,
) -> tuple[State, SampledTokens, Status]:
  """Decodes up to `steps` tokens for every active sequence.

  Returns early when the cache is full, or when so few sequences are active that the host should
  repack them into a smaller batch or admit waiting prompts.

  Args:
    params: parameter tree in the decoding layout.
    active: sequences to decode; a sequence at its limit is not decoded.
    repack_thresholds: for each slot size in `scheduler.sizes(G)`, the number of slots of a row
      shard at or below which decoding stops; -1 disables the check.
    mesh: mesh with any of the axes data, fsdp and tensor.
    eos_ids: tokens that end a sequence; they belong to it.
    steps: maximum number of decode steps, C.
    attended_length: leading cache positions that are attended to; must cover all positions in use
      at the end of the decode run.

  Returns:
    The new state, the sampled tokens and the status for the host.
  """
  cache_length = state.cache.valid.shape[-1]
  eos = jnp.array(eos_ids, jnp.int32)
  params = model.decoding_params(params)
  shards = layouts.row_shards(mesh)
  member_sizes = np.array(scheduler.sizes(active.shape[1]))

  draw = _sharded_draw(filters, mesh, members=active.shape[1])
  # The draw splits members over `tensor`. Without constraints the compiler would split them so in
  # every layer, and move queries and keys between devices.
  state_shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs(model, mesh))
  row_sharding = state_shardings.num_sampled
  logits_sharding = NamedSharding(
    mesh, PartitionSpec(layouts.row_axes(mesh), None, layouts.tensor_axis(mesh, model.vocab_size))
  )

  def should_continue(carry):
    step, state, active, _ = carry
    slots_needed = -(-active.sum(-1, keepdims=True) // member_sizes)
    in_fullest_shard = slots_needed.reshape(shards, -1, len(member_sizes)).sum(1).max(0)
    has_work = (in_fullest_shard > repack_thresholds).all()
    return (step < steps) & (state.cache.used < cache_length) & has_work

  def decode_one(carry):
    step, state, active, sampled = carry
    # Logits are computed where the head's weights lie. Otherwise the compiler would move the
    # weights, which are much larger, to the rows.
    logits = jax.lax.with_sharding_constraint(model.logits(params, state.hidden), logits_sharding)
    drawn = draw(logits, state.keys, state.num_sampled)
    drawn = jax.lax.with_sharding_constraint(drawn, row_sharding)
    sampled = SampledTokens(
      tokens=sampled.tokens.at[step].set(drawn.token),
      logp=sampled.logp.at[step].set(drawn.logp),
      behaviour_logp=sampled.behaviour_logp.at[step].set(drawn.behaviour_logp),
    )
    num_sampled = state.num_sampled + active
    is_eos = (drawn.token[..., None] == eos).any(-1)
    active = active & (num_sampled < state.limit) & ~is_eos
    active = jax.lax.with_sharding_constraint(active, row_sharding)
    hidden, cache = model.extend(
      params,
      state.prefix,
      drawn.token[..., None],
      cache=state.cache,
      lengths=active.astype(jnp.int32),
      attended_length=attended_length,
    )
    state = state._replace(cache=cache, hidden=hidden[:, :, 0], num_sampled=num_sampled)
    state = jax.lax.with_sharding_constraint(state, state_shardings)
    return step + 1, state, active, sampled

  shape = (steps, *active.shape)
  sampled = SampledTokens(
    tokens=jnp.zeros(shape, jnp.int32), logp=jnp.zeros(shape), behaviour_logp=jnp.zeros(shape)
  )
  active = active & (state.num_sampled < state.limit)
  taken, state, active, sampled = jax.lax.while_loop(
    should_continue, decode_one, (jnp.int32(0), state, active, sampled)
  )
  sampled = jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), sampled)
  status = Status(
    active=active, num_sampled=state.num_sampled, num_cached=state.cache.lengths, steps=taken
  )
  return state, sampled, status


def _sharded_draw(
  filters: filters_lib.Filters, mesh: Mesh, members: int
) -> Callable[..., filters_lib.Draw]:
  """Returns a function that draws the next token of every sequence.

  Each device filters whole rows: sequences, not the vocabulary, are sharded over `tensor`.

  Args:
    members: sequences of a slot, G.
  """
  rows = PartitionSpec(layouts.row_axes(mesh), layouts.tensor_axis(mesh, members))
  return jax.shard_map(
    lambda logits, key, index: filters_lib.draw(filters, logits, keys.token_bits(key, index)),
    mesh=mesh,
    in_specs=rows,
    out_specs=rows,
    check_vma=False,
  )
