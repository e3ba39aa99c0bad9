"""One optimizer step: log-probs of sampled trajectories, their loss, and the update.

Axes: K groups of a micro-batch, G trajectories of a group, R response tokens.
"""

import dataclasses
import hashlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, DTypeLike, Float, UInt32

from sejax import method, models
from sejax.learner.minibatches import Groups
from sejax.learner.pending import Pending
from sejax.models import lora
from sejax.parallel import layouts
from sejax.parallel.programs import Program

Metrics = dict[str, Float[Array, ""]]


class TrainState(NamedTuple):
  """Trained parameters and optimizer state.

  Attributes:
    params: fp32 master weights: all weights, or adapters (`sejax.models.lora`).
    optimizer: state of the optimizer from `optimizer.make`.
  """

  params: models.Params
  optimizer: optax.ApplyIfFiniteState


class LaggingState(NamedTuple):
  """What a run saves whose batches are sampled by the policy of one step ago.

  Attributes:
    train: parameters and optimizer state.
    behaviour: what is trained, as it was when the next batch was sampled, from
      `Updater.copy_trained`.
  """

  train: TrainState
  behaviour: models.Params


class TaughtState(NamedTuple):
  """What a run with a teacher saves.

  Attributes:
    train: parameters and optimizer state.
    teacher: the teacher's share of what is trained, see `sejax.learner.teacher`.
  """

  train: TrainState
  teacher: models.Params


class MicroBatch(NamedTuple):
  """Whole groups whose activations exist at the same time, with all that their update needs.

  Attributes:
    groups: the groups, in the order of the rows that they are packed into.
    packing: where their tokens lie in these rows.
    on_policy: whether the policy is still the one before the step, so that its own log-probs are
      the old ones.
    old_logp: log-probs by the policy before the step, from `Updater.token_logprobs`; anything where
      that is the policy still. With one program for both cases, less is compiled.
    ref_logp: log-probs by the initial policy, likewise; None without a KL penalty.
    key: from `random_key`; None where the objective draws nothing.
  """

  groups: Groups
  packing: models.Packing
  on_policy: Bool[Array, ""]
  old_logp: Float[Array, "K G R"]
  ref_logp: Float[Array, "K G R"] | None = None
  key: UInt32[Array, " 2"] | None = None


def random_key(seed: int, step: int, minibatch: int, micro_batch: int) -> UInt32[np.ndarray, " 2"]:
  """Returns the data of a micro-batch's random key, from what identifies it in a run.

  It is a hash, identical on every process, so that a run that resumes draws what it would have.

  Args:
    seed: seed of the run.
    step: training step.
    minibatch: index in the step.
    micro_batch: index in the mini-batch.
  """
  text = f"update\0{seed}\0{step}\0{minibatch}\0{micro_batch}"
  digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
  return np.frombuffer(digest, dtype="<u4").astype(np.uint32)


