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
from sejax.config import parts
from sejax.data import batches, counting, sources
from sejax.data import pipeline as pipeline_lib
from sejax.data.pipeline import Options, Pipeline, State
from sejax.data.prepare import Preparer
from sejax.data.records import Source
from sejax.evaluation.heldout import HeldOut
from sejax.learner.learner import Learner, make_updater
from sejax.models import lora
from sejax.parallel import chips, layouts, meshes
from sejax.rollout import Policy, checks, collect
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
  """Opens all that a run reads, the cheapest first: what is wrong is said before weights are read.

  Raises:
    ValueError: naming what cannot work.
  """
  if config.log.compilation_cache:
    _use_compilation_cache(workdir)
  policy, judge = _open_models(config)
  source = sources.open_source(config.data)
  preparer = parts.preparer(config, source)
  prover = Prover()
  function = rewards.find(config.rewards.function, prover)
  roles = _make_roles(config, policy, judge, preparer)
  pipeline_lib.check(preparer, config.data.max_bad_share, needs_gold=rewards.needs_gold(function))
  _explain_repetitions(config.batch_size, source)
  heldout = _open_heldout(config, policy, roles, preparer, prover)
  steps = counting.num_steps(
    config.train, config.data, preparer, workdir, batch_size=config.batch_size, seed=config.seed
  )
  weights = _load(config, policy, judge)
  return TrainSetup(
    mesh=policy.mesh,
    weights=weights,
    source=source,
    preparer=preparer,
    roles=roles,
    collector=_make_collector(
      config, policy, judge, roles=roles, source=source, function=function, stopwatch=stopwatch
    ),
    learner=_make_learner(config, policy, roles, weights.frozen, steps),
    heldout=heldout,
    prover=prover,
    steps=steps,
  )


def _use_compilation_cache(workdir: pathlib.Path) -> None:
  jax.config.update("jax_compilation_cache_dir", str(workdir / "compilation_cache"))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _open_models(config: ml_collections.ConfigDict) -> tuple[Policy, Policy]:
  """Returns the policy and the Judge, which are the same unless the Judge has a path of its own.

  Raises:
    ValueError: the mesh, the lengths of arrays or the memory do not go with the model.
  """
  if not config.model.path:
    raise ValueError("config.model.path is empty; give a model directory, or its name on the hub")
  mesh = meshes.create(config.mesh)
  checks.check_rows(mesh, parts.row_sizes(config))
  policy = judge = parts.policy(config, mesh)
  checks.check_buckets(config.data, config.actor.max_tokens, policy.model)
  if config.judge.use and config.judge.path:
    judge = parts.policy(config, mesh, "judge.path")
  _check_memory(config, policy)
  return policy, judge


def _make_roles(
  config: ml_collections.ConfigDict, policy: Policy, judge: Policy, preparer: Preparer
) -> rollout.Roles:
  """Returns the samplers.

  Raises:
    ValueError: the processors do not go with the models, the pictures, or the prompts.
  """
  checks.check_pixel_limits(config.data, policy.processor)
  if judge is not policy:
    rollout.check_judge(policy, judge)
  roles = policy.roles(parts.roles(config), judge.model)
  checks.check_prompts(config.data, preparer, roles, judged=config.judge.use)
  return roles


def _open_heldout(
  config: ml_collections.ConfigDict,
  policy: Policy,
  roles: rollout.Roles,
  training: Preparer,
  prover: Prover,
) -> HeldOut | None:
  """Returns the held-out problems; None where nothing is evaluated."""
  if not config.eval.num_problems:
    return None
  if config.eval.greedy:
    roles = policy.roles(parts.roles(config).greedy())
  return HeldOut.open(
    config.eval,
    config.data,
    training=training,
    options=parts.evaluation(config),
    roles=roles,
    prover=prover,
  )


def _make_collector(
  config: ml_collections.ConfigDict,
  policy: Policy,
  judge: Policy,
  *,
  roles: rollout.Roles,
  source: Source,
  function: rewards.RewardFunction | None,
  stopwatch: collect.Stopwatch,
) -> collect.Collector:
  trains_vision = parts.training(config).trains_vision
  collate = batches.Collator(
    model=policy.model,
    dataset=source.name,
    rows=config.batch_size // jax.process_count(),
    buckets=batches.Buckets.of(config.data),
    pad_id=roles.processor.pad_id,
  )
  return collect.Collector(
    roles=roles,
    collate=collate,
    source=source,
    clock=stopwatch,
    scoring=parts.scoring(config),
    reward_function=function,
    seed=config.seed,
    constant_groups=config.train.constant_groups,
    resample_limit=config.train.resample_limit,
    shares_tower=judge is policy and not trains_vision,
  )


def _make_learner(
  config: ml_collections.ConfigDict,
  policy: Policy,
  roles: rollout.Roles,
  frozen: models.Params,
  steps: int,
) -> Learner:
  options = parts.training(config)
  updater = make_updater(
    options,
    policy.model,
    compute=policy.compute,
    filters=roles.actor.options.filters,
    steps=steps,
    mesh=policy.mesh,
  )
  return Learner(
    updater=updater,
    mesh=policy.mesh,
    frozen=frozen,
    adapters=options.adapters,
    sizes=options.sizes,
    mask_truncated=options.mask_truncated,
    encode=None if options.trains_vision else roles.encode,
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


def _load(config: ml_collections.ConfigDict, policy: Policy, judge: Policy) -> Weights:
  frozen = policy.load()
  if adapters := lora.Options.of(config.lora):
    initial = _init_adapters(adapters, policy, config.seed)
  else:
    initial = policy.load(dtype=jnp.float32)
  judge_params = frozen if judge is policy else judge.load()
  return Weights(
    model=policy.model,
    initial=initial,
    frozen=frozen,
    judge=judge.model,
    judge_params=judge_params,
  )


def _init_adapters(adapters: lora.Options, policy: Policy, seed: int) -> models.Params:
  make = functools.partial(lora.init, model=policy.model, options=adapters)
  key = jax.random.key(seed)
  places = layouts.shardings(jax.eval_shape(make, key), policy.mesh, policy.model.layout)
  return jax.jit(make, out_shardings=places)(key)


def _check_memory(config: ml_collections.ConfigDict, policy: Policy) -> None:
  """Refuses a policy whose weights and moments alone are more than a device holds.

  Raises:
    ValueError: naming the model, what it takes, what there is, and what would take less.
  """
  model, mesh, frozen = policy.model, policy.mesh, policy.compute.dtype.itemsize
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
      f"{policy.name} takes {kept / 2**30:.1f} GiB of each device for weights and moments, and"
      f" there are {there / 2**30:.1f} GiB; give a smaller model, {config_lib.FEWER_WEIGHTS}"
    )
