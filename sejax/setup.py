"""Sets a training run up: all that stays the same from step to step; see `sejax.train`."""

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
from sejax import models, rewards, rollout
from sejax.data import batches, counting, sources
from sejax.data import pipeline as pipeline_lib
from sejax.data.pipeline import Options, Pipeline, State
from sejax.data.prepare import Preparer
from sejax.data.records import Source
from sejax.errors import quoted
from sejax.evaluation.heldout import HeldOut
from sejax.learner import minibatches
from sejax.learner.learner import Learner, make_updater, vision_is_trained
from sejax.models import lora
from sejax.parallel import chips, layouts, meshes
from sejax.rollout import checks, collect
from sejax.text.equivalence import Prover


class Weights(NamedTuple):
  """The models of a run and their parameter trees.

  Attributes:
    model: of Actor and reference.
    initial: what is trained, fp32: the policy's weights, or adapters of the frozen ones.
    frozen: the initial policy in the precision of decoding: the reference.
    judge: the Judge's.
    judge_params: its parameters; those of the reference, unless the configuration names others.
  """

  model: models.Model
  initial: models.Params
  frozen: models.Params
  judge: models.Model
  judge_params: models.Params


class TrainSetup(NamedTuple):
  """What stays the same from step to step.

  Attributes:
    mesh: of all devices.
    weights: the parameter trees the run began with, laid out for training; samplers lay them out
      for decoding.
    source: of the problems.
    preparer: makes examples of the source's records.
    roles: Actor and Judge, on samplers.
    collector: makes the rollout of each step.
    learner: trains the policy on it.
    heldout: problems for evaluation, if there are any.
    prover: grades answers; the train loop ends its processes.
    steps: of the whole run.
  """

  mesh: Mesh
  weights: Weights
  source: Source
  preparer: Preparer
  roles: rollout.Roles
  collector: collect.Collector
  learner: Learner
  heldout: HeldOut | None
  prover: Prover
  steps: int


def set_up(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, stopwatch: collect.Stopwatch
) -> TrainSetup:
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
  checks.check_rows(config, mesh)
  checks.check_processes(mesh)
  model = judge = models.load_config(config.model.path)
  checks.check_buckets(config, model)
  if _has_own_judge(config):
    judge = models.load_config(config.judge.path)
  check_memory(config, model, mesh)
  # What is wrong with the data is said before weights are read and programs are compiled.
  source = sources.open_source(config.data)
  preparer = Preparer.of(config, source)
  prover = Prover()
  function = rewards.find(config.rewards.function, prover)
  processor = preparer.processor
  checks.check_directory(config.model.path, model, processor)
  checks.check_pictures(config, processor)
  if _has_own_judge(config):
    checks.check_judge(config, model, judge, processor)
  roles = rollout.Roles.create(config, model, processor, mesh, judge)
  checks.check_prompts(config, preparer, roles)
  pipeline_lib.check(preparer, config.data.max_bad_share, needs_gold=rewards.needs_gold(function))
  _explain_repetitions(config.batch_size, source)
  heldout = HeldOut.of(config, roles, source, prover)
  collate = batches.Collator(
    model=model,
    dataset=source.name,
    rows=config.batch_size // jax.process_count(),
    buckets=batches.Buckets.of(config.data),
    pad_id=processor.pad_id,
  )
  steps = counting.num_steps(config, preparer, workdir)
  weights = _load(config, mesh)
  return TrainSetup(
    mesh=mesh,
    weights=weights,
    source=source,
    preparer=preparer,
    roles=roles,
    collector=collect.Collector(
      config,
      roles,
      collate,
      source,
      stopwatch,
      function,
      shares_tower=not (vision_is_trained(config) or _has_own_judge(config)),
    ),
    learner=Learner(
      updater=make_updater(config, model, roles.actor.options.filters, steps, mesh),
      mesh=mesh,
      frozen=weights.frozen,
      adapters=lora.Options.of(config.lora),
      sizes=minibatches.Sizes.of(config),
      mask_truncated=config.train.mask_truncated,
      encode=None if vision_is_trained(config) else roles.encode,
    ),
    heldout=heldout,
    prover=prover,
    steps=steps,
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
    batch_size=config.batch_size,
    seed=config.seed,
    workers=config.data.workers,
    on_bad_record=config.data.on_bad_record,
    max_bad_share=config.data.max_bad_share,
  )
  return Pipeline(
    preparer,
    options,
    process=jax.process_index(),
    processes=jax.process_count(),
    states=states,
  )


def decoding_weights(setup: TrainSetup, trained: models.Params) -> models.Params:
  """Returns the policy as the samplers lay it out; what is so already is not copied.

  Args:
    trained: all weights, or adapters.
  """
  policy = setup.learner.policy(trained)
  return layouts.place(
    policy, setup.mesh, setup.weights.model.decode_layout, setup.roles.actor.dtype
  )


def _load(config: ml_collections.ConfigDict, mesh: Mesh) -> Weights:
  dtype = rollout.frozen_dtype(config)
  model, frozen = models.load(config.model.path, mesh, dtype)
  if adapters := lora.Options.of(config.lora):
    initial = _adapters(config, model, adapters, mesh)
  else:
    _, initial = models.load(config.model.path, mesh, jnp.float32)
  judge, judge_params = model, frozen
  if _has_own_judge(config):
    judge, judge_params = models.load(config.judge.path, mesh, dtype)
  return Weights(model, initial, frozen, judge, judge_params)


def _has_own_judge(config: ml_collections.ConfigDict) -> bool:
  return bool(config.judge.use and config.judge.path)


def _adapters(
  config: ml_collections.ConfigDict, model: models.Model, adapters: lora.Options, mesh: Mesh
) -> models.Params:
  make = functools.partial(lora.init, model=model, options=adapters)
  key = jax.random.key(config.seed)
  places = layouts.shardings(jax.eval_shape(make, key), mesh, model.layout)
  return jax.jit(make, out_shardings=places)(key)


def check_memory(config: ml_collections.ConfigDict, model: models.Model, mesh: Mesh) -> None:
  """Refuses a policy whose weights and moments alone are more than a device holds.

  Raises:
    ValueError: naming the model, what it takes, what there is, and what would take less.
  """
  frozen = jnp.dtype(rollout.frozen_dtype(config)).itemsize
  # In fp32 the weights and the second moment.
  trained = 0 if config.lora.rank else 8 + jnp.dtype(config.optimizer.first_moment_dtype).itemsize
  kept = 0
  for path, shape in traverse_util.flatten_dict(model.shapes(), sep="/").items():
    shard = layouts.sharding(mesh, path, shape, model.layout).shard_shape(shape)
    moments = trained and 4 if config.train.freeze_vision and model.is_vision(path) else trained
    kept += math.prod(shard) * (frozen + moments)
  there = chips.device_memory(mesh.local_devices[0])
  if there and kept > there:
    raise ValueError(
      f"config.model.path={quoted(config.model.path)} takes {kept / 2**30:.1f} GiB of each device"
      f" for weights and moments, and there are {there / 2**30:.1f} GiB; give a smaller model,"
      f" {config_lib.FEWER_WEIGHTS}"
    )
