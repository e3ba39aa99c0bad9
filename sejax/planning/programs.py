"""The calls of one training step, from shapes alone: no weights, no data, no devices.

The sampler and the learner say which programs they run; here are the shapes that a configuration
lets them have at most: all buckets full, every trajectory as long as it may be. Each call comes
with the arrays that are on the devices meanwhile: while the Actor samples, for instance, the
optimizer's moments.

Left out are the kernels of `sejax.method`, which compute on a few numbers of each group.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jaxtyping import DTypeLike

from sejax import models
from sejax.learner import learner, update
from sejax.models import lora
from sejax.parallel import layouts
from sejax.parallel.programs import ProgramCall, with_shardings
from sejax.rollout import Compute, RoleOptions, checks, padded_length
from sejax.sampling import Options, Sampler


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


def of_step(step: Step, model: models.Model, mesh: Mesh) -> Iterator[ProgramCall]:
  """Yields the calls in the order in which a step makes them.

  Args:
    mesh: of the devices that are compiled for; they need not be there.

  Raises:
    ValueError: the mesh, a bucket or an option of the configuration cannot work.
  """
  checks.check_rows(mesh, step.row_sizes)
  checks.check_buckets(step.data, step.roles.actor.max_new_tokens, model)
  model = step.compute.on_devices(model, mesh)
  dtype = step.compute.dtype

  actor = Sampler(model, _with_tokens(step.roles.actor, model), mesh, dtype)
  updater = learner.make_updater(
    step.training,
    model,
    compute=step.compute,
    filters=actor.options.filters,
    steps=step.training_steps,
    mesh=mesh,
  )
  frozen = _parameters(model.shapes(), mesh, model, dtype)
  training = learner.Learner(
    updater=updater,
    mesh=mesh,
    frozen=frozen,
    adapters=step.training.adapters,
    sizes=step.training.sizes,
    seed=0,  # of values, not of shapes
    mask_truncated=step.training.mask_truncated,
    encode=None,
  )
  state = _train_state(step.training.adapters, model, mesh, updater)
  kept = (state, frozen)

  images = _images(step, model, mesh)
  prompt_length = checks.prompt_width(step.data)
  policy = training.policy_shapes(state.params)
  features = actor.programs.encode.eval_shape(model.vision_params(policy), images)
  calls = actor.programs.calls(
    policy,
    features,
    images=images,
    prompts=step.batch_size,
    prompt_length=prompt_length,
    given_length=0,
  )
  yield from _during("actor", calls, kept)

  if step.judged:
    judge = Sampler(model, _with_tokens(step.roles.judge, model), mesh, dtype)
    # Where the tower is trained, the Judge's own features take the place of the Actor's.
    shared = not step.training.trains_vision
    calls = judge.programs.calls(
      frozen,
      features if shared else judge.programs.encode.eval_shape(model.vision_params(frozen), images),
      images=None if shared else images,
      prompts=step.batch_size,
      prompt_length=step.data.prompt_buckets[-1],
      given_length=padded_length(step.roles.actor.max_new_tokens),
    )
    yield from _during("judge", calls, (kept, features) if shared else kept)

  yield from training.calls(
    state,
    images if step.training.trains_vision else None,
    None if step.training.trains_vision else features,
    prompts=step.batch_size,
    prompt_length=prompt_length,
    trajectories=step.roles.actor.trajectories,
  )


def _during(role: str, calls: Iterator[ProgramCall], kept: Any) -> Iterator[ProgramCall]:
  """Yields a role's calls by its name, beside what the run keeps."""
  for call in calls:
    yield call._replace(name=f"{role} {call.name}", alive=(call.alive, kept))


def _with_tokens(options: Options, model: models.Model) -> Options:
  """Returns options with the tokens that the model itself knows: there may be no processor."""
  filters = dataclasses.replace(options.filters, banned=(model.image_token_id,))
  # No program depends on the padding, which the host writes.
  return dataclasses.replace(options, filters=filters, eos_ids=model.eos_ids, pad_id=0)


def _parameters(tree: Any, mesh: Mesh, model: models.Model, dtype: DTypeLike) -> Any:
  """Returns the shapes of a tree of parameters in the layout of training.

  Args:
    tree: a tuple for each array.
    dtype: of all of them.
  """
  shapes = jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, dtype),
    tree,
    is_leaf=lambda node: isinstance(node, tuple),
  )
  return with_shardings(shapes, layouts.shardings(shapes, mesh, model.layout))


def _train_state(
  adapters: lora.Options | None, model: models.Model, mesh: Mesh, updater: update.Updater
) -> update.TrainState:
  """Returns the shapes of what updates change: master weights or adapters, and moments."""
  if adapters is None:
    trained = _parameters(model.shapes(), mesh, model, jnp.float32)
  else:
    make = functools.partial(lora.init, model=model, options=adapters)
    trained = jax.eval_shape(make, jax.eval_shape(jax.random.key, 0))
  state = jax.eval_shape(updater.init, trained)
  return with_shardings(state, layouts.shardings(state, mesh, model.layout))


def _images(step: Step, model: models.Model, mesh: Mesh) -> models.Images:
  """Returns the shapes of a batch's images in the largest bucket, from those of one empty row."""
  none = np.zeros((0, model.patch_dim), np.float32)
  row = model.pack_images([none], [np.zeros((0, 3), np.int32)], step.data.patch_buckets[-1])
  return jax.tree.map(
    lambda x: layouts.row_shape(mesh, (step.batch_size, *x.shape[1:]), x.dtype), row
  )
