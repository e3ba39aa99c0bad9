"""Sets up a training run: opens models and data, and builds samplers and learner."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from absl import logging
from flax import traverse_util
from jax.sharding import Mesh

from sejax import config as config_lib
from sejax import models, rewards, rollout, storage
from sejax.config import parts, paths, validation
from sejax.data import batches, counting, sources, views
from sejax.data import pipeline as pipeline_lib
from sejax.data.prepare import Preparer
from sejax.data.records import Source
from sejax.errors import OptionError
from sejax.evaluation.heldout import HeldOut
from sejax.learner.learner import Learner, make_updater
from sejax.learner.teacher import Teacher
from sejax.models import lora
from sejax.parallel import chips, layouts, meshes
from sejax.parallel.programs import BackgroundCompiler, compile_threads, keep_programs
from sejax.rollout import ModelDirectory, checks, collect
from sejax.text.equivalence import Prover


class InitialWeights(NamedTuple):
  """The weights that a run keeps besides those it trains.

  Attributes:
    model: model of Actor and reference policy.
    frozen: weights of the reference policy, which is the initial policy, in `model.dtype`.
    judge_params: the Judge's weights; the same tree as `frozen` unless `judge.path` is set.
  """

  model: models.Model
  frozen: models.Params
  judge_params: models.Params


class TrainSetup(NamedTuple):
  """The objects of a training run that do not change from step to step.

  Attributes:
    mesh: mesh of all devices.
    initial_weights: frozen parameter trees, in the layout for training.
    load_trained: reads what is trained, as it is before the first step, in fp32: all weights of the
      policy, or new LoRA adapters. A call, so that no copy is kept beside the training state.
    source: source of the training problems.
    preparer: turns records of the source into examples.
    roles: samplers of Actor and Judge.
    collector: collects the rollout of each step.
    learner: trains the policy on a rollout.
    teacher: moves the average of the policy; None without one.
    heldout: held-out problems; None without evaluation.
    prover: grades answers; a context manager that ends its worker processes.
    steps: number of steps of the whole run.
  """

  mesh: Mesh
  initial_weights: InitialWeights
  load_trained: Callable[[], models.Params]
  source: Source
  preparer: Preparer
  roles: rollout.Roles
  collector: collect.Collector
  learner: Learner
  teacher: Teacher | None
  heldout: HeldOut | None
  prover: Prover
  steps: int


def set_up(
  config: ml_collections.ConfigDict, workdir: storage.Path, clock: collect.ClockLike
) -> TrainSetup:
  """Sets up a training run; reads the weights last, after all checks.

  Raises:
    ValueError: a field, file or directory cannot work; the message names it.
  """
  if config.log.compilation_cache:
    keep_programs(workdir)
  policy, judge = _open_models(config)
  source = sources.open_source(config.data)
  preparer = parts.preparer(config, source)
  prover = Prover()
  reward_function = rewards.find(config.rewards.function, prover, config.rewards.options.to_dict())
  _try(config, reward_function, source)
  roles = _make_roles(config, policy, judge, preparer)
  needs_gold = rewards.is_marked(reward_function, "needs_gold")
  pipeline_lib.check(preparer, config.data.max_bad_share, needs_gold=needs_gold)
  records = config.batch_size // (2 if config.data.view.use else 1)
  _warn_of_repetitions(config.batch_size, records, source)
  heldout = _open_heldout(config, policy, roles, training=preparer, prover=prover)
  steps = counting.num_steps(
    config.train, config.data, preparer, workdir, batch_size=records, seed=config.seed
  )
  initial_weights = _load(policy, judge)
  return TrainSetup(
    mesh=policy.mesh,
    initial_weights=initial_weights,
    load_trained=functools.partial(
      _load_trained, lora.Options.of(config.lora), policy, config.seed
    ),
    source=source,
    preparer=preparer,
    roles=roles,
    collector=_make_collector(
      config,
      policy,
      judge,
      roles=roles,
      source=source,
      reward_function=reward_function,
      clock=clock,
    ),
    learner=_make_learner(config, policy, roles, frozen=initial_weights.frozen, steps=steps),
    teacher=parts.teacher(config, steps),
    heldout=heldout,
    prover=prover,
    steps=steps,
  )


def _try(
  config: ml_collections.ConfigDict, function: rewards.RewardFunction | None, source: Source
) -> None:
  """Tries a reward function on a padding row, before anything is read or sampled.

  Raises:
    ValueError: the function or its options cannot work, or views do not fit into batches.
  """
  if config.data.view.use and config.batch_size % (2 * jax.process_count()):
    wanted = f"a multiple of {2 * jax.process_count()}: with data.view.use each problem is two rows"
    raise OptionError("batch_size", config.batch_size, wanted)
  evidence = rewards.of_padding(
    config.group_size,
    config.judge.num_judge_repeats if config.judge.use else 0,
    views=config.data.view.use,
    teacher=config.teacher.use,
  )
  if function is None:
    return
  with validation.options_of_section("method"):  # The function decides how many weights.
    rewards.reward_groups(
      evidence, source, config.method.to_dict(), function, max_tokens=config.actor.max_tokens
    )


def _open_models(config: ml_collections.ConfigDict) -> tuple[ModelDirectory, ModelDirectory]:
  """Opens the directories of policy and Judge; the same object unless `judge.path` is set.

  Raises:
    ValueError: the model does not fit the mesh, the bucket sizes or the device memory.
  """
  paths.require_model(config)
  mesh = meshes.create(config.mesh)
  checks.check_rows(mesh, parts.row_sizes(config))
  policy = parts.model_directory(config, mesh)
  checks.check_buckets(config.data, config.actor.max_tokens, policy.model)
  judge = parts.judge_directory(config, mesh) if config.judge.use else None
  _check_memory(config, policy)
  return policy, judge or policy


def _make_roles(
  config: ml_collections.ConfigDict,
  policy: ModelDirectory,
  judge: ModelDirectory,
  preparer: Preparer,
) -> rollout.Roles:
  """Builds the samplers of Actor and Judge.

  Raises:
    ValueError: a processor does not fit its model, the pixel limits or the prompts.
  """
  checks.check_pixel_limits(config.data, policy.processor)
  if judge is not policy:
    rollout.check_judge(policy, judge)
  options = parts.role_options(config)
  options = parts.with_room(
    config, policy, options, config.batch_size, overlap=bool(config.train.overlap)
  )
  roles = policy.roles(options, judge.model)
  checks.check_prompts(config.data, preparer, roles, judged=config.judge.use)
  return roles


def _open_heldout(
  config: ml_collections.ConfigDict,
  policy: ModelDirectory,
  roles: rollout.Roles,
  *,
  training: Preparer,
  prover: Prover,
) -> HeldOut | None:
  """Opens the held-out problems; returns None without evaluation.

  Args:
    training: preparer of the training problems, to count those among the held-out ones.
  """
  if not config.eval.num_problems:
    return None
  options = parts.evaluation_roles(config)
  if options != parts.role_options(config):
    roles = policy.roles(parts.with_room(config, policy, options, config.eval.batch_size))
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
  policy: ModelDirectory,
  judge: ModelDirectory,
  *,
  roles: rollout.Roles,
  source: Source,
  reward_function: rewards.RewardFunction | None,
  clock: collect.ClockLike,
) -> collect.Collector:
  """Builds the collector, which samples and rewards the rollout of each step."""
  trains_vision = parts.training(config).trains_vision
  collate = batches.Collator(
    model=policy.model,
    dataset=source.name,
    rows=config.batch_size // jax.process_count(),
    buckets=batches.Buckets.of(config.data),
    pad_id=roles.processor.pad_id,
    paired=config.data.view.use,
  )
  return collect.Collector(
    roles=roles,
    collate=collate,
    source=source,
    clock=clock,
    scoring=parts.scoring(config),
    reward_function=reward_function,
    seed=config.seed,
    constant_groups=config.train.constant_groups,
    resample_limit=config.train.resample_limit,
    shares_tower=judge is policy and not trains_vision,
    keep_features=not trains_vision,
  )


def _make_learner(
  config: ml_collections.ConfigDict,
  policy: ModelDirectory,
  roles: rollout.Roles,
  *,
  frozen: models.Params,
  steps: int,
) -> Learner:
  """Builds the learner and the compiled functions that it calls.

  Args:
    frozen: weights of the reference policy.
    steps: training steps of the whole run, for the learning rate.
  """
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
    penalty=options.has_penalty,
    seed=config.seed,
    mask_truncated=options.mask_truncated,
    encode=None if options.trains_vision else roles.encode,
    compiler=BackgroundCompiler(compile_threads(config.compile_threads, policy.mesh)),
  )


def _warn_of_repetitions(batch_size: int, records: int, source: Source) -> None:
  """Warns if batches are larger than the data set, so that records repeat within a step.

  Args:
    records: that a batch reads.
  """
  least, rest = divmod(records, len(source))
  if records > len(source) and jax.process_index() == 0:
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
  config: ml_collections.ConfigDict, preparer: Preparer, states: tuple[pipeline_lib.State, ...]
) -> pipeline_lib.Pipeline:
  """Opens the data pipeline of this process.

  Args:
    states: states of all processes at which to resume; empty starts at the beginning.
  """
  options = pipeline_lib.Options(
    batch_size=config.batch_size,
    seed=config.seed,
    workers=config.data.workers,
    on_bad_record=config.data.on_bad_record,
    max_bad_share=config.data.max_bad_share,
  )
  return pipeline_lib.Pipeline(
    dataclasses.replace(preparer, view=views.Options.of(config.data.view)),
    options,
    process=jax.process_index(),
    processes=jax.process_count(),
    states=states,
  )


def decoding_params(setup: TrainSetup, trained: models.Params) -> models.Params:
  """Returns the policy's parameters in the layout and precision for decoding.

  Arrays that already have this layout and precision are not copied.

  Args:
    trained: trained parameters: all weights, or LoRA adapters.
  """
  params = setup.learner.policy_params(trained)
  layout, dtype = setup.initial_weights.model.decode_layout, setup.roles.actor.dtype
  return layouts.place(params, setup.mesh, layout, dtype)


def _load(policy: ModelDirectory, judge: ModelDirectory) -> InitialWeights:
  """Reads the frozen weights, once for each distinct model."""
  frozen = policy.load()
  judge_params = frozen if judge is policy else judge.load()
  return InitialWeights(model=policy.model, frozen=frozen, judge_params=judge_params)


def _load_trained(
  adapters: lora.Options | None, policy: ModelDirectory, seed: int
) -> models.Params:
  """Reads all weights in fp32, or initialises LoRA adapters, in the layout of training."""
  if adapters is None:
    return policy.load(dtype=jnp.float32)
  init = functools.partial(lora.init, model=policy.model, options=adapters)
  key = jax.random.key(seed)
  shardings = layouts.shardings(jax.eval_shape(init, key), policy.mesh, policy.model.layout)
  return jax.jit(init, out_shardings=shardings)(key)


def _check_memory(config: ml_collections.ConfigDict, policy: ModelDirectory) -> None:
  """Checks that weights and optimizer moments alone fit into a device's memory.

  Raises:
    ValueError: they do not fit; the message gives both sizes and what would take less.
  """
  model, mesh, frozen = policy.model, policy.mesh, policy.compute.dtype.itemsize
  # Bytes per trained parameter: fp32 weight and second moment, and the first moment.
  averaged = 4 if config.teacher.use else 0
  trained = 8 + jnp.dtype(config.optimizer.first_moment_dtype).itemsize + averaged
  trained = 0 if config.lora.rank else trained
  needed = 0
  for path, shape in traverse_util.flatten_dict(model.shapes(), sep="/").items():
    shard = layouts.sharding(mesh, path, shape, model.layout).shard_shape(shape)
    # A frozen vision tower is part of the trained tree, in fp32, but has no moments.
    without_moments = trained and config.train.freeze_vision and model.is_vision(path)
    kept = 4 + averaged if without_moments else trained
    needed += math.prod(shard) * (frozen + kept)
  available = chips.device_memory(mesh.local_devices[0])
  if available and needed > available:
    raise ValueError(
      f"{policy.name} takes {needed / 2**30:.1f} GiB of each device for weights and moments, and"
      f" there are {available / 2**30:.1f} GiB; give a smaller model, {config_lib.FEWER_WEIGHTS}"
    )
