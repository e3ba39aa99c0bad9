"""The programs of a sampler: which functions it runs on devices, and how each is compiled.

The sampler calls them; planning lowers them from shapes alone, for hardware that is absent.

Axes: B prompts over all processes, G sequences of a group, P prompt tokens, T given tokens.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import DTypeLike

from sejax import models
from sejax.parallel import layouts
from sejax.parallel.programs import Program, ProgramCall
from sejax.sampling import decode, encode, keys, packing, scheduler
from sejax.sampling.request import BatchPlan, Options


class SamplerPrograms:
  """Declares each program of a sampler once."""

  def __init__(self, model: models.Model, options: Options, mesh: Mesh, dtype: DTypeLike):
    """Declares the programs; nothing is compiled.

    Args:
      model: with the row sharding of the mesh.
      dtype: precision of weights and KV cache.
    """
    self._model, self._options, self._mesh, self._dtype = model, options, mesh, jnp.dtype(dtype)
    specs = decode.specs(model, mesh)
    state = self._shardings(specs)
    self.encode = Program.of(
      encode.encode_rows,
      out_shardings=NamedSharding(mesh, PartitionSpec(layouts.row_axes(mesh))),
      model=model,
      shards=layouts.row_shards(mesh),
      dtype=self._dtype,
    )
    self.sequence_keys = Program.of(keys.sequence_keys)
    self.insert = Program.of(
      packing.insert, donate=(0,), out_shardings=state, mesh=mesh, specs=specs
    )
    self._specs, self._state = specs, state

  def empty_state(self, *, slots: int, prompt_length: int, cache_length: int) -> Program:
    """Returns the program that allocates a state; see `packing.empty_state`."""
    return Program.of(
      packing.empty_state,
      out_shardings=self._state,
      model=self._model,
      slots=slots,
      members=self._options.members,
      prompt_length=prompt_length,
      cache_length=cache_length,
      dtype=self._dtype,
    )

  def prefill(self, *, given: bool) -> Program:
    """Returns the program of `packing.prefill`; its groups are sharded as the decode state is.

    Args:
      given: whether sequences start with given tokens.
    """
    specs = packing.group_specs(self._specs, given=given)
    return Program.of(
      packing.prefill, out_shardings=self._shardings(specs), model=self._model, mesh=self._mesh
    )

  def repack(self, *, in_place: bool) -> Program:
    """Returns the program of `packing.repack`.

    Args:
      in_place: whether the batch keeps its shape, so that the state is donated.
    """
    return Program.of(
      packing.repack,
      donate=(0,) if in_place else (),
      out_shardings=self._state,
      mesh=self._mesh,
      specs=self._specs,
    )

  def decode(self, *, attended_length: int) -> Program:
    """Returns the program of `decode.decode_tokens`; its state is donated."""
    options = self._options
    return Program.of(
      decode.decode_tokens,
      donate=(1,),
      out_shardings=self._shardings((self._specs, self._specs.num_sampled, PartitionSpec())),
      model=self._model,
      mesh=self._mesh,
      filters=options.filters,
      eos_ids=options.eos_ids,
      steps=options.decode_steps,
      attended_length=attended_length,
    )

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

    Every prompt is as long as it may be, and so is every sequence. The same calls are made for
    smaller batches and for the used part of the cache, too.

    Args:
      params: shapes of the weights as they are passed to the sampler, in any layout and precision.
      features: shapes of the prompts' features, `encode`'s; None without images.
      images: shapes of the images from which they are computed; None where they are there already.
      prompts: prompts over all processes, B.
      prompt_length: prompt tokens with padding, P.
      given_length: given tokens with padding, T; 0 without any.
    """
    options, mesh = self._options, self._mesh
    members, shards = options.members, layouts.row_shards(mesh)
    plan = BatchPlan.of(options, prompts // shards, shards, given_length)
    rows = functools.partial(layouts.row_shape, mesh)
    replicated = functools.partial(layouts.replicated_shape, mesh)
    processes = len({device.process_index for device in mesh.devices.flat})

    if images is not None:
      tower = self._model.vision_params(params)
      yield ProgramCall("vision", self.encode, (tower, images), (params,))
    alive = (params, features)
    decoding_params, change = layouts.plan_placement(
      params, mesh, self._model.decode_layout, self._dtype
    )
    if change:
      yield change._replace(alive=alive)
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

    waiting = packing.PromptRows(
      ids=rows((prompts, prompt_length), jnp.int32),
      lengths=rows((prompts,), jnp.int32),
      positions=rows((prompts, 3, prompt_length), jnp.int32),
      features=features,
      given=rows((prompts, members, given_length), jnp.int32) if given_length else None,
      given_lengths=rows((prompts, members), jnp.int32) if given_length else None,
      keys=rows((prompts, members, 2), jnp.uint32),
      limit=rows((prompts, members), jnp.int32),
    )
    alive = (*alive, waiting)
    allocate = self.empty_state(
      slots=shards * plan.capacity, prompt_length=prompt_length, cache_length=plan.cache_length
    )
    yield ProgramCall("empty state", allocate, (), alive)

    state = allocate.eval_shape()
    alive = (*alive, state)
    index = rows((shards * plan.admit_size,), jnp.int32)
    prefill = self.prefill(given=given_length > 0)
    yield ProgramCall("prefill", prefill, (decoding_params, waiting, index), alive)
    groups = prefill.eval_shape(decoding_params, waiting, index)
    yield ProgramCall("insert", self.insert, (state, groups, index), alive)

    active = rows(state.num_sampled.shape, jnp.bool_)
    sources = rows(state.num_sampled.shape, jnp.int32)
    repack = self.repack(in_place=True)
    used = replicated((), jnp.int32)
    yield ProgramCall("pack", repack, (state, sources, active, used), alive)
    if options.pack and (smaller := _largest_smaller_shape(plan.capacity, members)):
      # Nothing is donated: both states are there.
      slots = (shards * smaller[0], smaller[1])
      args = (state, rows(slots, jnp.int32), rows(slots, jnp.bool_), used)
      yield ProgramCall("shrink", self.repack(in_place=False), args, alive)
    thresholds = replicated((len(scheduler.sizes(members)),), jnp.int32)
    decode_tokens = self.decode(attended_length=plan.cache_length)
    yield ProgramCall(
      "decode, a token",
      decode_tokens,
      (decoding_params, state, active, thresholds),
      alive,
      trips=options.decode_steps,
    )

  def _shardings(self, specs: Any) -> Any:
    """Converts partition specs to shardings over the mesh."""
    return jax.tree.map(lambda spec: NamedSharding(self._mesh, spec), specs)


def _largest_smaller_shape(capacity: int, members: int) -> tuple[int, int] | None:
  """Returns the slots of a shard and the sequences of a slot of the next smaller batch, if any."""
  shapes = itertools.product(scheduler.sizes(capacity), scheduler.sizes(members))
  smaller = [shape for shape in shapes if math.prod(shape) < capacity * members]
  return max(smaller, key=lambda shape: (math.prod(shape), shape), default=None)
