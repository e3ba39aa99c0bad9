"""Second half of a training step (arXiv:2603.21289): log-probs of a rollout, then the updates.

Axes: B prompts of a rollout, G trajectories, P prompt tokens, R response tokens, N row shards.
"""

import dataclasses
import functools
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int

from sejax import method, models
from sejax.data.batches import Batch
from sejax.learner import optimizer, packing, update
from sejax.learner.checkpoints import Checkpoints
from sejax.learner.minibatches import Groups, Sizes, all_lengths, stream_order, take_program
from sejax.learner.pending import Pending
from sejax.learner.programs import LearnerPrograms, scale_adapters
from sejax.models import lora
from sejax.parallel import hosts, layouts
from sejax.parallel.programs import BackgroundCompiler, Program, shapes_of
from sejax.rollout import Compute, collect
from sejax.sampling import Filters, Result

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

  @property
  def has_penalty(self) -> bool:
    """Whether the loss has a KL penalty, which needs log-probs by the initial policy."""
    return self.loss["kl_coef"] > 0


class Minibatch(NamedTuple):
  """How the groups of one optimizer step are packed.

  Attributes:
    rows: of each micro-batch; groups are counted within the rollout.
    counts: tokens and trajectories that enter the loss, on the mesh.
  """

  rows: list[packing.Rows]
  counts: method.Denominators


