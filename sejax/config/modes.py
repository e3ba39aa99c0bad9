"""Entry points of the command line's modes, except those in `sejax.train`.

Each splits the configuration into the options that the packages it calls take, see `parts`.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence

import ml_collections

from sejax import models, storage
from sejax.config import parts, resume, validation
from sejax.config.paths import require_model, with_local_inputs
from sejax.data import sources
from sejax.errors import OptionError
from sejax.evaluation import evaluate as evaluate_lib
from sejax.evaluation import hub_sets
from sejax.evaluation.extractor import Extractor
from sejax.evaluation.responder import Responder
from sejax.parallel import layouts, meshes
from sejax.parallel.programs import keep_programs
from sejax.planning import compilation, warming
from sejax.reports import comparison, inspection
from sejax.reports import training as training_report
from sejax.rewards import recorded
from sejax.rollout import ModelDirectory, checks
from sejax.rollout import sample as sample_lib


def plan(config: ml_collections.ConfigDict, topology: str, programs: Sequence[str] = ()) -> bool:
  """Compiles a training step for a topology without its devices: `--mode=compile`.

  Args:
    config: its mesh must have as many devices as the topology.
    topology: devices to compile for, see `compilation.run`.
    programs: which programs to compile, see `compilation.run`.

  Returns:
    Whether every program fits into a device's memory.

  Raises:
    ValueError: as `compilation.run`.
    OptionError: `config.judge.path` is set.
  """
  _require_own_judge(config)
  require_model(config)
  if os.path.isdir(config.model.path) or not models.released(config.model.path):
    config = with_local_inputs(config, ("model.path",), {})
  config = config.copy_and_resolve_references()
  if config.model.dtype == "auto":
    config.model.dtype = "bfloat16"
  return compilation.run(
    parts.planned_step(config),
    model=config.model.path,
    mesh_sizes=config.mesh,
    topology=topology,
    programs=programs,
  )


def warm(config: ml_collections.ConfigDict, workdir: storage.Path) -> None:
  """Fills a workdir's compilation cache with a step's programs: `--mode=compile --warm`.

  Raises:
    ValueError: a model cannot be opened, or an option cannot work with it.
    OptionError: the run would not read the cache, or it has a Judge of its own.
  """
  if not config.log.compilation_cache:
    raise OptionError("log.compilation_cache", False, "True for --warm, which fills that cache")
  _require_own_judge(config)
  config = with_local_inputs(config, ("model.path",), resume.commits(workdir))
  mesh = meshes.create(config.mesh)
  directory = parts.model_directory(config, mesh)
  keep_programs(workdir)
  step = parts.planned_step(config)
  roles = parts.with_room(
    config, directory, step.roles, config.batch_size, overlap=bool(config.train.overlap)
  )
  count = warming.run(dataclasses.replace(step, roles=roles), directory.model, mesh)
  print(f"{count} programs are in {workdir / 'compilation_cache'}")


def _require_own_judge(config: ml_collections.ConfigDict) -> None:
  """Checks that the Judge is the frozen policy, as planning knows no other.

  Raises:
    OptionError: it is another model.
  """
  if config.judge.use and config.judge.path:
    wanted = "empty for --mode=compile, which knows no Judge but the frozen policy"
    raise OptionError("judge.path", config.judge.path, wanted)


def evaluate(config: ml_collections.ConfigDict, workdir: storage.Path) -> None:
  """Evaluates a model or stored responses on benchmarks: `--mode=evaluate`.

  Raises:
    ValueError: as `evaluate_lib.run`, or a model cannot be loaded.
  """
  names = evaluate_lib.chosen(config.eval.sets)  # Reports wrong ones before models are loaded.
  reads = ("eval.predictions",) if config.eval.predictions else ("model.path",)
  commits = resume.commits(workdir)
  config = with_local_inputs(config, (*reads, "eval.sets_path", "eval.extractor"), commits)
  if hub_sets.is_asked_for(config.eval.sets_path):
    config.eval.sets_path = hub_sets.download(
      names, config.eval.sets_path, config.eval.revision, commits
    )
  resume.save_commits(commits, workdir)
  evaluate_lib.run(
    config.eval,
    workdir,
    responder=None if config.eval.predictions else responder(config),
    extractor=extractor(config) if config.eval.extractor else None,
  )


def responder(config: ml_collections.ConfigDict) -> Responder:
  """Returns the model that answers benchmarks.

  Raises:
    ValueError: the model cannot be loaded, or an option cannot work with it.
  """
  require_model(
    config, "give the model to evaluate, or stored responses to grade as config.eval.predictions"
  )
  mesh = meshes.create(config.mesh)
  sizes = parts.row_sizes(config)
  checks.check_rows(mesh, {name: sizes[name] for name in sizes if name.startswith("eval.")})
  model_directory = parts.model_directory(config, mesh)
  checks.check_buckets(config.data, config.actor.max_tokens, model_directory.model)
  checks.check_pixel_limits(config.data, model_directory.processor)
  return Responder(
    model_directory,
    parts.with_room(
      config,
      model_directory,
      parts.evaluation_roles(config),
      config.eval.batch_size,
      trains=False,
    ),
    parts.evaluation(config),
    functools.partial(parts.benchmark_preparer, config),
  )


def extractor(config: ml_collections.ConfigDict) -> Extractor:
  """Returns the model that extracts answers from responses.

  Raises:
    ValueError: the model cannot be loaded, or an option cannot work with it.
  """
  mesh = meshes.create(config.mesh)
  layouts.check_rows(mesh, "eval.batch_size", config.eval.batch_size)
  return Extractor(
    config.eval.extractor,
    ModelDirectory.open("eval.extractor", config.eval.extractor, mesh, parts.compute(config)),
    config.sampling,
    batch_size=config.eval.batch_size,
    seed=config.seed,
  )


def inspect(config: ml_collections.ConfigDict, workdir: storage.Path) -> None:
  """Writes a page about the data set: `--mode=inspect`.

  Raises:
    ValueError: the data set or the model directory cannot be opened.
  """
  require_model(config, "give a model directory, whose tokens are counted")
  commits = resume.commits(workdir)
  config = with_local_inputs(config, ("model.path", "data.path", "data.image_folder"), commits)
  resume.save_commits(commits, workdir)
  preparer = parts.preparer(config, sources.open_source(config.data))
  inspection.run(config.data, preparer, workdir, batch_size=config.batch_size)


def report(workdir: storage.Path, runs: Sequence[storage.Path] = ()) -> None:
  """Writes the page about a training run, or one that compares runs: `--mode=report`.

  Args:
    workdir: of the run; or where the comparison goes.
    runs: workdirs to compare; empty: the page is about one run.

  Raises:
    ValueError: as `training_report.run` and `comparison.run`.
  """
  if runs:
    comparison.run(runs, workdir / "comparison.html")
  else:
    training_report.run(workdir)


def reward(config: ml_collections.ConfigDict, workdir: storage.Path) -> None:
  """Computes rewards of recorded groups: `--mode=rewards`.

  Raises:
    ValueError: as `recorded.run`.
    OptionError: an option of the method needs lengths in tokens, which are not recorded.
  """
  config = with_local_inputs(config, ("rewards.recorded",), {})
  with validation.options_of_section("method"):
    recorded.run(
      config.rewards.recorded, workdir, parts.scoring(config), group_size=config.group_size
    )


def sample(
  config: ml_collections.ConfigDict, images: Sequence[str], question: str, *, judge: bool
) -> None:
  """Samples and scores trajectories for one question and prints them: `--mode=sample`.

  Args:
    images: see `sample_lib.ask`.
    question: see `sample_lib.ask`.
    judge: whether to ask the Judge; takes the place of `config.judge.use`.

  Raises:
    ValueError: as `sample_lib.ask`.
  """
  require_model(config, "give a directory of weights: --config.model.path")
  config = config.copy_and_resolve_references()
  config.judge.use = judge
  config = with_local_inputs(config, ("model.path", "judge.path"), {})
  images = [storage.local_copy("--image", image) for image in images]
  mesh = sample_lib.local_mesh()
  sample_lib.run(
    parts.model_directory(config, mesh),
    parts.sample_options(config),
    images,
    question,
    judge=judge,
    judge_directory=parts.judge_directory(config, mesh) if judge else None,
  )
