"""The second half of a training step (arXiv:2603.21289): log-probs, then the updates."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from sejax import models
from sejax.data.batches import Batch
from sejax.learner import minibatches, optimizer, update
from sejax.learner.checkpoints import Checkpoints
from sejax.models import lora
from sejax.parallel import hosts
from sejax.rollout import Compute, collect
from sejax.sampling import Filters

# Computes the image features of a batch from the parameters of a vision tower.
Encode = Callable[[models.Params, Batch], models.Features | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """How the policy is trained.

  Attributes:
    optimizer: options of `optimizer.make`.
    loss: options of `method.grpo_loss`.
    sizes: how a rollout is cut into mini-batches.
    adapters: what is trained in place of the weights; None: the weights are.
    freeze_vision: whether the vision tower is left as it is.
    mask_truncated: whether trajectories that were cut at the limit are left out of the loss.
    remat: what a layer keeps for its backward pass, see `models.Model`; so are the next three.
    unroll: whether the update is compiled layer by layer.
    query_chunk: queries whose attention is computed at once.
    logits_chunk: tokens of a row whose logits exist at once.
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
  """Trains the policy by the mini-batches of each step.

  Attributes:
    updater: the compiled programs.
    mesh: all devices.
    frozen: the initial policy, which is the reference.
    adapters: what is trained, if not all weights.
    sizes: how a rollout is cut into mini-batches.
    mask_truncated: whether trajectories that were cut at the limit are left out of the loss.
    encode: computes image features by the frozen vision tower, for rollouts that bring none; None
      where the tower is trained.
  """

  updater: update.Updater
  mesh: Mesh
  frozen: models.Params
  adapters: lora.Options | None
  sizes: minibatches.Sizes
  mask_truncated: bool
  encode: Encode | None

  def policy(self, trained: models.Params) -> models.Params:
    """Returns the policy's parameter tree; copies nothing.

    Args:
      trained: all weights, or adapters.
    """
    if self.adapters is None:
      return trained
    return lora.attach(self.frozen, trained, self.adapters)

  def step(
    self, state: update.TrainState, rollout: collect.Rollout
  ) -> tuple[update.TrainState, list[update.Metrics]]:
    """Updates the policy once for each mini-batch, see `method.grpo_loss`.

    Log-probs of the policy that sampled are computed for all mini-batches before the first update.

    Args:
      state: donated.
      rollout: its features are donated, too.

    Returns:
      The new state, and each update's metrics, still on the devices.
    """
    parts, advantages = self.minibatches(rollout)
    sampled = self.policy(state.params)
    old = [self.updater.token_logprobs(sampled, part) for part in parts]
    del sampled  # Without adapters it is the state's, which is donated.
    reference = [self.updater.token_logprobs(self.frozen, part) for part in parts]
    frozen = None if self.adapters is None else self.frozen
    reports = []
    for batch in zip(parts, old, reference, advantages, strict=True):
      state, report = self.updater.update(state, frozen, *batch)
      reports.append(report)
    return state, reports

  def minibatches(
    self, rollout: collect.Rollout
  ) -> tuple[list[update.Minibatch], list[Float[jax.Array, "M b G"]]]:
    """Returns the mini-batches of a step and their advantages, on the mesh.

    Args:
      rollout: its features are donated: the devices hold each once, in the mini-batches.
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
      if features is None:  # of merged batches
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
    )


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
