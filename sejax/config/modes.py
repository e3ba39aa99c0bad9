"""What the modes of the command line do with a configuration, but for those of `sejax.train`.

Each takes the whole configuration apart, and gives its packages what they need of it.
"""

import functools
import pathlib
from collections.abc import Sequence

import ml_collections

from sejax.config import parts
from sejax.config.paths import with_local_models
from sejax.data import sources
from sejax.errors import OptionError
from sejax.evaluation import evaluate as evaluate_lib
from sejax.evaluation.extractor import Extractor
from sejax.evaluation.responder import Responder
from sejax.models import hub
from sejax.parallel import layouts, meshes
from sejax.planning import compilation
from sejax.reports import inspection
from sejax.reports import training as training_report
from sejax.rewards import recorded
from sejax.rollout import Policy, checks
from sejax.rollout import sample as sample_lib


def plan(config: ml_collections.ConfigDict, topology: str, programs: Sequence[str] = ()) -> bool:
  """Compiles a step's programs for a topology: `--mode=compile`; returns whether all fit a chip.

  Args:
    config: its mesh must be of as many devices as the topology.
    topology: see `compilation.run`.
    programs: likewise.

  Raises:
    ValueError: as `compilation.run`.
    OptionError: the Judge has a path of its own.
  """
  if config.judge.use and config.judge.path:
    wanted = "empty for --mode=compile, which knows no Judge but the frozen policy"
    raise OptionError("judge.path", config.judge.path, wanted)
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


def evaluate(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Evaluates a model, or stored responses, on benchmarks: `--mode=evaluate`.

  Raises:
    ValueError: as `evaluate_lib.run`, or a model cannot be loaded.
  """
  evaluate_lib.chosen(config.eval.sets)  # Said before models are loaded.
  if not config.eval.predictions:
    config = with_local_models(config)
  evaluate_lib.run(
    config.eval,
    workdir,
    responder=None if config.eval.predictions else responder(config),
    extractor=extractor(config) if config.eval.extractor else None,
  )


def responder(config: ml_collections.ConfigDict) -> Responder:
  """Returns the model that benchmarks ask.

  Raises:
    ValueError: it cannot be loaded, or an option cannot work with it.
  """
  if not config.model.path:
    raise ValueError(
      "config.model.path is empty; give the model to evaluate, or stored responses to grade as"
      " config.eval.predictions"
    )
  mesh = meshes.create(config.mesh)
  layouts.check_rows(mesh, "eval.batch_size", config.eval.batch_size)
  policy = parts.policy(config, mesh)
  checks.check_buckets(config.data, config.actor.max_tokens, policy.model)
  checks.check_pixel_limits(config.data, policy.processor)
  roles = parts.roles(config)
  return Responder(
    policy,
    roles.greedy() if config.eval.greedy else roles,
    parts.evaluation(config),
    functools.partial(parts.benchmark_preparer, config),
  )


def extractor(config: ml_collections.ConfigDict) -> Extractor:
  """Returns the model that reads answers.

  Raises:
    ValueError: it cannot be loaded, or an option cannot work with it.
  """
  directory = hub.local_directory("config.eval.extractor", config.eval.extractor)
  mesh = meshes.create(config.mesh)
  layouts.check_rows(mesh, "eval.batch_size", config.eval.batch_size)
  return Extractor(
    config.eval.extractor,
    Policy.open("eval.extractor", directory, mesh, parts.compute(config)),
    config.sampling,
    batch_size=config.eval.batch_size,
    seed=config.seed,
  )


def inspect(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Writes a page about the data set: `--mode=inspect`.

  Raises:
    ValueError: the set or the model's directory cannot be opened.
  """
  if not config.model.path:
    raise ValueError("config.model.path is empty; give a model directory, whose tokens are counted")
  config = with_local_models(config)
  preparer = parts.preparer(config, sources.open_source(config.data))
  inspection.run(config.data, preparer, workdir, batch_size=config.batch_size)


def report(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Writes the page about a training run: `--mode=report`.

  Args:
    config: unused: the page shows the configuration with which the run was started.
    workdir: of the run.

  Raises:
    ValueError: as `training_report.run`.
  """
  del config
  training_report.run(workdir)


def reward(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Computes rewards of recorded groups: `--mode=rewards`.

  Raises:
    ValueError: as `recorded.run`.
  """
  recorded.run(
    config.rewards.recorded, workdir, parts.scoring(config), group_size=config.group_size
  )


def sample(
  config: ml_collections.ConfigDict, images: Sequence[str], question: str, *, judge: bool
) -> None:
  """Samples answers to one question and prints what the method makes of them: `--mode=sample`.

  Args:
    config: of the run.
    images: see `sample_lib.ask`; so are the others.
    question: the problem.
    judge: whether the Judge reads the answers, even if the configuration is of a run without one.

  Raises:
    ValueError: as `sample_lib.ask`.
  """
  if not config.model.path:
    raise ValueError("config.model.path is empty; give a directory of weights: --config.model.path")
  config = with_local_models(config)
  config.judge.use = True
  options = sample_lib.Options(
    roles=parts.roles(config),
    scoring=parts.scoring(config),
    make_preparer=functools.partial(parts.preparer, config),
    seed=config.seed,
  )
  policy = parts.policy(config, sample_lib.local_mesh())
  sample_lib.run(policy, options, images, question, judge=judge)
