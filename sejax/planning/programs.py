"""The programs of one training step, lowered from shapes alone: no weights, no data, no devices.

Shapes are the largest that the configuration lets a step have: all buckets full, every trajectory
as long as it may be. Each program comes with the bytes that are alive on a device when it starts,
its arguments among them: while the Actor samples, for instance, moments are kept too.

Axes as in `sejax.learner.update` and `sejax.sampling`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import DTypeLike

from sejax import models
from sejax.learner import learner, update
from sejax.models import lora
from sejax.parallel import layouts
from sejax.rollout import Compute, RoleOptions, checks, encode_rows, padded
from sejax.sampling import Options, Sampler, decode, packing, scheduler
from sejax.sampling.request import BatchPlan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
  """A training step that is planned.

  Attributes:
    compute: how devices compute models.
    roles: how Actor and Judge sample.
    judged: whether there is a Judge, which is the frozen policy.
    training: how the policy is trained.
    training_steps: of the whole run.
    batch_size: prompts sampled.
    data: the configuration's section, for the lengths that arrays are padded to.
    row_sizes: batch sizes that the mesh must divide, by the fields that give them.
  """

  compute: Compute
  roles: RoleOptions
  judged: bool
  training: learner.Options
  training_steps: int
  batch_size: int
  data: ml_collections.ConfigDict
  row_sizes: Mapping[str, int]

  @property
  def group(self) -> tuple[int, int]:
    """Trajectories of a prompt, G, and tokens of one at most, R."""
    return self.roles.actor.trajectories, self.roles.actor.new_tokens

  @property
  def micro(self) -> tuple[int, int]:
    """Micro-batches of an optimizer step, M, and prompts of each, b."""
    sizes = self.training.sizes
    return sizes.micro_batches, self.batch_size // (sizes.minibatches * sizes.micro_batches)


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


def of_step(step: Step, model: models.Model, mesh: Mesh) -> Iterator[Program]:
  """Yields the programs in the order in which a step runs them.

  Args:
    step: of a run.
    model: of the policy.
    mesh: of the devices that they are made for.

  Raises:
    ValueError: naming what cannot work.
  """
  checks.check_rows(mesh, step.row_sizes)
  checks.check_buckets(step.data, step.roles.actor.new_tokens, model)
  model = step.compute.on_devices(model, mesh)
  model = dataclasses.replace(model, rows=layouts.row_sharding(mesh))
  filters = _with_tokens(step.roles.actor, model).filters
  updater = learner.make_updater(
    step.training,
    model,
    compute=step.compute,
    filters=filters,
    steps=step.training_steps,
    mesh=mesh,
  )
  trees = _trees(step, model, mesh, updater)
  minibatch = _minibatch(step, model, mesh)
  kept = _bytes(trees.state) + _bytes(trees.frozen)
  # Adapters' frozen weights, and the Judge's, are read where they lie if decoding wants them so.
  frozen = None if step.training.adapters is None else trees.frozen
  yield from _sampling(
    "actor",
    step,
    model,
    mesh,
    options=step.roles.actor,
    given_tokens=0,
    prompt_width=checks.prompt_width(step.data),
    weights=trees.policy,
    decoding_weights=trees.actor,
    kept=kept,
    frozen=frozen,
  )
  if step.judged:
    yield from _sampling(
      "judge",
      step,
      model,
      mesh,
      options=step.roles.judge,
      given_tokens=padded(step.roles.actor.new_tokens),
      prompt_width=step.data.prompt_buckets[-1],
      weights=trees.frozen,
      decoding_weights=trees.judge,
      kept=kept,
      frozen=trees.frozen,
    )

  kept += step.training.sizes.minibatches * _bytes(minibatch)
  score = functools.partial(update.Updater.token_logprobs.lower, updater)
  for name, params in (("policy", trees.policy), ("reference", trees.frozen)):
    yield Program(f"log-probs of {name}", functools.partial(score, params, minibatch), kept)
  arguments = (updater, trees.state, frozen, minibatch, *_numbers(step, mesh))
  yield Program("update", functools.partial(update.Updater.update.lower, *arguments), kept)


def _sampling(
  name: str,
  step: Step,
  model: models.Model,
  mesh: Mesh,
  *,
  options: Options,
  given_tokens: int,
  prompt_width: int,
  weights: models.Params,
  decoding_weights: models.Params,
  kept: int,
  frozen: models.Params | None,
) -> Iterator[Program]:
  """Yields what one role's sampling compiles.

  Args:
    name: of the role, in front of its programs' names.
    step: of the run.
    model: of the role.
    mesh: of the devices.
    options: how the role samples.
    given_tokens: that a trajectory begins with.
    prompt_width: tokens that prompts are padded to.
    weights: the role's as the run keeps them.
    decoding_weights: the same laid out for decoding.
    kept: bytes that the run keeps.
    frozen: weights of which those that decoding wants as they are need no copy.
  """
  params, dtype, shards = decoding_weights, step.compute.dtype, layouts.row_shards(mesh)
  # Checks the options as a run would.
  options = Sampler(model, _with_tokens(options, model), mesh, dtype).options
  specs = decode.specs(model, mesh)
  plan = BatchPlan.of(options, step.batch_size // shards, shards, given_tokens)
  rows = _rows(step, model, mesh, options, plan, prompt_width)
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

  images = _images(step, model, lambda x: _split(mesh, (step.batch_size, *x.shape[1:]), x.dtype))
  encode = functools.partial(encode_rows.lower, weights, model, images, shards, jnp.dtype(dtype))
  yield Program(f"{name} vision", encode, kept + _bytes(images))
  live = kept + _bytes(params) - _shared(frozen, params) + _bytes(rows) + _bytes(state)
  yield Program(f"{name} prefill", lambda: enter.lower(params, rows, index), live)
  moving = {"mesh": mesh, "specs": specs}
  insert = jax.jit(
    functools.partial(packing.insert, **moving), donate_argnums=0, out_shardings=places
  )
  with_entry = live + _bytes(entry)
  yield Program(f"{name} insert", lambda: insert.lower(state, entry, index), with_entry)
  alive = _split(mesh, state.num_sampled.shape, jnp.bool_)
  move = jax.jit(
    functools.partial(packing.repack, **moving), donate_argnums=0, out_shardings=places
  )
  sources = _split(mesh, state.num_sampled.shape, jnp.int32)
  used = _known(mesh, (), jnp.int32)
  yield Program(f"{name} pack", lambda: move.lower(state, sources, alive, used), live)
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
  yield Program(f"{name} decode, a token", lambda: run.lower(params, state, alive, few), live)


def _with_tokens(options: Options, model: models.Model) -> Options:
  """Returns options with the tokens that the model itself knows: there may be no processor."""
  filters = dataclasses.replace(options.filters, banned=(model.image_token_id,))
  # No program depends on the padding, which the host writes.
  return dataclasses.replace(options, filters=filters, eos_ids=model.eos_ids, pad_id=0)


def _trees(step: Step, model: models.Model, mesh: Mesh, updater: update.Updater) -> _Trees:
  dtype = step.compute.dtype
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
  adapters = step.training.adapters
  if adapters is not None:
    make = functools.partial(lora.init, model=model, options=adapters)
    trained = laid_out(jax.eval_shape(make, jax.random.key(0)), model.layout)
    policy = jax.eval_shape(functools.partial(lora.attach, options=adapters), frozen, trained)
    policy = laid_out(policy, model.layout)
  state = laid_out(jax.eval_shape(updater.init, trained), model.layout)
  actor = laid_out(policy, model.decode_layout, dtype)
  return _Trees(state, frozen, policy, actor, laid_out(frozen, model.decode_layout))


def _rows(
  step: Step,
  model: models.Model,
  mesh: Mesh,
  options: Options,
  plan: BatchPlan,
  width: int,
) -> packing.PromptRows:
  size, members = step.batch_size, options.members
  split = functools.partial(_split, mesh)
  return packing.PromptRows(
    ids=split((size, width), jnp.int32),
    lengths=split((size,), jnp.int32),
    positions=split((size, 3, width), jnp.int32),
    features=_features(step, model, lambda x: split((size, *x.shape[1:]), x.dtype)),
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


def _minibatch(step: Step, model: models.Model, mesh: Mesh) -> update.Minibatch:
  (micro, rows), width = step.micro, checks.prompt_width(step.data)
  tokens = (micro, rows, *step.group)

  def cut(shape: tuple[int, ...], dtype: DTypeLike, axis: int = 1) -> jax.ShapeDtypeStruct:
    spec = PartitionSpec(*[None] * axis, layouts.row_axes(mesh))
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

  images = features = None
  if step.training.trains_vision:
    images = _images(step, model, lambda x: cut((micro, rows, *x.shape[1:]), x.dtype))
  else:
    features = _features(step, model, lambda x: cut((micro, rows, *x.shape[1:]), x.dtype))
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


def _numbers(step: Step, mesh: Mesh) -> tuple[jax.ShapeDtypeStruct, ...]:
  """Log-probs of policy and reference, and advantages."""
  place = NamedSharding(mesh, PartitionSpec(None, layouts.row_axes(mesh)))
  shape = (*step.micro, *step.group)
  tokens = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=place)
  return tokens, tokens, jax.ShapeDtypeStruct(shape[:-1], jnp.float32, sharding=place)


def _images(
  step: Step,
  model: models.Model,
  shape: Callable[[np.ndarray], jax.ShapeDtypeStruct],
) -> models.Images:
  """Returns the shapes of images in the largest bucket, from those of one empty row."""
  none = np.zeros((0, model.patch_dim), np.float32)
  row = model.pack_images([none], [np.zeros((0, 3), np.int32)], step.data.patch_buckets[-1])
  return jax.tree.map(shape, row)


def _features(
  step: Step,
  model: models.Model,
  shape: Callable[[jax.ShapeDtypeStruct], jax.ShapeDtypeStruct],
) -> models.Features:
  """Returns the shapes of features in the largest bucket, from those of one row."""
  init = functools.partial(model.init, dtype=step.compute.dtype)
  params = jax.eval_shape(init, jax.random.key(0))
  images = _images(step, model, lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype))
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
