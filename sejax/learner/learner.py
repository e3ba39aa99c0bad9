"""Second half of a training step (arXiv:2603.21289): log-probs of a rollout, then the updates.

Axes: B prompts of a rollout, A micro-batches of b prompts, G trajectories, P prompt tokens.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from sejax import models
from sejax.data.batches import Batch
from sejax.learner import optimizer, update
from sejax.learner.checkpoints import Checkpoints
from sejax.learner.minibatches import Cutter, Sizes
from sejax.models import lora
from sejax.parallel import hosts, layouts
from sejax.parallel.programs import Program, ProgramCall, with_shardings
from sejax.rollout import Compute, collect
from sejax.sampling import Filters

# Computes the image features of a batch from the parameters of a vision tower.
Encode = Callable[[models.Params, Batch], models.Features | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """Options of training the policy.

  Attributes:
    optimizer: options of `optimizer.make`.
    loss: options of `method.policy_loss`.
    sizes: sizes of mini-batches, micro-batches and responses.
    adapters: options of the adapters that are trained; None trains all weights.
    freeze_vision: whether the vision tower stays as it is.
    mask_truncated: whether trajectories that were cut at the limit are left out of the loss.
    remat: see `models.transformer.config.ModelConfig`, like the next three.
    unroll: whether layers are unrolled instead of scanned.
    query_chunk: queries whose attention is computed at once.
    logits_chunk: tokens of a row whose logits are computed at once.
  """

  optimizer: Mapping[str, Any]
  loss: Mapping[str, Any]
  sizes: Sizes
  adapters: lora.Options | None
  freeze_vision: bool
  mask_truncated: bool
  remat: str
  unroll: bool
  query_chunk: int
  logits_chunk: int

  @property
  def trains_vision(self) -> bool:
    """Whether updates change the vision tower."""
    return not self.freeze_vision and self.adapters is None


@dataclasses.dataclass(frozen=True)
class Learner:
  """Trains the policy on the rollout of each step.

  Attributes:
    mesh: mesh of all devices.
    frozen: weights of the initial policy, which is also the reference.
    adapters: options of the adapters that are trained; None trains all weights.
    sizes: sizes of mini-batches, micro-batches and responses.
    seed: seed of the run, for objectives that draw tokens.
    mask_truncated: whether trajectories that were cut at the limit are left out of the loss.
    encode: computes image features by the frozen vision tower, for rollouts without any; None where
      the tower is trained.
  """

  updater: update.Updater
  mesh: Mesh
  frozen: models.Params
  adapters: lora.Options | None
  sizes: Sizes
  seed: int
  mask_truncated: bool
  encode: Encode | None

  def policy_params(self, trained: models.Params) -> models.Params:
    """Returns the policy's parameter tree; copies no weights.

    Args:
      trained: all weights, or adapters.
    """
    if self.adapters is None:
      return trained
    return lora.combine(self.frozen, self._scale_adapters(trained))

  @functools.cached_property
  def _scale_adapters(self) -> Program:
    dtype = jax.tree.leaves(self.frozen)[0].dtype
    return Program.of(lora.scaled, options=self.adapters, dtype=dtype)

  def step(
    self, state: update.TrainState, rollout: collect.Rollout, step: int
  ) -> tuple[update.TrainState, list[update.Metrics]]:
    """Updates the policy once per mini-batch, see `method.policy_loss`.

    Log-probs by the policy that sampled are computed for all mini-batches before the first update.

    Args:
      state: donated.
      rollout: its features are donated.
      step: number of the training step.

    Returns:
      The new state, and the metrics of each update, still on the devices.
    """
    parts, advantages, behaviour = self.minibatches(rollout)
    sampled = self.policy_params(state.params)
    old = [self.updater.token_logprobs(sampled, part) for part in parts]
    del sampled  # Without adapters these are the state's arrays, which the update donates.
    reference = [self.updater.token_logprobs(self.frozen, part) for part in parts]
    frozen = None if self.adapters is None else self.frozen
    reports = []
    fields = zip(parts, old, reference, advantages, behaviour, strict=True)
    for number, (part, old_logp, ref_logp, advantage, behaviour_logp) in enumerate(fields):
      keys = update.random_keys(self.seed, step, number, self.sizes.micro_batches)
      batch = update.UpdateBatch(
        minibatch=part,
        old_logp=old_logp,
        ref_logp=ref_logp,
        advantage=advantage,
        behaviour_logp=behaviour_logp,
        key=hosts.replicate(self.mesh, keys),
      )
      state, report = self.updater.update(state, frozen, batch)
      reports.append(report)
    return state, reports

  def minibatches(
    self, rollout: collect.Rollout
  ) -> tuple[
    list[update.Minibatch], list[Float[jax.Array, "A b G"]], list[Float[jax.Array, "A b G R"]]
  ]:
    """Returns the mini-batches of a rollout, their advantages and `behaviour_logp`, on the mesh.

    Args:
      rollout: its features are donated, so that the devices hold them once, in the mini-batches.
    """
    sizes, batch = self.sizes, rollout.batch
    length = sizes.response(int(rollout.result.lengths.max()))

    images, features = batch.packed_images, None
    if images is not None and self.encode is not None:
      images, features = None, rollout.features
      if features is None:  # The rollout was merged from several batches.
        features = self.encode(self.frozen, batch)
    whole = update.Minibatch(
      prompt=batch.actor,
      images=images,
      features=features,
      tokens=rollout.result.tokens[..., :length],
      mask=collect.loss_mask(rollout, length, truncated=not self.mask_truncated),
    )
    parts = self._cutter.cut_tree(whole, _row_axes(whole))
    for x in jax.tree.leaves(rollout.features):
      x.delete()
    return (
      parts,
      self._cutter.cut(collect.advantage(rollout).astype(np.float32)),
      self._cutter.cut(rollout.result.behaviour_logp[..., :length]),
    )

  @property
  def _cutter(self) -> Cutter:
    return Cutter(self.mesh, self.sizes.minibatches, self.sizes.micro_batches)

  def policy_shapes(self, trained: models.Params) -> models.Params:
    """Does what `policy_params` does with shapes: `frozen` is a tree of `jax.ShapeDtypeStruct`."""
    if self.adapters is None:
      return trained
    shardings = jax.tree.map(lambda x: x.sharding, trained)
    scaled = with_shardings(self._scale_adapters.eval_shape(trained), shardings)
    return lora.combine(self.frozen, scaled)

  def calls(
    self,
    state: update.TrainState,
    images: models.Images | None,
    features: models.Features | None,
    *,
    prompts: int,
    prompt_length: int,
    trajectories: int,
  ) -> Iterator[ProgramCall]:
    """Yields the calls of `step`, with responses as long as they may be.

    The learner's `frozen` must be a tree of `jax.ShapeDtypeStruct`.

    Args:
      state: shapes of the train state.
      images: shapes of the images of all prompts; None where there are none.
      features: shapes of their features by the frozen tower; None where the tower is trained.
      prompts: prompts of a rollout, B.
      prompt_length: prompt tokens with padding, P.
      trajectories: of each prompt, G.
    """
    sizes, kept, policy = self.sizes, (state, self.frozen), state.params
    if self.adapters is not None:
      scale = self._scale_adapters
      yield ProgramCall("scale adapters", scale, (state.params,), (kept,))
      policy = self.policy_shapes(state.params)
    cutter, rows = self._cutter, functools.partial(layouts.row_shape, self.mesh)
    tokens = (prompts, trajectories, sizes.max_tokens)
    whole = update.Minibatch(
      prompt=models.Prompt(
        ids=rows((prompts, prompt_length), jnp.int32),
        lengths=rows((prompts,), jnp.int32),
        positions=jax.ShapeDtypeStruct((3, prompts, prompt_length), jnp.int32),
      ),
      images=images if features is None else None,
      features=features,
      tokens=rows(tokens, jnp.int32),
      mask=rows(tokens, jnp.bool_),
    )
    batches = [
      update.UpdateBatch(
        minibatch=jax.tree.map(cutter.shape, whole, _row_axes(whole)),
        old_logp=cutter.shape(rows(tokens, jnp.float32)),
        ref_logp=cutter.shape(rows(tokens, jnp.float32)),
        advantage=cutter.shape(rows(tokens[:-1], jnp.float32)),
        behaviour_logp=cutter.shape(rows(tokens, jnp.float32)),
        key=layouts.replicated_shape(self.mesh, (sizes.micro_batches, 2), jnp.uint32),
      )
      for _ in range(sizes.minibatches)
    ]
    parts = [batch.minibatch for batch in batches]
    for leaf in jax.tree.leaves(features):
      others = [x for x in jax.tree.leaves(features) if x is not leaf]
      for call in cutter.calls(leaf):
        yield call._replace(alive=(*call.alive, kept, others, parts))

    # When the last mini-batch's log-probs are computed, those of all others are there.
    logprobs = self.updater.token_logprobs
    alive = (kept, parts, [(batch.advantage, batch.behaviour_logp) for batch in batches])
    earlier = [batch.old_logp for batch in batches[1:]]
    yield ProgramCall("log-probs of policy", logprobs, (policy, parts[0]), (*alive, earlier))
    earlier = [batch.old_logp for batch in batches], [batch.ref_logp for batch in batches[1:]]
    yield ProgramCall(
      "log-probs of reference", logprobs, (self.frozen, parts[0]), (*alive, earlier)
    )
    frozen = None if self.adapters is None else self.frozen
    yield ProgramCall("update", self.updater.update, (state, frozen, batches[0]), (kept, batches))


def _row_axes(minibatch: update.Minibatch) -> update.Minibatch:
  """Returns the axis of the rows of each array of a whole rollout."""
  axes = jax.tree.map(lambda _: 0, minibatch)
  return axes._replace(prompt=axes.prompt._replace(positions=1))


def make_updater(
  options: Options,
  model: models.Model,
  *,
  compute: Compute,
  filters: Filters,
  steps: int,
  mesh: Mesh,
) -> update.Updater:
  """Creates the updater.

  Args:
    compute: precision and kernels of the forward and backward passes.
    filters: the Actor's sampling filters.
    steps: training steps of the whole run.

  Raises:
    ValueError: an option of the optimizer is out of range.
  """
  model = dataclasses.replace(
    compute.on_devices(model, mesh),
    remat=options.remat,
    unroll=options.unroll,
    query_chunk=options.query_chunk,
    logits_chunk=options.logits_chunk,
  )
  # Adapters are a tree of their own, in which there is no vision tower.
  freezes = options.freeze_vision and options.adapters is None
  frozen = (model.vision_path,) if freezes else ()
  return update.Updater(
    model,
    optimizer.make(options.optimizer, steps * options.sizes.minibatches, frozen),
    options.loss,
    temperature=filters.temperature,
    banned_ids=filters.banned,
    max_tokens=options.sizes.max_tokens,
    dtype=compute.dtype,
    adapters=options.adapters,
    mesh=mesh,
  )


def check_gradients(state: update.TrainState, max_skipped: int, checkpoints: Checkpoints) -> None:
  """Ends a run whose gradients are not finite, step after step.

  Args:
    state: after the step.
    max_skipped: `config.optimizer.max_skipped`.

  Raises:
    ValueError: naming the last good checkpoint.
  """
  in_a_row, total = (int(count) for count in optimizer.skipped(state.optimizer))
  if in_a_row >= max_skipped:
    checkpoints.wait()
    raise ValueError(
      f"the gradient was not finite in the last {in_a_row} optimizer steps ({total} in all);"
      f" config.optimizer.max_skipped is {max_skipped}; the last good checkpoint is of step"
      f" {checkpoints.latest}; lower config.optimizer.learning_rate, or give a larger"
      " config.optimizer.max_skipped"
    )
