"""Device side of decoding: the state of all sequences, and the loop that samples their tokens.

Axes as in `scheduler`: N row shards, R rows of a shard's batch, Q sequences of a shard, B prompts
on a shard's device, J pages of a shard; NR stands for the rows of all shards, and so on. C steps of
a decode run, D width.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt32

from sejax import models
from sejax.parallel import layouts
from sejax.sampling import filters as filters_lib
from sejax.sampling import keys
from sejax.sampling.certainty import Certainty, certainty


class State(NamedTuple):
  """Device state of all sequences.

  Attributes:
    prefix: keys and values of the prompts on the device.
    pages: KV cache of given and sampled tokens.
    hidden: hidden state of each sequence's last token, from which the next one is sampled.
  """

  prefix: models.Prefix
  pages: models.Pages
  hidden: Float[Array, "NQ D"]


class Sequences(NamedTuple):
  """What does not change of the sequences of a call.

  Attributes:
    keys: random key data.
    limit: maximum number of tokens to sample.
  """

  keys: UInt32[Array, "NQ 2"]
  limit: Int[Array, " NQ"]


class Batch(NamedTuple):
  """The rows of a decode run.

  Attributes:
    sequence: sequence of each row, counted within its shard; one past the last for none.
    active: rows to decode.
    num_sampled: tokens sampled so far.
    table: what each row attends to.
    stop_at_fullest: decoding stops when the fullest shard has at most this many active rows.
    stop_at_total: decoding stops when all shards together have at most this many.
  """

  sequence: Int[Array, " NR"]
  active: Bool[Array, " NR"]
  num_sampled: Int[Array, " NR"]
  table: models.BatchTable
  stop_at_fullest: Int[Array, ""]
  stop_at_total: Int[Array, ""]


class SampledTokens(NamedTuple):
  """Tokens of one decode run, with their log-probs in nats.

  Only the first n entries of a sequence are valid, where n is the growth of its `num_sampled` in
  this run. For the two kinds of log-probs see `filters.Draw`. The certainty, `[NR,C]` as well, is
  that of the distribution over each token; None if it is not measured. So are the log-probs of W
  watched tokens in the place of each token, with temperature and banned ids.
  """

  tokens: Int[Array, "NR C"]
  logp: Float[Array, "NR C"]
  behaviour_logp: Float[Array, "NR C"]
  certainty: Certainty | None = None
  watched_logp: Float[Array, "NR C W"] | None = None


class Measured(NamedTuple):
  """What is measured on logits beside drawing from them; static under jit.

  Attributes:
    certainty_temperature: of self-certainty; None measures no certainty.
    watched: tokens whose log-probs are returned.
  """

  certainty_temperature: float | None = None
  watched: tuple[int, ...] = ()


class Status(NamedTuple):
  """Progress of the rows after a decode run, replicated so that every process can read it.

  Attributes:
    active: rows that have neither ended nor reached their limit.
    num_sampled: tokens sampled so far.
    steps: steps of this decode run.
  """

  active: Bool[Array, " NR"]
  num_sampled: Int[Array, " NR"]
  steps: Int[Array, ""]


def specs(model: models.Model, mesh: Mesh) -> State:
  """Returns the partition specs of a state: rows over the row axes, KV heads over `tensor`."""
  prefix, pages, _ = model.state_specs(mesh)
  return State(prefix, pages, PartitionSpec(layouts.row_axes(mesh)))


def decode_tokens(
  params: models.Params,
  hidden: Float[Array, "NQ D"],
  prefix: models.Prefix,
  pages: models.Pages,
  sequences: Sequences,
  batch: Batch,
  *,
  model: models.Model,
  mesh: Mesh,
  filters: filters_lib.Filters,
  eos_ids: tuple[int, ...],
  steps: int,
  measured: Measured,
  forced: tuple[int, ...] = (),
) -> tuple[Float[Array, "NQ D"], models.Recent, SampledTokens, Status]:
  """Decodes up to `steps` tokens for every active row.

  Returns early when so few rows are active that the host should make the batch smaller or admit
  waiting sequences.

  Args:
    params: parameter tree in the decoding layout and form.
    hidden: hidden state of each sequence's last token; that of the rows is updated.
    prefix: prompts; only read, as are the pages.
    mesh: mesh with any of the axes data, fsdp and tensor.
    eos_ids: tokens that end a sequence; they belong to it.
    steps: maximum number of decode steps, C.
    measured: what else is returned.
    forced: tokens that every sequence begins with, whatever is drawn.

  Returns:
    The hidden states, the keys and values of the new tokens, the sampled tokens and the status for
    the host.
  """
  rows, shards = len(batch.sequence), layouts.row_shards(mesh)
  eos = jnp.array(eos_ids, jnp.int32)
  draw = _sharded_draw(filters, measured, mesh, rows)
  # The draw splits rows over `tensor`. Without constraints the compiler would split them so in
  # every layer, and move queries and keys between devices.
  by_row = NamedSharding(mesh, PartitionSpec(layouts.row_axes(mesh)))
  recent_shardings = jax.tree.map(
    lambda spec: NamedSharding(mesh, spec), model.state_specs(mesh)[2]
  )
  logits_sharding = NamedSharding(
    mesh, PartitionSpec(layouts.row_axes(mesh), layouts.tensor_axis(mesh, model.vocab_size))
  )

  def should_continue(carry):
    step, active, *_ = carry
    counts = active.reshape(shards, -1).sum(-1)
    has_work = (counts.max() > batch.stop_at_fullest) & (counts.sum() > batch.stop_at_total)
    return (step < steps) & has_work

  def decode_one(carry):
    step, active, num_sampled, row_hidden, recent, sampled = carry
    # Logits are computed where the head's weights lie. Otherwise the compiler would move the
    # weights, which are much larger, to the rows.
    logits = jax.lax.with_sharding_constraint(model.logits(params, row_hidden), logits_sharding)
    drawn = draw(logits, row_keys, num_sampled)
    drawn = jax.lax.with_sharding_constraint(drawn, by_row)
    if forced:
      begins = jnp.array(forced)[jnp.minimum(num_sampled, len(forced) - 1)]
      tokens = jnp.where(num_sampled < len(forced), begins, drawn.tokens)
      drawn = drawn._replace(tokens=tokens)
    sampled = jax.tree.map(lambda run, new: run.at[step].set(new), sampled, drawn)
    num_sampled = num_sampled + active
    is_eos = (drawn.tokens[..., None] == eos).any(-1)
    active = active & (num_sampled < limit) & ~is_eos
    active = jax.lax.with_sharding_constraint(active, by_row)
    row_hidden, recent = model.decode(
      params,
      drawn.tokens,
      prefix=prefix,
      pages=pages,
      recent=recent,
      table=batch.table,
      shards=shards,
    )
    row_hidden = jax.lax.with_sharding_constraint(row_hidden, by_row)
    recent = jax.lax.with_sharding_constraint(recent, recent_shardings)
    return step + 1, active, num_sampled, row_hidden, recent, sampled

  row_hidden, row_keys, limit = (
    take_rows(mesh, x, batch.sequence) for x in (hidden, sequences.keys, sequences.limit)
  )
  none = jnp.zeros((steps, rows))
  sampled = SampledTokens(
    tokens=none.astype(jnp.int32),
    logp=none,
    behaviour_logp=none,
    certainty=None if measured.certainty_temperature is None else Certainty(none, none),
    watched_logp=jnp.zeros((steps, rows, len(measured.watched))) if measured.watched else None,
  )
  recent = model.empty_recent(rows, steps, hidden.dtype)
  recent = jax.lax.with_sharding_constraint(recent, recent_shardings)
  active = batch.active & (batch.num_sampled < limit)
  taken, active, num_sampled, row_hidden, recent, sampled = jax.lax.while_loop(
    should_continue,
    decode_one,
    (jnp.int32(0), active, batch.num_sampled, row_hidden, recent, sampled),
  )
  put_rows = _in_shards(mesh, lambda x, index, new: x.at[index].set(new, mode="drop"))
  hidden = put_rows(hidden, batch.sequence, row_hidden)
  sampled = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), sampled)
  return hidden, recent, sampled, Status(active=active, num_sampled=num_sampled, steps=taken)


def take_rows(
  mesh: Mesh, x: Shaped[Array, "Nm ..."], index: Int[Array, " Nu"]
) -> Shaped[Array, "Nu ..."]:
  """Takes rows whose indices count within each row shard; the last row for any past it."""
  return _in_shards(mesh, lambda x, index: x.at[index].get(mode="clip"))(x, index)


def _in_shards(mesh: Mesh, function: Callable[..., Array]) -> Callable[..., Array]:
  """Returns a function of arrays that are sharded by rows, applied to each row shard by itself."""
  rows = PartitionSpec(layouts.row_axes(mesh))
  return jax.shard_map(function, mesh=mesh, in_specs=rows, out_specs=rows)


def _sharded_draw(
  filters: filters_lib.Filters, measured: Measured, mesh: Mesh, size: int
) -> Callable[..., SampledTokens]:
  """Returns a function that draws the next token of every row, and measures: arrays `[NR,...]`.

  Each device filters whole rows: they are sharded over `tensor` too, the vocabulary is not.

  Args:
    size: rows of all shards, NR.
  """

  def draw(logits, key, index):
    drawn = filters_lib.draw(filters, logits, keys.token_bits(key, index))
    found, watched_logp = None, None
    if measured.certainty_temperature is not None:
      found = certainty(filters, logits, measured.certainty_temperature)
    if measured.watched:
      logp = jax.nn.log_softmax(filters_lib.scale(filters, logits), axis=-1)
      watched_logp = logp[..., jnp.array(measured.watched)]
    return SampledTokens(*drawn, found, watched_logp)

  axes = layouts.row_axes(mesh)
  tensor = layouts.tensor_axis(mesh, size // layouts.row_shards(mesh))
  rows = PartitionSpec((*axes, tensor) if tensor else axes)
  return jax.shard_map(draw, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)
