"""Builds the options that packages take, frozen dataclasses, from the configuration.

No package below this one sees the whole configuration. A function that reads one section gets that
section; one that needs fields of several gets one of these objects.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import ml_collections
from jax.sharding import Mesh

from sejax import rewards, rollout
from sejax.data import batches
from sejax.data.prepare import Preparer
from sejax.data.records import Source
from sejax.evaluation import answering
from sejax.learner import learner, minibatches
from sejax.learner.teacher import Teacher
from sejax.models import lora
from sejax.parallel import chips, hosts
from sejax.planning import programs
from sejax.rollout import expected_score, sample
from sejax.sampling import Filters, Options
from sejax.text import prompts


def compute(config: ml_collections.ConfigDict) -> rollout.Compute:
  """Returns precision and kernels for sampling; `model.dtype=auto` depends on the devices."""
  name = config.model.dtype
  if name == "auto":
    name = "bfloat16" if chips.has_bfloat16(jax.devices()[0]) else "float32"
  return rollout.Compute(
    dtype=jnp.dtype(name),
    fused_attention=config.model.fused_attention,
    layered_cache=config.sampling.layered_cache,
  )


def model_directory(
  config: ml_collections.ConfigDict, mesh: Mesh, field: str = "model.path"
) -> rollout.ModelDirectory:
  """Opens the model directory that a field names, with the configured pixel limits.

  Args:
    field: dotted name of the field, with one section.

  Raises:
    ValueError: as `rollout.ModelDirectory.open`.
  """
  section, name = field.split(".")
  return rollout.ModelDirectory.open(
    field,
    config[section][name],
    mesh,
    compute(config),
    min_pixels=config.data.min_pixels,
    max_pixels=config.data.max_pixels,
  )


def judge_directory(config: ml_collections.ConfigDict, mesh: Mesh) -> rollout.ModelDirectory | None:
  """Opens the Judge's model directory; None if the Judge is the policy's model.

  Raises:
    ValueError: as `rollout.ModelDirectory.open`.
  """
  return model_directory(config, mesh, "judge.path") if config.judge.path else None


def role_options(config: ml_collections.ConfigDict) -> rollout.RoleOptions:
  """Returns the sampling options of Actor and Judge."""
  actor = _role(config, config.actor, repeats=1)
  certainty_temperature = config.actor.certainty_temperature or config.actor.temperature or 1.0
  judge = _role(config, config.judge, repeats=config.judge.num_judge_repeats)
  if config.judge.expected:
    judge = dataclasses.replace(judge, max_new_tokens=expected_score.USUAL_STEPS)
  return rollout.RoleOptions(
    actor=dataclasses.replace(actor, certainty_temperature=certainty_temperature),
    judge=judge,
    expected=config.judge.expected,
  )


def evaluation_roles(config: ml_collections.ConfigDict) -> rollout.RoleOptions:
  """Returns the sampling options of Actor and Judge in evaluation."""
  config = config.copy_and_resolve_references()
  for section in (config.actor, config.judge):
    section.max_concurrent_rows = config.eval.max_concurrent_rows
  options = role_options(config)
  return options.greedy() if config.eval.greedy else options


def with_room(
  config: ml_collections.ConfigDict,
  directory: rollout.ModelDirectory,
  options: rollout.RoleOptions,
  batch_size: int,
  *,
  trains: bool = True,
  overlap: bool = False,
) -> rollout.RoleOptions:
  """Returns options that let roles decode as many rows at once as device memory has room for.

  On CPUs nothing is changed: their memory is shared with all other programs.

  Args:
    directory: model of the Actor; the Judge is counted as if it were of the same size.
    batch_size: prompts that are sampled together, over all processes.
    trains: whether the run trains; otherwise there is no Judge either.
    overlap: whether the policy learns meanwhile.
  """
  device = jax.local_devices()[0]
  memory = None if device.platform == "cpu" else chips.device_memory(device)
  if memory is None:
    return options
  # The least of all processes, which must take the same decisions.
  memory = min(hosts.gather_json(memory))  # more than an int32, which arrays would have
  step = planned_step(config)
  step = dataclasses.replace(
    step,
    roles=options,
    batch_size=batch_size,
    judged=step.judged and trains,
    overlap=overlap,
  )
  return programs.with_room(step, directory.model, directory.mesh, memory, trains=trains).roles


def _role(
  config: ml_collections.ConfigDict, section: ml_collections.ConfigDict, repeats: int
) -> Options:
  """Returns the sampling options of one role.

  Args:
    section: `config.actor` or `config.judge`.
    repeats: sequences per trajectory: 1 for the Actor, the number of verdicts M for the Judge.
  """
  return Options(
    trajectories=config.group_size,
    max_new_tokens=section.max_tokens,
    filters=Filters(
      temperature=section.temperature,
      top_k=section.top_k,
      top_p=section.top_p,
      min_p=section.min_p,
    ),
    repeats=repeats,
    max_concurrent_rows=section.max_concurrent_rows,
    cache_tokens=config.sampling.cache_tokens,
    decode_steps=config.sampling.decode_steps,
    pack=config.sampling.pack,
    compile_threads=config.compile_threads,
  )


def sample_options(config: ml_collections.ConfigDict) -> sample.Options:
  """Returns the options of `--mode=sample`, with a Judge whatever `config.judge.use` says."""
  config = config.copy_and_resolve_references()
  config.judge.use = True
  roles = role_options(config)
  actor = dataclasses.replace(roles.actor, certainty_temperature=None)
  return sample.Options(
    role_options=dataclasses.replace(roles, actor=actor),
    scoring=scoring(config),
    make_preparer=functools.partial(preparer, config),
    seed=config.seed,
  )


def preparer(config: ml_collections.ConfigDict, source: Source) -> Preparer:
  """Returns the preparer, which turns records of a source into prompts of both roles.

  It also makes the Judge's prompts in a run without a Judge, so that runs with and without one drop
  the same records.
  """
  data, judge = config.data, config.judge
  rubric = prompts.Rubric(**judge.weights)
  return Preparer(
    source=source,
    directory=config.model.path,
    min_pixels=data.min_pixels,
    max_pixels=data.max_pixels,
    prompt_limit=data.prompt_limit,
    judge_limit=data.prompt_buckets[-1],
    patch_limit=data.patch_buckets[-1],
    instruction=config.actor.instruction,
    include_instruction=judge.include_instruction,
    judge_system=judge.system or prompts.judge_system(rubric, judge.rubric),
  )


def benchmark_preparer(config: ml_collections.ConfigDict, source: Source) -> Preparer:
  """Returns the preparer for benchmarks, with `config.eval.instruction` for the Actor's."""
  return dataclasses.replace(preparer(config, source), instruction=config.eval.instruction)


