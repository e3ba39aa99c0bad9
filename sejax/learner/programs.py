"""The programs of learning from a rollout, called with shapes instead of arrays.

`Learner` compiles by them before it calls, and planning counts by them what a step needs.
"""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sejax import method, models
from sejax.learner import packing, update
from sejax.learner.minibatches import Groups, Sizes, take_program
from sejax.models import lora
from sejax.parallel import layouts
from sejax.parallel.programs import Program, ProgramCall, with_shardings


def scale_adapters(adapters: lora.Options, frozen: models.Params) -> Program:
  """Returns the program that scales adapters to those that forward passes add.

  Args:
    frozen: weights of the policy that is adapted, or their shapes.
  """
  return Program.of(lora.scaled, options=adapters, dtype=jax.tree.leaves(frozen)[0].dtype)


@dataclasses.dataclass(frozen=True)
class LearnerPrograms:
  """What a learner calls, from shapes: every tree of parameters is of `jax.ShapeDtypeStruct`.

  Attributes:
    mesh: mesh of all devices.
    frozen: shapes of the weights of the initial policy.
    adapters: options of the adapters that are trained; None trains all weights.
    sizes: sizes of mini-batches, micro-batches and responses.
    penalty: whether the loss has a KL penalty, which needs log-probs by the initial policy.
  """

  updater: update.Updater
  mesh: Mesh
  frozen: models.Params
  adapters: lora.Options | None
  sizes: Sizes
  penalty: bool

  def policy_shapes(self, trained: models.Params) -> models.Params:
    """Returns the shapes of what `Learner.policy_params` returns."""
    if self.adapters is None:
      return trained
    shardings = jax.tree.map(lambda x: x.sharding, trained)
    scale = scale_adapters(self.adapters, self.frozen)
    scaled = with_shardings(scale.eval_shape(trained), shardings)
    return lora.combine(self.frozen, scaled)

  def calls(
    self,
    state: update.TrainState,
    images: models.Images | None,
    features: models.Features | None,
    *,
    prompts: int,
    prompt_length: int,
    response: int | None = None,
    packed: models.Packing | None = None,
  ) -> Iterator[ProgramCall]:
    """Yields the calls of `Learner.step`.

    Args:
      state: shapes of the train state.
      images: shapes of the images of all prompts; None where there are none.
      features: shapes of their features by the frozen tower; None where the tower is trained.
      prompts: prompts of a rollout, B.
      prompt_length: prompt tokens with padding, P.
      response: response tokens with padding, R; None is the most that there may be.
      packed: packing of a micro-batch, or its shapes; None is the largest that there may be.
    """
    sizes, kept, policy = self.sizes, (state, self.frozen), state.params
    if self.adapters is not None:
      scale = scale_adapters(self.adapters, self.frozen)
      yield ProgramCall("scale adapters", scale, (state.params,), (kept,))
      policy = self.policy_shapes(state.params)
    rows = layouts.row_shards(self.mesh)
    whole = self._group_shapes(
      prompts, prompt_length, response or sizes.max_tokens, images, features
    )
    packed = jax.tree.map(
      lambda x: layouts.row_shape(self.mesh, x.shape, jnp.int32),
      packed or packing.shapes(rows, sizes.trajectories, sizes.capacity(self.mesh, prompt_length)),
    )
    taken = packed.starts.shape[0] * packed.starts.shape[1]
    index = layouts.replicated_shape(self.mesh, (taken,), jnp.int32)
    take = take_program(self.mesh)
    groups = take.eval_shape(whole, index)
    logp = groups.tokens.update(dtype=jnp.float32)
    later = -(-(sizes.minibatches - 1) * prompts // (sizes.minibatches * rows)) * rows
    sampled_logp = layouts.row_shape(self.mesh, (later, *logp.shape[1:]), logp.dtype)
    logprobs, alive = self.updater.token_logprobs, (kept, whole, sampled_logp)
    zeros, add = self.updater.zero_gradient, self.updater.add_gradient
    gradient = with_shardings(
      zeros.eval_shape(state.params), jax.tree.map(lambda x: x.sharding, state.params)
    )
    yield ProgramCall("take groups", take, (whole, index), (*alive, gradient))
    if later:
      yield ProgramCall("log-probs of policy", logprobs, (policy, groups, packed), alive)
    yield ProgramCall("zero gradient", zeros, (state.params,), alive)
    if self.penalty:
      args = (self.frozen, groups, packed)
      yield ProgramCall("log-probs of reference", logprobs, args, (*alive, gradient))
    key = layouts.replicated_shape(self.mesh, (2,), jnp.uint32)
    on_policy = layouts.replicated_shape(self.mesh, (), jnp.bool_)
    ref = logp if self.penalty else None
    micro = update.MicroBatch(groups, packed, on_policy, logp, ref, key)
    frozen = None if self.adapters is None else self.frozen
    counts = method.Denominators(*[layouts.replicated_shape(self.mesh, (), jnp.int32)] * 3)
    args = (gradient, state.params, frozen, micro, counts)
    yield ProgramCall("add gradient", add, args, alive)
    metrics = jax.tree.map(
      lambda x: layouts.replicated_shape(self.mesh, x.shape, x.dtype), add.eval_shape(*args)[1]
    )
    apply = self.updater.apply_gradient
    yield ProgramCall("apply gradient", apply, (state, gradient, metrics), alive)

  def _group_shapes(
    self,
    prompts: int,
    prompt_length: int,
    response: int,
    images: models.Images | None,
    features: models.Features | None,
  ) -> Groups:
    """Returns the shapes of a rollout's groups; the arguments are those of `calls`."""
    rows = functools.partial(layouts.row_shape, self.mesh)
    tokens = (prompts, self.sizes.trajectories, response)
    return Groups(
      ids=rows((prompts, prompt_length), jnp.int32),
      lengths=rows((prompts,), jnp.int32),
      positions=rows((prompts, 3, prompt_length), jnp.int32),
      images=images if features is None else None,
      features=features,
      tokens=rows(tokens, jnp.int32),
      mask=rows(tokens, jnp.bool_),
      advantage=rows(tokens[:-1], jnp.float32),
      behaviour_logp=rows(tokens, jnp.float32),
    )