@dataclasses.dataclass(frozen=True)
class Learner:
  """Trains the policy on the rollout of each step.

  Attributes:
    mesh: mesh of all devices.
    frozen: weights of the initial policy, which is also the reference.
    adapters: options of the adapters that are trained; None trains all weights.
    sizes: sizes of mini-batches, micro-batches and responses.
    penalty: whether the loss has a KL penalty, which needs log-probs by the initial policy.
    seed: seed of the run, for objectives that draw tokens.
    mask_truncated: whether trajectories that were cut at the limit are left out of the loss.
    encode: computes image features by the frozen vision tower, for rollouts without any; None where
      the tower is trained.
    compiler: compiles the programs of a step before they are called.
  """

  updater: update.Updater
  mesh: Mesh
  frozen: models.Params
  adapters: lora.Options | None
  sizes: Sizes
  penalty: bool
  seed: int
  mask_truncated: bool
  encode: Encode | None
  compiler: BackgroundCompiler

  @property
  def log_prob_passes(self) -> float:
    """Forward passes over a rollout beside the updates: by the policy before, and the reference.

    The first update computes the log-probs of the policy before it itself.
    """
    return (self.sizes.minibatches - 1) / self.sizes.minibatches + self.penalty

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
    return scale_adapters(self.adapters, self.frozen)

  def step(
    self, state: update.TrainState, rollout: collect.Rollout, step: int
  ) -> Pending[tuple[update.TrainState, list[update.Metrics]]]:
    """Updates the policy once per mini-batch, see `method.policy_loss`.

    Log-probs by the policy before the first update are computed for all mini-batches but the first:
    its update computes them itself.

    Args:
      state: donated, with the first update.
      rollout: its features are deleted.
      step: number of the training step.

    Returns:
      The new state, and the metrics of each update; nothing was sent to the devices yet.
    """
    return Pending(self._send_step(state, rollout, step))

  def _send_step(
    self, state: update.TrainState, rollout: collect.Rollout, step: int
  ) -> Generator[None, None, tuple[update.TrainState, list[update.Metrics]]]:
    """Does what `step` returns, and pauses after each micro-batch."""
    self.compiler.wait()
    groups, minibatches = self.minibatches(rollout)
    policy, old = self.policy_params(state.params), []
    for part in minibatches[1:]:
      old.append([])
      for rows in part.rows:
        old[-1].append(self.updater.token_logprobs(policy, *self.micro_batch(groups, rows)))
        yield
    del policy  # Without adapters these are the state's arrays, which the update donates.
    frozen = None if self.adapters is None else self.frozen
    reports = []
    for number, part in enumerate(minibatches):
      micro_batches = self.micro_batches(
        groups, part, old[number - 1] if number else None, step, number
      )
      state, report = yield from self.updater.send_update(state, frozen, micro_batches, part.counts)
      reports.append(report)
    for x in jax.tree.leaves(groups):
      x.delete()
    return state, reports

  def micro_batches(
    self,
    groups: Groups,
    part: Minibatch,
    old: Sequence[Float[jax.Array, "K G R"]] | None,
    step: int,
    number: int,
  ) -> Iterator[update.MicroBatch]:
    """Yields the micro-batches of a mini-batch, with log-probs by the initial policy.

    Args:
      old: log-probs by the policy before the step, by micro-batch; None for the first mini-batch.
      step: number of the training step.
      number: of the mini-batch in the step.
    """
    for index, rows in enumerate(part.rows):
      taken, packed = self.micro_batch(groups, rows)
      key = update.random_key(self.seed, step, number, index)
      yield update.MicroBatch(
        groups=taken,
        packing=packed,
        on_policy=hosts.replicate(self.mesh, np.bool_(old is None)),
        old_logp=taken.behaviour_logp if old is None else old[index],
        ref_logp=self.updater.token_logprobs(self.frozen, taken, packed) if self.penalty else None,
        key=hosts.replicate(self.mesh, key),
      )
      del taken, packed  # Else they would be held while the next ones are taken.

  def micro_batch(self, groups: Groups, rows: packing.Rows) -> tuple[Groups, models.Packing]:
    """Returns the groups of a micro-batch and their packing, both on the mesh."""
    index = hosts.replicate(self.mesh, rows.groups.reshape(-1))
    packed = jax.tree.map(lambda x: hosts.shard_identical(self.mesh, x), rows.packing)
    return take_program(self.mesh)(groups, index), packed

  def minibatches(self, rollout: collect.Rollout) -> tuple[Groups, list[Minibatch]]:
    """Returns the groups of a rollout on the mesh, and how its mini-batches are packed.

    Every process must call it. A mini-batch holds consecutive groups of the data's stream, so that
    it does not depend on the number of processes.

    Args:
      rollout: its features become those of the groups.
    """
    batch, result = rollout.batch, rollout.result
    mask, parts = self._packed(batch, result, rollout.in_loss)
    length = mask.shape[-1]
    images, features = batch.packed_images, None
    if images is not None and self.encode is not None:
      images, features = None, rollout.features
      if features is None:  # The rollout was merged from several batches.
        features = self.encode(self.frozen, batch)
    groups = Groups(
      ids=batch.actor.ids,
      lengths=batch.actor.lengths,
      positions=np.moveaxis(batch.actor.positions, 1, 0),
      images=images,
      features=features,
      tokens=result.tokens[..., :length],
      mask=mask,
      advantage=collect.advantage(rollout).astype(np.float32),
      behaviour_logp=result.behaviour_logp[..., :length],
    )
    return jax.tree.map(lambda x: hosts.shard_rows(self.mesh, x), groups), parts

  def _packed(
    self, batch: Batch, result: Result, in_loss: Bool[np.ndarray, " B"]
  ) -> tuple[Bool[np.ndarray, "B G R"], list[Minibatch]]:
    """Returns which tokens enter the loss, and how mini-batches are packed.

    Args:
      in_loss: groups that enter the loss.
    """
    sizes = self.sizes
    length = sizes.response(int(result.lengths.max()))
    mask = collect.loss_mask(result, in_loss, length, truncated=not self.mask_truncated)
    lengths = all_lengths(self.mesh, batch.actor.lengths, mask)
    capacity = sizes.capacity(self.mesh, batch.actor.ids.shape[1])
    parts = [
      self._minibatch(lengths[index], index, capacity)
      for index in np.split(stream_order(len(lengths)), sizes.minibatches)
    ]
    return mask, parts

  def _minibatch(
    self,
    lengths: Int[np.ndarray, "b 1+G"],
    index: Int[np.ndarray, " b"],
    capacity: packing.Capacity,
  ) -> Minibatch:
    """Packs a mini-batch.

    Args:
      lengths: of its groups, see `packing.pack`.
      index: its groups, counted within the rollout.
    """
    rows = packing.pack(lengths, layouts.row_shards(self.mesh), capacity)
    trajectories = lengths[:, 1:]
    counts = (trajectories.sum(), (trajectories > 0).sum(), self.sizes.max_tokens)
    return Minibatch(
      [x._replace(groups=np.where(x.groups < 0, -1, index[x.groups])) for x in rows],
      method.Denominators(*(hosts.replicate(self.mesh, np.int32(x)) for x in counts)),
    )

  def prepare_optimizer(self, state: update.TrainState) -> None:
    """Starts compiling the programs of updates whose shapes depend on no batch.

    Args:
      state: its shapes and shardings are used, so its arrays may have been donated.
    """
    # Any prompts do, as long as they are split over the mesh.
    sizes = {"prompts": layouts.row_shards(self.mesh), "prompt_length": self.sizes.block}
    self._prepare("optimizer", state, None, None, ("zero gradient", "apply gradient"), **sizes)

  def prepare(
    self, state: update.TrainState, batch: Batch, result: Result, features: models.Features | None
  ) -> None:
    """Starts compiling the programs that `step` will call for a rollout.

    To be called as soon as the trajectories are sampled, so that programs compile while the Judge
    reads. Every process must call it. It assumes that all groups enter the loss.

    Args:
      state: its shapes and shardings are used, so its arrays may have been donated.
      result: tokens of the trajectories.
      features: `Rollout.features` of the rollout to come.
    """
    if not self.compiler.threads:  # On every process, or on none.
      return
    mask, parts = self._packed(batch, result, batch.real)
    images = None
    if features is None and batch.packed_images is not None:
      images = jax.tree.map(
        lambda x: layouts.row_shape(
          self.mesh, (len(x) * jax.process_count(), *x.shape[1:]), x.dtype
        ),
        batch.packed_images,
      )
    packings = {
      tuple(x.shape for x in rows.packing): rows.packing for part in parts for rows in part.rows
    }
    names = ["log-probs of policy"] if self.sizes.minibatches > 1 else []
    names += ["log-probs of reference"] if self.penalty else []
    inputs = tuple(x.shape for x in jax.tree.leaves((images, features)))
    for shape, packed in packings.items():
      self._prepare(
        (shape, mask.shape, batch.actor.ids.shape, inputs),
        state,
        images,
        features,
        (*names, "add gradient"),
        prompts=len(mask) * jax.process_count(),
        prompt_length=batch.actor.ids.shape[1],
        response=mask.shape[-1],
        packed=packed,
      )

  def _prepare(
    self,
    key: Hashable,
    state: update.TrainState,
    images: models.Images | None,
    features: models.Features | None,
    names: Sequence[str],
    **sizes: Any,
  ) -> None:
    """Starts compiling some of what `LearnerPrograms.calls` yields, unless that was done before.

    Args:
      key: identifies the shapes of the other arguments, which are passed to `calls`.
      names: names of the calls, in their order.
    """
    state, features, frozen = shapes_of((state, features, self.frozen))
    programs = LearnerPrograms(
      self.updater, self.mesh, frozen, self.adapters, self.sizes, self.penalty
    )

    def submit():  # In a thread, too, as tracing takes its time.
      for call in programs.calls(state, images, features, **sizes):
        if call.name in names:
          self.compiler.submit(call.program, *call.args)
        if call.name == names[-1]:  # What follows need not be traced.
          return

    self.compiler.run(key, submit)


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
    block=options.sizes.block,
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