class Updater:
  """Computes log-probs and updates of the policy.

  On a mesh, requires parameters in the layout of `Model.layout` and micro-batches whose groups and
  rows are sharded over the row shards. Gradients and the new state have the layout of the
  parameters.

  Attributes:
    token_logprobs: program of `compute_logprobs`.
    zero_gradient: program of `make_zeros`.
    add_gradient: program of `compute_gradient`; the gradient so far is donated.
    apply_gradient: program of `compute_update`; the state is donated.
    combine_metrics: program of `combine_metrics`.
    copy_trained: program of `make_copy`.
  """

  def __init__(
    self,
    model: models.Model,
    optimizer: optax.GradientTransformation,
    loss: Mapping[str, Any],
    *,
    temperature: float,
    banned_ids: Sequence[int],
    block: int,
    dtype: DTypeLike = jnp.float32,
    entropy: bool = True,
    adapters: lora.Options | None = None,
    mesh: Mesh | None = None,
  ):
    """Declares the programs; nothing is compiled.

    Args:
      optimizer: from `optimizer.make`.
      loss: options of `method.policy_loss`.
      temperature: sampling temperature, by which logits are divided; 0, greedy sampling, leaves
        them as they are.
      banned_ids: tokens that are never sampled, and whose logits are left out.
      block: tokens of a block in packed rows, see `packing.Capacity`.
      dtype: precision of computation.
      entropy: whether the policy's entropy is computed, as a metric or for the loss.
      adapters: options of the adapters that are trained; None trains all weights.
      mesh: mesh with any of the axes data, fsdp and tensor; None is a single device.
    """
    rows = None if mesh is None else layouts.row_sharding(mesh)
    self._model = dataclasses.replace(model, rows=rows)
    self._optimizer, self._loss_options = optimizer, dict(loss)
    self._temperature, self._block = temperature or 1.0, block
    self._dtype, self._entropy, self._mesh = dtype, entropy, mesh
    self._adapters = adapters
    self._banned = np.zeros(model.vocab_size, bool)
    self._banned[list(banned_ids)] = True
    self.token_logprobs = Program.of(self.compute_logprobs)
    self.zero_gradient = Program.of(self.make_zeros)
    self.add_gradient = Program.of(self.compute_gradient, donate=(0,))
    self.apply_gradient = Program.of(self.compute_update, donate=(0,))
    self.combine_metrics = Program.of(combine_metrics)
    self.copy_trained = Program.of(self.make_copy)

  def init(self, params: models.Params) -> TrainState:
    """Returns the initial state, with copies of the arrays: updates donate those of the state.

    Args:
      params: all weights or adapters, in any precision and in the layout of training.
    """
    params = jax.tree.map(lambda x: jnp.array(x, jnp.float32, copy=True), params)
    return self._constrain(TrainState(params, self._optimizer.init(params)))

  def update(
    self,
    state: TrainState,
    frozen: models.Params | None,
    micro_batches: Iterable[MicroBatch],
    counts: method.Denominators,
  ) -> tuple[TrainState, Metrics]:
    """Takes one optimizer step on a mini-batch.

    The loss is divided by counts of the whole mini-batch, so that its gradient does not depend on
    how it is cut, up to the order of sums: over micro-batches in fp32, over devices in `dtype` for
    the weights of layers. The objectives `clip_cov` and `kl_cov` choose their tokens within a
    micro-batch.

    Args:
      state: donated.
      frozen: weights that the adapters belong to; None where all weights are trained.
      micro_batches: at least one; each is asked for when the one before it has been sent off.
      counts: of the mini-batch.

    Returns:
      The new state and the metrics, see `compute_update`.
    """
    return Pending(self.send_update(state, frozen, micro_batches, counts)).finish()

  def send_update(
    self,
    state: TrainState,
    frozen: models.Params | None,
    micro_batches: Iterable[MicroBatch],
    counts: method.Denominators,
  ) -> Generator[None, None, tuple[TrainState, Metrics]]:
    """Does what `update` does, and pauses after each micro-batch, see `Pending`."""
    gradient, metrics = self.zero_gradient(state.params), None
    for micro in micro_batches:
      gradient, part = self.add_gradient(gradient, state.params, frozen, micro, counts)
      del micro  # Else it would be held while the next one is made.
      metrics = part if metrics is None else self.combine_metrics(metrics, part)
      yield
    return self.apply_gradient(state, gradient, metrics)

  def compute_logprobs(
    self, params: models.Params, groups: Groups, packing: models.Packing
  ) -> Float[Array, "K G R"]:
    """Returns fp32 log-probs in nats of the tokens that count, and 0 for others.

    They are the sampler's `logp`: at its temperature, over the tokens that are not banned.

    Args:
      params: parameter tree of the policy, in any precision.
    """
    found = self._log_probs(self._cast(params), groups, packing).logp
    return jnp.where(groups.mask, found, 0)

  def make_copy(self, params: models.Params) -> models.Params:
    """Returns a copy of what is trained, which updates do not donate, to sample with.

    Args:
      params: fp32 master weights, which are copied in `dtype`, as samplers compute; or adapters,
        whose precision stays.
    """
    dtype = self._dtype if self._adapters is None else jnp.float32
    return self._constrain(jax.tree.map(lambda x: jnp.copy(x.astype(dtype)), params))

  def make_zeros(self, params: models.Params) -> models.Params:
    """Returns a gradient of zeros, in fp32 and in the layout of the parameters."""
    return self._constrain(jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), params))

  def compute_gradient(
    self,
    gradient: models.Params,
    params: models.Params,
    frozen: models.Params | None,
    micro: MicroBatch,
    counts: method.Denominators,
  ) -> tuple[models.Params, Metrics]:
    """Adds the gradient of a micro-batch, computed in `dtype`, to one in fp32.

    Args:
      gradient: sum over earlier micro-batches of the mini-batch.
      params: fp32 master weights.
      frozen: weights that the adapters belong to; None where all weights are trained.
      counts: of the whole mini-batch.

    Returns:
      The sum, and the micro-batch's part in the metrics of `method.policy_loss` with `loss` and,
      with `behaviour_logp`, in those of `method.mismatch`.
    """
    compute = jax.value_and_grad(self._loss, has_aux=True)
    (loss, metrics), part = compute(self._cast(params), frozen, micro, counts)
    total = jax.tree.map(lambda t, g: t + g.astype(jnp.float32), gradient, part)
    # Without the constraint, nothing tells the compiler to shard the sums as the parameters are.
    return self._constrain(total), metrics | {"loss": loss}

  def compute_update(
    self, state: TrainState, gradient: models.Params, metrics: Metrics
  ) -> tuple[TrainState, Metrics]:
    """Moves the parameters by the gradient of a mini-batch.

    Args:
      metrics: parts of its micro-batches, combined.

    Returns:
      The new state, and the metrics of the mini-batch: those of `compute_gradient`; `grad_norm`
      before any clipping; and `finite`: 1, or 0 where the gradient is not finite; then parameters
      and moments do not change.
    """
    updates, moments = self._optimizer.update(gradient, state.optimizer, state.params)
    new = TrainState(optax.apply_updates(state.params, updates), moments)
    if "mismatch_mean" in metrics:
      others = {name: x for name, x in metrics.items() if not name.startswith("mismatch_")}
      metrics = others | method.mismatch(metrics)
    metrics["grad_norm"] = optax.tree.norm(gradient)
    metrics["finite"] = moments.last_finite.astype(jnp.float32)
    return self._constrain(new), metrics

  def _loss(
    self,
    params: models.Params,
    frozen: models.Params | None,
    micro: MicroBatch,
    counts: method.Denominators,
  ) -> tuple[Float[Array, ""], Metrics]:
    """Returns the share of a micro-batch in the loss and its metrics."""
    if self._adapters is not None:
      params = lora.attach(frozen, params, self._adapters)
    groups, options = micro.groups, self._loss_options
    policy = self._log_probs(params, groups, micro.packing)
    entropy = policy.entropy if self._entropy else None
    if self._entropy and not options.get("entropy_coef"):
      # The compiler would compute its gradient even for a coefficient of zero.
      entropy = jax.lax.stop_gradient(entropy)
    own_logp = jax.lax.stop_gradient(policy.logp)
    old_logp = jnp.where(micro.on_policy, own_logp, micro.old_logp)
    key = None if micro.key is None else jax.random.wrap_key_data(micro.key, impl="threefry2x32")
    loss, metrics = method.policy_loss(
      policy.logp,
      old_logp,
      micro.ref_logp,
      groups.advantage,
      groups.mask,
      behaviour_logp=groups.behaviour_logp,
      entropy=entropy,
      denominators=counts,
      key=key,
      **options,
    )
    if groups.behaviour_logp is not None:
      metrics |= method.mismatch_parts(old_logp, groups.behaviour_logp, groups.mask, counts)
    return loss, metrics

  def _log_probs(
    self, params: models.Params, groups: Groups, packing: models.Packing
  ) -> models.LogProbs:
    """Returns log-probs and entropy of the tokens of a micro-batch."""
    features = groups.features
    if features is None and groups.images is not None:
      features = self._model.encode(params, groups.images)
    return self._model.packed_log_probs(
      params,
      groups.prompt,
      features,
      groups.tokens,
      packing,
      block=self._block,
      temperature=self._temperature,
      banned=self._banned,
    )

  def _cast(self, params: models.Params) -> models.Params:
    return jax.tree.map(lambda x: x.astype(self._dtype), params)

  def _constrain(self, tree: Any) -> Any:
    return tree if self._mesh is None else layouts.constrain(tree, self._mesh, self._model.layout)


def combine_metrics(first: Metrics, second: Metrics) -> Metrics:
  """Combines the metrics of two parts of a mini-batch, see `method.policy_loss`."""
  combine = {
    "ratio_min": jnp.minimum,
    "ratio_max": jnp.maximum,
    "mismatch_max": jnp.maximum,
  }
  return {name: combine.get(name, jnp.add)(x, second[name]) for name, x in first.items()}
