"""All that a run reads and keeps from step to step, set up once; see `sejax.train`."""

import dataclasses
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh

from sejax import experience, optimizer, rollout, update
from sejax.clock import Clock
from sejax.data import batches, sources
from sejax.data.pipeline import Options, Pipeline, State
from sejax.data.prepare import Preparer
from sejax.data.records import Source
from sejax.evaluation.heldout import HeldOut
from sejax.models import qwen2_5_vl as qwen
from sejax.parallel import layouts, meshes

_VISION = ("^vision/",)


class Models(NamedTuple):
  """The parameter trees of a run.

  Attributes:
    config: of Actor and reference.
    initial: the policy's, fp32, laid out for training.
    frozen: the same, in the precision of decoding and laid out for it: the reference.
    judge: the Judge's configuration.
    judge_params: its parameters; those of the reference, unless the configuration names others.
  """

  config: qwen.Config
  initial: qwen.Params
  frozen: qwen.Params
  judge: qwen.Config
  judge_params: qwen.Params


class Run(NamedTuple):
  """What stays the same from step to step."""

  mesh: Mesh
  models: Models
  source: Source
  preparer: Preparer
  roles: rollout.Roles
  collector: experience.Collector
  updater: update.Updater
  heldout: HeldOut | None
  steps: int


def set_up(config: ml_collections.ConfigDict, workdir: pathlib.Path, clock: Clock) -> Run:
  """Opens all that a run reads.

  Raises:
    ValueError: naming what cannot work.
  """
  if config.log.compilation_cache:
    jax.config.update("jax_compilation_cache_dir", str(workdir / "compilation_cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  mesh = meshes.create(config.mesh)
  _check_rows(config, mesh)
  models = _load(config, mesh)
  source = sources.open_source(config.data)
  preparer = Preparer.of(config, source)
  processor = preparer.processor
  roles = rollout.Roles.create(config, models.config, processor, mesh, models.judge)
  collate = batches.Collator(
    models.config,
    source.name,
    config.batch_size // jax.process_count(),
    batches.Buckets.of(config.data),
    processor.pad_id,
  )
  steps = num_steps(config, len(source))
  return Run(
    mesh,
    models,
    source,
    preparer,
    roles,
    experience.Collector(config, roles, collate, source, clock),
    _updater(config, models, roles, steps, mesh),
    HeldOut.of(config, roles),
    steps,
  )


def num_steps(config: ml_collections.ConfigDict, records: int) -> int:
  """Returns the number of batches of a run."""
  return config.train.steps or max(1, config.train.epochs * records // config.batch_size)


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


def decoding(run: Run, params: qwen.Params) -> qwen.Params:
  """Returns the policy's weights as the samplers want them; what is so already is not copied."""
  return layouts.place(params, run.mesh, layouts.DECODE, run.roles.actor.dtype)


def _load(config: ml_collections.ConfigDict, mesh: Mesh) -> Models:
  dtype = rollout.frozen_dtype(config)

  model, frozen = qwen.load(config.model.path, mesh, dtype, layouts.DECODE)
  _, initial = qwen.load(config.model.path, mesh, jnp.float32)
  judge, judge_params = model, frozen
  if config.judge.use and config.judge.path:
    judge, judge_params = qwen.load(config.judge.path, mesh, dtype, layouts.DECODE)
  return Models(model, initial, frozen, judge, judge_params)


def _updater(
  config: ml_collections.ConfigDict,
  models: Models,
  roles: rollout.Roles,
  steps: int,
  mesh: Mesh,
) -> update.Updater:
  updates = steps * (config.batch_size // config.mini_batch_size)
  frozen = _VISION if config.train.freeze_vision else ()
  filters = roles.actor.options.filters
  model = dataclasses.replace(models.config, remat=config.model.remat, unroll=config.model.unroll)
  return update.Updater(
    model,
    optimizer.make(config.optimizer, updates, frozen),
    config.loss.to_dict(),
    temperature=filters.temperature,
    banned_ids=filters.banned,
    max_tokens=config.actor.max_tokens,
    dtype=rollout.frozen_dtype(config),
    mesh=mesh,
  )


def _check_rows(config: ml_collections.ConfigDict, mesh: Mesh) -> None:
  shards = layouts.row_shards(mesh)
  for name, size in (
    ("train.micro_batch_size", config.train.micro_batch_size),
    ("eval.batch_size", config.eval.batch_size),
  ):
    if size % shards:
      raise ValueError(
        f"config.{name}={size} must be a multiple of the {shards} parts into which the mesh splits"
        " rows (data times fsdp)"
      )
