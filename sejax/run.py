"""All that a run reads and keeps from step to step, set up once; see `sejax.train`."""

import dataclasses
import functools
import math
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from absl import logging
from flax import traverse_util
from jax.sharding import Mesh

from sejax import config as config_lib
from sejax import experience, lora, model_checks, optimizer, rewards, rollout, update
from sejax.clock import Clock
from sejax.data import batches, counting, sources
from sejax.data import pipeline as pipeline_lib
from sejax.data.pipeline import Options, Pipeline, State
from sejax.data.prepare import Preparer
from sejax.data.records import Source
from sejax.evaluation.heldout import HeldOut
from sejax.models import qwen2_5_vl as qwen
from sejax.parallel import chips, layouts, meshes
from sejax.quoting import quoted
from sejax.sampling import Filters
from sejax.text.equivalence import Prover

_VISION = ("^vision/",)


class Models(NamedTuple):
  """The parameter trees of a run.

  Attributes:
    config: of Actor and reference.
    initial: what is trained, fp32: the policy's weights, or adapters of the frozen ones.
    frozen: the initial policy in the precision of decoding: the reference.
    judge: the Judge's configuration.
    judge_params: its parameters; those of the reference, unless the configuration names others.
  """

  config: qwen.Config
  initial: qwen.Params
  frozen: qwen.Params
  judge: qwen.Config
  judge_params: qwen.Params


class Run(NamedTuple):
  """What stays the same from step to step.

  Attributes:
    mesh: of all devices.
    models: that the run began with, laid out for training; samplers lay them out for decoding.
    adapters: what is trained, if not all weights.
    source: of the problems.
    preparer: of their examples.
    roles: that sample.
    collector: of experience.
    updater: of what is trained.
    heldout: problems for evaluation, if there are any.
    prover: grades; the train loop ends its processes.
    steps: of the whole run.
  """

  mesh: Mesh
  models: Models
  adapters: lora.Options | None
  source: Source
  preparer: Preparer
  roles: rollout.Roles
  collector: experience.Collector
  updater: update.Updater
  heldout: HeldOut | None
  prover: Prover
  steps: int