def scoring(config: ml_collections.ConfigDict) -> rewards.Scoring:
  """Returns the options for turning texts into rewards."""
  answers, judge = config.answers, config.judge
  return rewards.Scoring(
    reading=rewards.Reading(
      equivalence=answers.equivalence,
      unparsable=answers.unparsable,
      released_extraction=answers.released_extraction,
      released_reading=judge.released_reading,
      contradictory=judge.contradictory,
    ),
    method=config.method.to_dict(),
    repeats=judge.num_judge_repeats if judge.use else 0,
  )


def evaluation(config: ml_collections.ConfigDict) -> answering.Options:
  """Returns the options for answering held-out problems and benchmarks."""
  return answering.Options(
    batch_size=config.eval.batch_size,
    buckets=batches.Buckets.of(config.data),
    workers=config.data.workers,
    seed=config.seed,
    reading=scoring(config).reading,
  )


def training(config: ml_collections.ConfigDict) -> learner.Options:
  """Returns the options of the learner.

  Raises:
    ConfigError: a field of `config.lora` is out of range.
  """
  model, train = config.model, config.train
  return learner.Options(
    optimizer=config.optimizer.to_dict(),
    loss=config.loss.to_dict(),
    sizes=minibatches.Sizes(
      minibatches=config.batch_size // config.mini_batch_size,
      micro_batch_size=train.micro_batch_size,
      trajectories=config.group_size,
      max_tokens=config.actor.max_tokens,
      response_buckets=tuple(train.response_buckets),
    ),
    adapters=lora.Options.of(config.lora),
    freeze_vision=train.freeze_vision,
    mask_truncated=train.mask_truncated,
    remat=model.remat,
    unroll=model.unroll,
    query_chunk=model.query_chunk,
    logits_chunk=model.logits_chunk,
  )


def teacher(config: ml_collections.ConfigDict, steps: int) -> Teacher | None:
  """Returns how the average of the policy moves; None without one.

  Args:
    steps: training steps of the whole run.
  """
  options = config.teacher
  return Teacher(options.start, options.end, steps) if options.use else None


def row_sizes(config: ml_collections.ConfigDict) -> dict[str, int]:
  """Returns the batch sizes that the mesh must split evenly, by the names of their fields."""
  sizes = {
    "batch_size": config.batch_size,
    "train.micro_batch_size": config.train.micro_batch_size,
    "eval.batch_size": config.eval.batch_size,
  }
  for role in ("actor", "judge", "eval"):
    sizes[f"{role}.max_concurrent_rows"] = config[role].max_concurrent_rows
  return {name: size for name, size in sizes.items() if size is not None}


def planned_step(config: ml_collections.ConfigDict) -> programs.Step:
  """Returns the training step as it is planned.

  For `--mode=compile`, which knows no backend, `model.dtype` must not be `auto`.
  """
  return programs.Step(
    compute=compute(config),
    roles=role_options(config),
    judged=config.judge.use,
    training=training(config),
    training_steps=config.train.steps or config.optimizer.warmup_steps + 1,
    batch_size=config.batch_size,
    data=config.data,
    row_sizes=row_sizes(config),
    overlap=bool(config.train.overlap),
    teacher=config.teacher.use,
  )
