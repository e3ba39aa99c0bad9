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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jaxtyping import DTypeLike

from sejax import models
from sejax.learner import learner, update
from sejax.learner.programs import LearnerPrograms
from sejax.models import lora
from sejax.parallel import layouts
from sejax.parallel.programs import ProgramCall, with_shardings
from sejax.planning import room
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
    overlap: whether a batch is sampled while the policy learns from the one before it.
    teacher: whether there is a teacher, who samples with the Actor's programs.
  """

  compute: Compute
  roles: RoleOptions
  judged: bool
  training: learner.Options
  training_steps: int
  batch_size: int
  data: ml_collections.ConfigDict
  row_sizes: Mapping[str, int]
  overlap: bool
  teacher: bool = False


class _Arrays(NamedTuple):
  """Shapes of the arrays of a step that do not belong to sampling.

  Attributes:
    frozen: weights of the Judge and reference policy.
    state: training state; None without training.
    policy: weights that the Actor samples with.
    images: images of a batch.
    features: their features, by the policy.
    prompt_length: tokens of the Actor's prompts, with padding.
    learner: programs that train the policy.
    learning: the call whose arrays are on the devices while a batch is sampled; None where sampling
      and updates take turns.
    teacher: average of what is trained; None without one.
  """

  frozen: models.Params
  state: update.TrainState | None
  policy: models.Params
  images: models.Images
  features: models.Features
  prompt_length: int
  learner: LearnerPrograms
  learning: ProgramCall | None = None
  teacher: models.Params | None = None

  @classmethod
  def of(cls, step: Step, model: models.Model, mesh: Mesh) -> "_Arrays":
    """Returns the shapes; the model is that on the mesh's devices."""
    actor = _sampler(step, step.roles.actor, model, mesh)
    updater = learner.make_updater(
      step.training,
      model,
      compute=step.compute,
      filters=actor.options.filters,
      steps=step.training_steps,
      mesh=mesh,
    )
    frozen = _parameters(model.shapes(), mesh, model, step.compute.dtype)
    training = LearnerPrograms(
      updater,
      mesh,
      frozen,
      step.training.adapters,
      step.training.sizes,
      step.training.has_penalty,
    )
    state = _train_state(step.training.adapters, model, mesh, updater)
    images = _images(step, model, mesh)
    sampled = state.params
    if step.overlap:
      shardings = jax.tree.map(lambda x: x.sharding, state.params)
      sampled = with_shardings(updater.copy_trained.eval_shape(state.params), shardings)
    policy = training.policy_shapes(sampled)
    arrays = cls(
      frozen=frozen,
      state=state,
      policy=policy,
      images=images,
      features=actor.programs.encode.eval_shape(model.vision_params(policy), images),
      prompt_length=checks.prompt_width(step.data),
      learner=training,
      # Arrays of its own, which count beside those that are trained.
      teacher=jax.tree.map(lambda x: x.update(), state.params) if step.teacher else None,
    )
    if not step.overlap:
      return arrays
    add = next(call for call in arrays.learner_calls(step) if call.name == "add gradient")
    return arrays._replace(learning=add._replace(alive=(sampled, *add.alive)))

  def actor_calls(
    self, step: Step, options: Options, model: models.Model, mesh: Mesh
  ) -> Iterator[ProgramCall]:
    """Yields the calls of sampling trajectories."""
    calls = _sampler(step, options, model, mesh).programs.calls(
      self.policy,
      self.features,
      images=self.images,
      prompts=step.batch_size,
      prompt_length=self.prompt_length,
      given_length=0,
    )
    return _during("actor", calls, self._kept)

  def judge_calls(
    self, step: Step, options: Options, model: models.Model, mesh: Mesh
  ) -> Iterator[ProgramCall]:
    """Yields the calls of sampling verdicts."""
    programs = _sampler(step, options, model, mesh).programs
    # Where the tower is trained, the Judge's own features take the place of the Actor's.
    shared = not step.training.trains_vision
    vision = model.vision_params(self.frozen)
    calls = programs.calls(
      self.frozen,
      self.features if shared else programs.encode.eval_shape(vision, self.images),
      images=None if shared else self.images,
      prompts=step.batch_size,
      prompt_length=step.data.prompt_buckets[-1],
      given_length=padded_length(step.roles.actor.max_new_tokens),
    )
    return _during("judge", calls, (self._kept, self.features if shared else None))

  @property
  def _kept(self) -> Any:
    """What is on the devices beside sampling."""
    learning = self.learning and (self.learning.args, self.learning.alive)
    return self.state, self.frozen, learning, self.teacher

  def learner_calls(self, step: Step) -> Iterator[ProgramCall]:
    """Yields the calls of training."""
    images, features = self.images, self.features
    if step.overlap:  # Those of another batch than the one that is sampled meanwhile.
      images, features = jax.tree.map(lambda x: x.update(), (images, features))
    trains_vision = step.training.trains_vision
    calls = self.learner.calls(
      self.state,
      images if trains_vision else None,
      None if trains_vision else features,
      prompts=step.batch_size,
      prompt_length=self.prompt_length,
    )
    return (call._replace(alive=(*call.alive, self.teacher)) for call in calls)


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
  arrays = _Arrays.of(step, model, mesh)

  def sampling(arrays: _Arrays) -> Iterator[ProgramCall]:
    yield from arrays.actor_calls(step, step.roles.actor, model, mesh)
    if step.judged:
      yield from arrays.judge_calls(step, step.roles.judge, model, mesh)

  yield from sampling(arrays)
  meanwhile = ()
  if step.overlap:
    # Without what learns, which the learner's own calls count.
    calls = sampling(arrays._replace(learning=None))
    fullest = max(calls, key=lambda call: call.alive_bytes)
    meanwhile = (fullest.args, fullest.alive)
  for call in arrays.learner_calls(step):
    yield call._replace(alive=(*call.alive, *meanwhile))


def with_room(
  step: Step, model: models.Model, mesh: Mesh, memory: int, *, trains: bool = True
) -> Step:
  """Returns a step whose roles decode as many rows at once as device memory has room for.

  Only what options leave open is decided: `max_concurrent_rows` and `cache_tokens`. Everything that
  the run keeps meanwhile is counted from its shapes; what programs need beside it is estimated.

  Args:
    memory: bytes that programs can use on each device.
    trains: whether the run trains; otherwise the model's weights are all that it keeps.
  """
  model = step.compute.on_devices(model, mesh)
  arrays = _Arrays.of(step, model, mesh)
  if not trains:
    arrays = arrays._replace(state=None, policy=arrays.frozen, learning=None, teacher=None)
  learning = 0.0
  if arrays.learning:
    learned = dataclasses.replace(model, logits_chunk=step.training.logits_chunk)
    learning = room.of_gradient(arrays.learning, learned, mesh, step.compute.dtype)
  roles = {"actor": arrays.actor_calls}
  if step.judged:
    roles["judge"] = arrays.judge_calls
  found = {
    name: room.of_role(
      getattr(step.roles, name),
      lambda options, calls=calls: calls(step, options, model, mesh),
      model,
      mesh,
      rows=step.batch_size * getattr(step.roles, name).members,
      memory=memory,
      learning=learning,
    )
    for name, calls in roles.items()
  }
  return dataclasses.replace(step, roles=dataclasses.replace(step.roles, **found))


def _sampler(step: Step, options: Options, model: models.Model, mesh: Mesh) -> Sampler:
  """Returns the sampler of a role."""
  return Sampler(model, _with_tokens(options, model), mesh, step.compute.dtype)


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