def set_up(config: ml_collections.ConfigDict, workdir: pathlib.Path, clock: Clock) -> Run:
  """Opens all that a run reads.

  Raises:
    ValueError: naming what cannot work.
  """
  if config.log.compilation_cache:
    jax.config.update("jax_compilation_cache_dir", str(workdir / "compilation_cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  if not config.model.path:
    raise ValueError("config.model.path is empty; give a model directory, or its name on the hub")
  mesh = meshes.create(config.mesh)
  check_rows(config, mesh)
  model_checks.check_processes(mesh)
  model = judge = qwen.load_config(config.model.path)
  model_checks.check_buckets(config, model)
  if _has_own_judge(config):
    judge = qwen.load_config(config.judge.path)
  check_memory(config, model, mesh)
  # What is wrong with the data is said before weights are read and programs are compiled.
  source = sources.open_source(config.data)
  preparer = Preparer.of(config, source)
  prover = Prover()
  function = rewards.find(config.train.reward_function, prover)
  processor = preparer.processor
  model_checks.check_directory(config.model.path, model, processor)
  model_checks.check_pictures(config, processor)
  if _has_own_judge(config):
    model_checks.check_judge(config, model, judge, processor)
  roles = rollout.Roles.create(config, model, processor, mesh, judge)
  model_checks.check_prompts(config, preparer, roles)
  pipeline_lib.check(preparer, config.data.max_bad_share, needs_gold=rewards.needs_gold(function))
  _explain_repetitions(config.batch_size, source)
  heldout = HeldOut.of(config, roles, source, prover)
  collate = batches.Collator(
    model,
    source.name,
    config.batch_size // jax.process_count(),
    batches.Buckets.of(config.data),
    processor.pad_id,
  )
  steps = counting.num_steps(config, preparer, workdir)
  return Run(
    mesh,
    _load(config, mesh),
    lora.Options.of(config.lora),
    source,
    preparer,
    roles,
    experience.Collector(config, roles, collate, source, clock, function),
    updater(config, model, roles.actor.options.filters, steps, mesh),
    heldout,
    prover,
    steps,
  )


def _explain_repetitions(batch_size: int, source: Source) -> None:
  """Says once what a batch that is larger than the set means."""
  least, rest = divmod(batch_size, len(source))
  if batch_size > len(source) and jax.process_index() == 0:
    times = f"{least} or {least + 1}" if rest else f"{least}"
    logging.warning(
      "config.batch_size=%d is more than the %d records of %s: each occurs %s times in a step, and"
      " is sampled anew each time",
      batch_size,
      len(source),
      source.name,
      times,
    )


def pipeline(
  config: ml_collections.ConfigDict, preparer: Preparer, states: tuple[State, ...]
) -> Pipeline:
  """Returns the data from its beginning, or from where `states` say."""
  options = Options(
    config.batch_size,
    config.seed,
    config.data.workers,
    config.data.on_bad_record,
    config.data.max_bad_share,
  )
  return Pipeline(
    preparer,
    options,
    process=jax.process_index(),
    processes=jax.process_count(),
    states=states,
  )


def policy(run: Run, trained: qwen.Params) -> qwen.Params:
  """Returns the policy's parameter tree, of which only what is trained is new.

  Args:
    run: what stays.
    trained: all weights, or adapters.
  """
  if run.adapters is None:
    return trained
  return lora.attach(run.models.frozen, trained, run.adapters)


def decoding(run: Run, trained: qwen.Params) -> qwen.Params:
  """Returns the policy as the samplers lay it out; what is so already is not copied."""
  return layouts.place(policy(run, trained), run.mesh, layouts.DECODE, run.roles.actor.dtype)


def _load(config: ml_collections.ConfigDict, mesh: Mesh) -> Models:
  dtype = rollout.frozen_dtype(config)
  model, frozen = qwen.load(config.model.path, mesh, dtype)
  if adapters := lora.Options.of(config.lora):
    initial = _adapters(config, model, adapters, mesh)
  else:
    _, initial = qwen.load(config.model.path, mesh, jnp.float32)
  judge, judge_params = model, frozen
  if _has_own_judge(config):
    judge, judge_params = qwen.load(config.judge.path, mesh, dtype)
  return Models(model, initial, frozen, judge, judge_params)


def _has_own_judge(config: ml_collections.ConfigDict) -> bool:
  return bool(config.judge.use and config.judge.path)


def _adapters(
  config: ml_collections.ConfigDict, model: qwen.Config, adapters: lora.Options, mesh: Mesh
) -> qwen.Params:
  make = functools.partial(lora.init, model=model, options=adapters)
  key = jax.random.key(config.seed)
  places = layouts.shardings(jax.eval_shape(make, key), mesh)
  return jax.jit(make, out_shardings=places)(key)


def updater(
  config: ml_collections.ConfigDict,
  model: qwen.Config,
  filters: Filters,
  steps: int,
  mesh: Mesh,
) -> update.Updater:
  """Returns what updates the policy.

  Args:
    config: the run's.
    model: of the policy.
    filters: that the Actor samples by.
    steps: batches of the whole run.
    mesh: of all devices.

  Raises:
    ValueError: an option of `config.optimizer` or `config.lora` cannot be.
  """
  updates = steps * (config.batch_size // config.mini_batch_size)
  adapters = lora.Options.of(config.lora)
  frozen = _VISION if config.train.freeze_vision and adapters is None else ()
  return update.Updater(
    _trained_model(config, rollout.on_devices(config, model, mesh)),
    optimizer.make(config.optimizer, updates, frozen),
    config.loss.to_dict(),
    temperature=filters.temperature,
    banned_ids=filters.banned,
    max_tokens=config.actor.max_tokens,
    dtype=rollout.frozen_dtype(config),
    adapters=adapters,
    mesh=mesh,
  )


def _trained_model(config: ml_collections.ConfigDict, model: qwen.Config) -> qwen.Config:
  """Returns the model as the update computes it, which is what its backward pass asks for."""
  return dataclasses.replace(
    model,
    remat=config.model.remat,
    unroll=config.model.unroll,
    query_chunk=config.model.query_chunk,
    logits_chunk=config.model.logits_chunk,
  )


def vision_is_trained(config: ml_collections.ConfigDict) -> bool:
  """Returns whether updates change the vision tower."""
  return not (config.train.freeze_vision or config.lora.rank)


def check_memory(config: ml_collections.ConfigDict, model: qwen.Config, mesh: Mesh) -> None:
  """Refuses a policy whose weights and moments alone are more than a device holds.

  Raises:
    ValueError: naming the model, what it takes, what there is, and what would take less.
  """
  frozen = jnp.dtype(rollout.frozen_dtype(config)).itemsize
  # In fp32 the weights and the second moment.
  trained = 0 if config.lora.rank else 8 + jnp.dtype(config.optimizer.first_moment).itemsize
  kept = 0
  for path, shape in traverse_util.flatten_dict(qwen.shapes(model), sep="/").items():
    shard = layouts.sharding(mesh, path, shape, layouts.PARAMETERS).shard_shape(shape)
    moments = trained and 4 if config.train.freeze_vision and "vision" in path else trained
    kept += math.prod(shard) * (frozen + moments)
  there = chips.memory(mesh.local_devices[0])
  if there and kept > there:
    raise ValueError(
      f"config.model.path={quoted(config.model.path)} takes {kept / 2**30:.1f} GiB of each device"
      f" for weights and moments, and there are {there / 2**30:.1f} GiB; give a smaller model,"
      f" {config_lib.FEWER_WEIGHTS}"
    )


def check_rows(config: ml_collections.ConfigDict, mesh: Mesh) -> None:
  """Refuses batches that the mesh cannot split.

  Raises:
    ValueError: naming the field, its value and what would work.
  """
  layouts.check_rows(mesh, "train.micro_batch_size", config.train.micro_batch_size)
  layouts.check_rows(mesh, "eval.batch_size", config.eval.batch_size)
