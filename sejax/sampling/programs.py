"""The programs of a sampler: which functions it runs on devices, and how each is compiled.

The sampler calls them; planning lowers them from shapes alone, for hardware that is absent.

Axes as in `cache`.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import DTypeLike

from sejax import models
from sejax.parallel import layouts
from sejax.parallel.programs import Program, ProgramCall, rounded_up
from sejax.sampling import cache, decode, encode, keys, scheduler
from sejax.sampling.certainty import Certainty
from sejax.sampling.request import READ_TOKENS, BatchPlan, Options

# Sizes between each two powers of two that programs are compiled for. Pages are most of what a
# decode step reads, given tokens are read once.
ROW_STEPS, PAGE_STEPS, GIVEN_STEPS = 4, 8, 4


class DecodeSize(NamedTuple):
  """Sizes that a decode program is compiled for, of a row shard.

  Attributes:
    rows: sequences that are decoded.
    pages: pages of the KV cache.
    prompts: prompts on the device.
    members: sequences of a prompt.
  """

  rows: int
  pages: int
  prompts: int
  members: int


class SamplerPrograms:
  """Declares each program of a sampler once, and the sizes that it is compiled for.

  Attributes:
    model: with the row sharding of the mesh.
    options: how to sample.
    mesh: mesh with any of the axes data, fsdp and tensor.
    dtype: precision of weights and KV cache.
    specs: partition specs of the state.
  """

  def __init__(self, model: models.Model, options: Options, mesh: Mesh, dtype: DTypeLike):
    """Declares the programs; nothing is compiled.

    Args:
      model: with the row sharding of the mesh.
      dtype: precision of weights and KV cache.
    """
    self.model, self.options, self.mesh, self.dtype = model, options, mesh, jnp.dtype(dtype)
    rows = PartitionSpec(layouts.row_axes(mesh))
    self.specs = decode.specs(model, mesh)
    prefix, pages, hidden = self._shardings(self.specs)
    recent = self._shardings(model.state_specs(mesh)[2])
    measured = decode.Measured(options.certainty_temperature, options.watched)
    sampled = decode.SampledTokens(
      rows,
      rows,
      rows,
      certainty=None if options.certainty_temperature is None else Certainty(rows, rows),
      watched_logp=rows if options.watched else None,
    )
    outputs = sampled, decode.Status(*[PartitionSpec()] * 3)
    common = {"model": model, "mesh": mesh}
    self.encode = Program.of(
      encode.encode_rows,
      out_shardings=NamedSharding(mesh, rows),
      model=model,
      shards=layouts.row_shards(mesh),
      dtype=self.dtype,
    )
    self.sequence_keys = Program.of(keys.sequence_keys)
    self.read_prompts = Program.of(
      cache.read_prompts, donate=(1, 2), out_shardings=(prefix, hidden), **common
    )
    self.read_given = Program.of(
      cache.read_given, donate=(1, 2), out_shardings=(pages, hidden), **common
    )
    self.decode = Program.of(
      decode.decode_tokens,
      donate=(1,),
      out_shardings=(hidden, recent, *self._shardings(outputs)),
      filters=options.filters,
      eos_ids=options.eos_ids,
      steps=options.run_steps,
      measured=measured,
      forced=options.forced,
      **common,
    )

  def empty_state(self, *, prompts: int, prompt_length: int, pages: int, sequences: int) -> Program:
    """Returns the program that allocates a state; see `cache.empty_state`."""
    return Program.of(
      cache.empty_state,
      out_shardings=self._shardings(self.specs),
      model=self.model,
      prompts=prompts,
      prompt_length=prompt_length,
      pages=pages,
      page_size=self.options.page_size,
      sequences=sequences,
      dtype=self.dtype,
    )

  def unstack(self, layers: models.Params) -> Program:
    """Returns the program that splits stacked layers into a list.

    Args:
      layers: arrays or their shapes.
    """

    def sharding(x):
      spec = getattr(x.sharding, "spec", PartitionSpec())  # none on a single device
      return NamedSharding(self.mesh, PartitionSpec(*spec[1:]))

    count = jax.tree.leaves(layers)[0].shape[0]
    one = jax.tree.map(sharding, layers)
    return Program.of(models.unstack_layers, out_shardings=[one] * count)

  def write(self, spec: PartitionSpec) -> Program:
    """Returns the program of `cache.write`; its pages are donated.

    Args:
      spec: partition spec of the array.
    """
    out = NamedSharding(self.mesh, spec)
    return Program.of(cache.write, donate=(0,), out_shardings=out, mesh=self.mesh, spec=spec)

  def take(self, spec: PartitionSpec, ndim: int) -> Program:
    """Returns the program of `cache.take`.

    Args:
      spec: partition spec of the array.
      ndim: its axes: 5 of keys or values whose layers are stacked.
    """
    return Program.of(
      cache.take,
      out_shardings=NamedSharding(self.mesh, spec),
      is_stacked=ndim == 5,
      mesh=self.mesh,
      spec=spec,
    )

  def rows(self, count: int, full: int) -> int:
    """Returns the rows of a shard's batch that has at least `count`, at most `full`."""
    if not self.options.pack:
      return full
    # All devices of a tensor group draw for as many rows.
    multiple = self.mesh.shape.get("tensor", 1)
    rows = rounded_up(max(count, full // 64, 1), ROW_STEPS)
    return min(-(-rows // multiple) * multiple, full)

  def rows_below(self, rows: int, full: int) -> int:
    """Returns the rows of the next smaller batch; 0 if there is none."""
    return next((n for n in range(rows - 1, 0, -1) if self.rows(n, full) < rows), 0)

  def pages(self, count: int, limits: scheduler.Limits) -> int:
    """Returns the pages of a shard that has at least `count`, at most `limits.pages`."""
    pages = rounded_up(max(count, limits.rows // 8, 1), PAGE_STEPS)
    return pages if limits.pages is None else min(pages, limits.pages)

  def prompts(self, count: int, places: int) -> int:
    """Returns the places of a shard's prompts: `places`, halved as long as `count` prompts fit."""
    while places > 1 and count <= places // 2:
      places //= 2
    return places

  def members(self, count: int) -> int:
    """Returns the sequences of a prompt that there is room for, at least `count`."""
    return min(rounded_up(count, 1), self.options.members)

  def given(self, tokens: int) -> tuple[int, int]:
    """Returns how given tokens are read together: rows of a shard, and tokens with padding.

    Args:
      tokens: tokens of the longest row.
    """
    size = self.options.page_size
    length = size * rounded_up(-(-tokens // size), GIVEN_STEPS)
    return 1 << (max(READ_TOKENS // length, 1).bit_length() - 1), length

  def calls(
    self,
    params: models.Params,
    features: models.Features | None,
    *,
    images: models.Images | None,
    prompts: int,
    prompt_length: int,
    given_length: int,
  ) -> Iterator[ProgramCall]:
    """Yields the calls of sampling, in the order of a step and in its largest shapes.

    All sequences are decoded at once if options allow, and the KV cache is as large as it may be:
    where `options.cache_tokens` is None, large enough for all to run to their limits. The same
    calls are made for smaller batches and for fewer pages, too.

    Args:
      params: shapes of the weights as they are passed to the sampler, in any layout and precision.
      features: shapes of the prompts' features, `encode`'s; None without images.
      images: shapes of the images from which they are computed; None where they are there already.
      prompts: prompts over all processes, B.
      prompt_length: prompt tokens with padding, P.
      given_length: given tokens with padding, T; 0 without any.
    """
    options, mesh = self.options, self.mesh
    members, shards = options.members, layouts.row_shards(mesh)
    plan = BatchPlan.of(
      options,
      prompts=prompts // shards,
      shards=shards,
      prompt_length=prompt_length,
      given_length=given_length,
    )
    limits = plan.limits
    rows = functools.partial(layouts.row_shape, mesh)
    replicated = functools.partial(layouts.replicated_shape, mesh)
    processes = len({device.process_index for device in mesh.devices.flat})

    if images is not None:
      tower = self.model.vision_params(params)
      yield ProgramCall("vision", self.encode, (tower, images), (params,))
    alive = (params, features)
    decoding_params, change = layouts.plan_placement(
      params, mesh, self.model.decode_layout, self.dtype
    )
    if change:
      yield change._replace(alive=alive)
    if self.model.layered_cache:
      layers = self.model.layers(decoding_params)
      unstack = self.unstack(layers)
      yield ProgramCall("unstack", unstack, (layers,), (*alive, decoding_params))
      decoding_params = self.model.with_layers(decoding_params, unstack.eval_shape(layers))
    alive = (*alive, decoding_params)
    yield ProgramCall(
      "sequence keys",
      self.sequence_keys,
      (
        *[replicated((), jnp.uint32)] * 3,
        replicated((prompts // processes, 2), jnp.uint32),
        *[replicated((members,), jnp.int32)] * 2,
      ),
      alive,
    )

    waiting = cache.PromptRows(
      ids=rows((prompts, prompt_length), jnp.int32),
      lengths=rows((prompts,), jnp.int32),
      positions=rows((prompts, 3, prompt_length), jnp.int32),
      features=features,
    )
    sequences = decode.Sequences(
      keys=rows((prompts * members, 2), jnp.uint32), limit=rows((prompts * members,), jnp.int32)
    )
    alive = (*alive, waiting, sequences)
    width = -(-(given_length + options.max_new_tokens) // options.page_size)
    pages = limits.pages or self.pages(limits.rows * width, limits)
    allocate = self.empty_state(
      prompts=shards * limits.prompts,
      prompt_length=prompt_length,
      pages=shards * pages,
      sequences=prompts * members,
    )
    yield ProgramCall("empty state", allocate, (), alive)

    state = allocate.eval_shape()
    alive = (*alive, state)
    index = rows((shards * plan.read_prompts,), jnp.int32)
    args = (decoding_params, state.prefix, state.hidden, waiting, index, index)
    yield ProgramCall("prefill", self.read_prompts, args, alive)
    if given_length:
      count, length = self.given(given_length)
      given = cache.GivenRows(
        tokens=rows((shards * count, length), jnp.int32),
        lengths=rows((shards * count,), jnp.int32),
        sequence=rows((shards * count,), jnp.int32),
        place=rows((shards * count,), jnp.int32),
        pages=rows((shards * count, length // options.page_size), jnp.int32),
      )
      args = (decoding_params, state.pages, state.hidden, state.prefix, given)
      yield ProgramCall("given tokens", self.read_given, args, alive)

    size = DecodeSize(limits.rows, pages, limits.prompts, members)
    args = self.decode_args(decoding_params, state, sequences, size)
    yield ProgramCall("decode, a token", self.decode, args, alive, trips=options.run_steps)
    _, recent, _, _ = self.decode.eval_shape(*args)
    by_row = rows((shards * limits.rows,), jnp.int32)
    targets = rows((shards * limits.rows, self.written_pages), jnp.int32)
    x, new = (jax.tree.leaves(kind)[0] for kind in (state.pages, recent))
    spec = x.sharding.spec
    args = (x, new, replicated((), jnp.int32), targets, by_row)
    yield ProgramCall("write", self.write(spec), args, (alive, recent))
    args = (x, rows((shards * pages,), jnp.int32))
    yield ProgramCall("move pages", self.take(spec, x.ndim), args, (alive, recent))

  def decode_args(
    self, params: models.Params, state: decode.State, sequences: decode.Sequences, size: DecodeSize
  ) -> tuple[Any, ...]:
    """Returns the arguments of `decode`, those that have a size as shapes.

    Args:
      params: in the form for decoding.
      state: of this size.
      sequences: of all prompts.
    """
    shards, rows = layouts.row_shards(self.mesh), functools.partial(layouts.row_shape, self.mesh)
    by_row = rows((shards * size.rows,), jnp.int32)
    by_page = rows((shards * size.pages,), jnp.int32)
    scalar = layouts.replicated_shape(self.mesh, (), jnp.int32)
    table = models.BatchTable(
      prompt=by_row,
      member=by_row,
      row_of_member=rows((shards * size.prompts, size.members), jnp.int32),
      lengths=by_row,
      row_of_page=by_page,
      tokens_in_page=by_page,
    )
    batch = decode.Batch(
      sequence=by_row,
      active=rows((shards * size.rows,), jnp.bool_),
      num_sampled=by_row,
      table=table,
      stop_at_fullest=scalar,
      stop_at_total=scalar,
    )
    return params, state.hidden, state.prefix, state.pages, sequences, batch

  @property
  def written_pages(self) -> int:
    """Pages of a row that the tokens of a decode run may lie in."""
    return -(-(self.options.run_steps - 1) // self.options.page_size) + 1

  def _shardings(self, specs: Any) -> Any:
    """Converts partition specs to shardings over the mesh."""
    return jax.tree.map(lambda spec: NamedSharding(self.mesh, spec), specs)
