"""Second half of a training step (arXiv:2603.21289): log-probs of a rollout, then the updates.

Axes: B prompts of a rollout, M micro-batches of b prompts, G trajectories, P prompt tokens.
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
from sejax.learner import minibatches, optimizer, update
from sejax.learner.checkpoints import Checkpoints
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
    remat: see `models.Model`, as for the next three.
    unroll: see there.
    query_chunk: see there.
    logits_chunk: see there.
  """

  optimizer: Mapping[str, Any]
  loss: Mapping[str, Any]
  sizes: minibatches.Sizes
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
  sizes: minibatches.Sizes
  seed: int
  mask_truncated: bool
  encode: Encode | None

  def policy(self, trained: models.Params) -> models.Params:
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
    sampled = self.policy(state.params)
    old = [self.updater.token_logprobs(sampled, part) for part in parts]
    del sampled  # Without adapters these are the state's arrays, which the update donates.
    reference = [self.updater.token_logprobs(self.frozen, part) for part in parts]
    frozen = None if self.adapters is None else self.frozen
    reports = []
    fields = zip(parts, old, reference, advantages, behaviour, strict=True)
    for number, (part, old_logp, ref_logp, advantage, behaviour_logp) in enumerate(fields):
      keys = update.random_keys(self.seed, step, number, self.sizes.micro_batches)
      scored = update.ScoredMinibatch(
        minibatch=part,
        old_logp=old_logp,
        ref_logp=ref_logp,
        advantage=advantage,
        behaviour_logp=behaviour_logp,
        key=hosts.replicate(self.mesh, keys),
      )
      state, report = self.updater.update(state, frozen, scored)
      reports.append(report)
    return state, reports

  def minibatches(
    self, rollout: collect.Rollout
  ) -> tuple[
    list[update.Minibatch], list[Float[jax.Array, "M b G"]], list[Float[jax.Array, "M b G R"]]
  ]:
    """Returns the mini-batches of a rollout, their advantages and `behaviour_logp`, on the mesh.

    Args:
      rollout: its features are donated, so that the devices hold them once, in the mini-batches.
    """
    sizes, batch = self.sizes, rollout.batch
    length = sizes.response(int(rollout.result.lengths.max()))

    def cut(rows: np.ndarray, axis: int = 0) -> list[jax.Array]:
      return minibatches.cut(self.mesh, rows, sizes.minibatches, sizes.micro_batches, axis)

    def cut_features(rows: jax.Array) -> list[jax.Array]:
      rows = hosts.shard_rows(self.mesh, rows)
      return minibatches.cut_on_devices(self.mesh, rows, sizes.minibatches, sizes.micro_batches)

    def cut_tree(tree: Any, cut_leaf: Callable[[Any], list[jax.Array]]) -> list[Any]:
      leaves, structure = jax.tree.flatten(tree)
      parts = zip(*map(cut_leaf, leaves), strict=True) if leaves else [()] * sizes.minibatches
      return [structure.unflatten(part) for part in parts]

    images, features = batch.images, None
    if images is not None and self.encode is not None:
      images, features = None, rollout.features
      if features is None:  # The rollout was merged from several batches.
        features = self.encode(self.frozen, batch)
    mask = collect.loss_mask(rollout, length, truncated=not self.mask_truncated)
    cut_images, cut_encoded = cut_tree(images, cut), cut_tree(features, cut_features)
    for x in jax.tree.leaves(rollout.features):
      x.delete()
    parts = zip(
      cut(batch.actor.ids),
      cut(batch.actor.lengths),
      cut(batch.actor.positions, axis=1),
      cut_images,
      cut_encoded,
      cut(rollout.result.tokens[..., :length]),
      cut(mask),
      strict=True,
    )
    return (
      [
        update.Minibatch(
          prompt=models.Prompt(ids, lengths, positions),
          images=images,
          features=features,
          tokens=tokens,
          mask=mask,
        )
        for ids, lengths, positions, images, features, tokens, mask in parts
      ],
      cut(collect.advantage(rollout).astype(np.float32)),
      cut(rollout.result.behaviour_logp[..., :length]),
    )

  def policy_shapes(self, trained: models.Params) -> models.Params:
    """Returns what `policy` does, of shapes; the learner's `frozen` must be shapes, too."""
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

    The learner's `frozen` must be given by shapes, too.

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
    cut = functools.partial(
      minibatches.cut_shape, self.mesh, micro=sizes.micro_batches, count=sizes.minibatches
    )

    def cut_tree(tree: Any) -> Any:
      return jax.tree.map(lambda x: cut(x.shape, x.dtype), tree)

    tokens = (prompts, trajectories, sizes.max_tokens)
    parts = [
      update.Minibatch(
        prompt=models.Prompt(
          cut((prompts, prompt_length), jnp.int32),
          cut((prompts,), jnp.int32),
          cut((3, prompts, prompt_length), jnp.int32, axis=1),
        ),
        images=cut_tree(images) if features is None else None,
        features=cut_tree(features),
        tokens=cut(tokens, jnp.int32),
        mask=cut(tokens, jnp.bool_),
      )
      for _ in range(sizes.minibatches)
    ]
    for call in minibatches.cut_calls(self.mesh, features, sizes.micro_batches, sizes.minibatches):
      yield call._replace(alive=(*call.alive, kept, features, parts))

    scored = self.updater.token_logprobs
    old, reference, behaviour = ([cut(tokens, jnp.float32) for _ in parts] for _ in range(3))
    advantages = [cut(tokens[:-1], jnp.float32) for _ in parts]
    alive = (kept, parts, advantages, behaviour)
    yield ProgramCall("log-probs of policy", scored, (policy, parts[0]), alive)
    alive = (*alive, old)
    yield ProgramCall("log-probs of reference", scored, (self.frozen, parts[0]), alive)
    alive = (*alive, reference)
    frozen = None if self.adapters is None else self.frozen
    first = update.ScoredMinibatch(
      minibatch=parts[0],
      old_logp=old[0],
      ref_logp=reference[0],
      advantage=advantages[0],
      behaviour_logp=behaviour[0],
      key=layouts.replicated_shape(self.mesh, (sizes.micro_batches, 2), jnp.uint32),
    )
    yield ProgramCall("update", self.updater.update, (state, frozen, first), alive)


def make_updater(
  options: Options,
  model: models.Model,
  *,
  compute: Compute,
  filters: Filters,
  steps: int,
  mesh: Mesh,
) -> update.Updater:
  """Returns what updates the policy.

  Args:
    compute: how devices compute the frozen policy.
    filters: that the Actor samples by.
    steps: training steps of the whole run.
    mesh: of all devices.

  Raises:
    ValueError: an option of the optimizer cannot be.
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
      f" config.optimizer.max_skipped is {max_skipped}; the last good checkpoint"
      f" is of step {checkpoints.latest}"
    )
