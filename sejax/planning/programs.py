"""The programs of one training step, lowered from shapes alone: no weights, no data, no devices.

Shapes are the largest that the configuration lets a step have: all buckets full, every trajectory
as long as it may be. Each program comes with the bytes that are alive on a device when it starts,
its arguments among them: while the Actor samples, for instance, moments are kept too.

Axes as in `sejax.learner.update` and `sejax.sampling`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import DTypeLike

from sejax import models, rollout
from sejax.learner import update
from sejax.learner.learner import make_updater, vision_is_trained
from sejax.models import lora
from sejax.parallel import layouts
from sejax.rollout import checks
from sejax.sampling import Options, Sampler, decode, packing, scheduler
from sejax.sampling.request import BatchPlan


class Program(NamedTuple):
  """A program of the step.

  Attributes:
    name: what it does; one that goes over tokens one by one does it for one of them.
    lower: traces it; nothing is compiled yet.
    live: bytes on each device when it starts, its arguments among them.
  """

  name: str
  lower: Callable[[], jax.stages.Lowered]
  live: int


class _Trees(NamedTuple):
  """Shapes and layouts of what a run keeps, and of what it makes for sampling."""

  state: update.TrainState
  frozen: models.Params
  policy: models.Params  # as the update scores it
  actor: models.Params  # laid out for decoding
  judge: models.Params


def of_step(
  config: ml_collections.ConfigDict, model: models.Model, mesh: Mesh
) -> Iterator[Program]:
  """Yields the programs in the order in which a step runs them.

  Args:
    config: the run's; its Judge is the frozen policy, or there is none.
    model: of the policy.
    mesh: of the devices that they are made for.

  Raises:
    ValueError: naming what cannot work.
  """
  checks.check_rows(config, mesh)
  checks.check_buckets(config, model)
  model = rollout.on_devices(config, model, mesh)
  model = dataclasses.replace(model, rows=layouts.row_sharding(mesh))
  updater = _updater(config, model, mesh)
  trees = _trees(config, model, mesh, updater)
  minibatch = _minibatch(config, model, mesh)
  kept = _bytes(trees.state) + _bytes(trees.frozen)
  # Adapters' frozen weights, and the Judge's, are read where they lie if decoding wants them so.
  frozen = trees.frozen if config.lora.rank else None
  yield from _sampling("actor", config, model, mesh, trees.policy, trees.actor, kept, frozen)
  if config.judge.use:
    there = trees.frozen
    yield from _sampling("judge", config, model, mesh, trees.frozen, trees.judge, kept, there)

  kept += config.batch_size // config.mini_batch_size * _bytes(minibatch)
  score = functools.partial(update.Updater.token_logprobs.lower, updater)
  for name, params in (("policy", trees.policy), ("reference", trees.frozen)):
    yield Program(f"log-probs of {name}", functools.partial(score, params, minibatch), kept)
  arguments = (updater, trees.state, frozen, minibatch, *_numbers(config, mesh))
  yield Program("update", functools.partial(update.Updater.update.lower, *arguments), kept)


def _sampling(
  role: str,
  config: ml_collections.ConfigDict,
  model: models.Model,
  mesh: Mesh,
  given: models.Params,
  params: models.Params,
  kept: int,
  frozen: models.Params | None,
) -> Iterator[Program]:
  """Yields what one role's sampling compiles.

  Args:
    role: `actor` or `judge`.
    config: the run's.
    model: of the role.
    mesh: of the devices.
    given: the role's weights as the run keeps them.
    params: the same laid out for decoding.
    kept: bytes that the run keeps.
    frozen: weights of which those that decoding wants as they are need no copy.
  """
  dtype, shards = rollout.frozen_dtype(config), layouts.row_shards(mesh)
  sampler = Sampler(model, _options(config, model, role), mesh, dtype)
  options, specs = sampler.options, decode.specs(model, mesh)
  tokens = rollout.padded(config.actor.max_tokens) if role == "judge" else 0
  plan = BatchPlan.of(options, config.batch_size // shards, shards, tokens)
  rows = _rows(config, model, mesh, options, plan, role)
  places = jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)
  empty = functools.partial(
    packing.empty_state,
    model=model,
    slots=shards * plan.capacity,
    members=options.members,
    prompt_length=rows.ids.shape[1],
    cache_length=plan.cache_length,
    dtype=dtype,
  )
  state = _with(jax.eval_shape(empty), places)
  index = _split(mesh, (shards * plan.admit_size,), jnp.int32)
  on_mesh = {"model": model, "mesh": mesh}
  enter = jax.jit(functools.partial(packing.prefill, **on_mesh))
  entry = enter.eval_shape(params, rows, index)
  entry = _with(entry, _entry_places(entry, places))

  images = _images(
    config, model, lambda x: _split(mesh, (config.batch_size, *x.shape[1:]), x.dtype)
  )
  encode = functools.partial(
    rollout.encode_rows.lower, given, model, images, shards, jnp.dtype(dtype)
  )
  yield Program(f"{role} vision", encode, kept + _bytes(images))
  live = kept + _bytes(params) - _shared(frozen, params) + _bytes(rows) + _bytes(state)
  yield Program(f"{role} prefill", lambda: enter.lower(params, rows, index), live)
  moving = {"mesh": mesh, "specs": specs}
  insert = jax.jit(
    functools.partial(packing.insert, **moving), donate_argnums=0, out_shardings=places
  )
  with_entry = live + _bytes(entry)
  yield Program(f"{role} insert", lambda: insert.lower(state, entry, index), with_entry)
  alive = _split(mesh, state.num_sampled.shape, jnp.bool_)
  move = jax.jit(
    functools.partial(packing.repack, **moving), donate_argnums=0, out_shardings=places
  )
  sources = _split(mesh, state.num_sampled.shape, jnp.int32)
  used = _known(mesh, (), jnp.int32)
  yield Program(f"{role} pack", lambda: move.lower(state, sources, alive, used), live)
  run = functools.partial(
    decode.decode_tokens,
    **on_mesh,
    filters=options.filters,
    eos_ids=options.eos_ids,
    steps=options.decode_steps,
    attended_length=plan.cache_length,
  )
  outputs = (places, places.num_sampled, NamedSharding(mesh, PartitionSpec()))
  run = jax.jit(run, donate_argnums=1, out_shardings=outputs)
  few = _known(mesh, (len(scheduler.sizes(options.members)),), jnp.int32)
  yield Program(f"{role} decode, a token", lambda: run.lower(params, state, alive, few), live)


def _options(config: ml_collections.ConfigDict, model: models.Model, role: str) -> Options:
  banned = (model.image_token_id,)
  # No program depends on the padding, which the host writes.
  return rollout.sampling_options(config, role, banned, model.eos_ids, pad_id=0)


def _updater(config: ml_collections.ConfigDict, model: models.Model, mesh: Mesh) -> update.Updater:
  filters, steps = _options(config, model, "actor").filters, config.train.steps or 1000
  return make_updater(config, model, filters, steps, mesh)


def _trees(
  config: ml_collections.ConfigDict, model: models.Model, mesh: Mesh, updater: update.Updater
) -> _Trees:
  dtype = rollout.frozen_dtype(config)
  whole = jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
    model.shapes(),
    is_leaf=lambda node: isinstance(node, tuple),
  )

  def laid_out(tree: Any, rules: layouts.Rules, dtype: DTypeLike | None = None) -> Any:
    tree = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype or x.dtype), tree)
    return _with(tree, layouts.shardings(tree, mesh, rules))

  frozen = laid_out(whole, model.layout, dtype)
  policy = trained = laid_out(whole, model.layout)
  adapters = lora.Options.of(config.lora)
  if adapters is not None:
    make = functools.partial(lora.init, model=model, options=adapters)
    trained = laid_out(jax.eval_shape(make, jax.random.key(0)), model.layout)
    policy = jax.eval_shape(functools.partial(lora.attach, options=adapters), frozen, trained)
    policy = laid_out(policy, model.layout)
  state = laid_out(jax.eval_shape(updater.init, trained), model.layout)
  actor = laid_out(policy, model.decode_layout, dtype)
  return _Trees(state, frozen, policy, actor, laid_out(frozen, model.decode_layout))


def _rows(
  config: ml_collections.ConfigDict,
  model: models.Model,
  mesh: Mesh,
  options: Options,
  plan: BatchPlan,
  role: str,
) -> packing.PromptRows:
  size, members = config.batch_size, options.members
  width = checks.prompt_width(config.data) if role == "actor" else config.data.prompt_buckets[-1]
  split = functools.partial(_split, mesh)
  return packing.PromptRows(
    ids=split((size, width), jnp.int32),
    lengths=split((size,), jnp.int32),
    positions=split((size, 3, width), jnp.int32),
    features=_features(config, model, lambda x: split((size, *x.shape[1:]), x.dtype)),
    given=split((size, members, plan.given_length), jnp.int32) if plan.given_length else None,
    given_lengths=split((size, members), jnp.int32) if plan.given_length else None,
    keys=split((size, members, 2), jnp.uint32),
    limit=split((size, members), jnp.int32),
  )


def _entry_places(entry: packing.PrefilledGroups, places: decode.State) -> packing.PrefilledGroups:
  """Entries lie as the state does."""
  given = None if entry.given is None else places.cache
  return packing.PrefilledGroups(
    prefix=places.prefix,
    given=given,
    hidden=places.hidden,
    keys=places.keys,
    limit=places.limit,
  )


def _minibatch(
  config: ml_collections.ConfigDict, model: models.Model, mesh: Mesh
) -> update.Minibatch:
  rows, width = config.train.micro_batch_size, checks.prompt_width(config.data)
  micro = config.mini_batch_size // rows
  tokens = (micro, rows, config.group_size, config.actor.max_tokens)

  def cut(shape: tuple[int, ...], dtype: DTypeLike, axis: int = 1) -> jax.ShapeDtypeStruct:
    spec = PartitionSpec(*[None] * axis, layouts.row_axes(mesh))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

  images = features = None
  if vision_is_trained(config):
    images = _images(config, model, lambda x: cut((micro, rows, *x.shape[1:]), x.dtype))
  else:
    features = _features(config, model, lambda x: cut((micro, rows, *x.shape[1:]), x.dtype))
  return update.Minibatch(
    models.Prompt(
      cut((micro, rows, width), jnp.int32),
      cut((micro, rows), jnp.int32),
      cut((micro, 3, rows, width), jnp.int32, axis=2),
    ),
    images,
    features,
    cut(tokens, jnp.int32),
    cut(tokens, jnp.bool_),
  )


def _numbers(config: ml_collections.ConfigDict, mesh: Mesh) -> tuple[jax.ShapeDtypeStruct, ...]:
  """Log-probs of policy and reference, and advantages."""
  rows = config.train.micro_batch_size
  micro = config.mini_batch_size // rows
  place = NamedSharding(mesh, PartitionSpec(None, layouts.row_axes(mesh)))
  group = (micro, rows, config.group_size)
  tokens = jax.ShapeDtypeStruct((*group, config.actor.max_tokens), jnp.float32, sharding=place)
  return tokens, tokens, jax.ShapeDtypeStruct(group, jnp.float32, sharding=place)


def _images(
  config: ml_collections.ConfigDict,
  model: models.Model,
  shape: Callable[[np.ndarray], jax.ShapeDtypeStruct],
) -> models.Images:
  """Returns the shapes of images in the largest bucket, from those of one empty row."""
  none = np.zeros((0, model.patch_dim), np.float32)
  row = model.pack_images([none], [np.zeros((0, 3), np.int32)], config.data.patch_buckets[-1])
  return jax.tree.map(shape, row)


def _features(
  config: ml_collections.ConfigDict,
  model: models.Model,
  shape: Callable[[jax.ShapeDtypeStruct], jax.ShapeDtypeStruct],
) -> models.Features:
  """Returns the shapes of features in the largest bucket, from those of one row."""
  dtype = rollout.frozen_dtype(config)
  params = jax.eval_shape(functools.partial(model.init, dtype=dtype), jax.random.key(0))
  images = _images(config, model, lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype))
  alone = dataclasses.replace(model, rows=None)  # One row is not split.
  return jax.tree.map(shape, jax.eval_shape(alone.encode, params, images))


def _split(mesh: Mesh, shape: tuple[int, ...], dtype: DTypeLike) -> jax.ShapeDtypeStruct:
  place = NamedSharding(mesh, PartitionSpec(layouts.row_axes(mesh)))
  return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def _known(mesh: Mesh, shape: tuple[int, ...], dtype: DTypeLike) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))


def _with(tree: Any, places: Any) -> Any:
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree, places
  )


def _bytes(tree: Any) -> int:
  """Returns what a tree of shapes takes on each device."""
  return sum(
    int(np.prod(x.sharding.shard_shape(x.shape))) * x.dtype.itemsize for x in jax.tree.leaves(tree)
  )


def _shared(kept: Any | None, used: Any) -> int:
  """Returns the bytes of what is used where it is kept: its layout and precision are the same."""
  if kept is None:
    return 0
  there = dict(jax.tree.leaves_with_path(used))
  return sum(
    _bytes(x)
    for path, x in jax.tree.leaves_with_path(kept)
    if there[path].dtype == x.dtype and there[path].sharding == x.sharding
  )
