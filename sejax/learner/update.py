"""One optimizer step: log-probs of sampled trajectories, their loss, and the update.

Axes: A micro-batches of b prompts, G trajectories of a prompt, P prompt tokens, R response tokens.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, DTypeLike, Float, Int, UInt32

from sejax import method, models
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


class Minibatch(NamedTuple):
  """Whole groups of one optimizer step, as micro-batches; activations exist for one at a time.

  Attributes:
    prompt: prompt of each group; every field has A in front, so that positions are `[A,3,b,P]`.
    images: images of the prompts, A in front; None without any, or where `features` are given.
    features: image features of a frozen vision tower, A in front; None where the tower is trained.
    tokens: tokens of the trajectories, padded on the right.
    mask: tokens that count in the loss.
  """

  prompt: models.Prompt
  images: models.Images | None
  features: models.Features | None
  tokens: Int[Array, "A b G R"]
  mask: Bool[Array, "A b G R"]


class UpdateBatch(NamedTuple):
  """A mini-batch with all that its update needs.

  Attributes:
    minibatch: the trajectories.
    old_logp: log-probs by the policy that sampled, from `Updater.token_logprobs`.
    ref_logp: log-probs by the initial policy, likewise.
    advantage: advantage of each trajectory.
    behaviour_logp: log-probs that the sampler drew by; None computes neither a correction nor the
      mismatch.
    key: from `random_keys`; None where the objective draws nothing.
  """

  minibatch: Minibatch
  old_logp: Float[Array, "A b G R"]
  ref_logp: Float[Array, "A b G R"]
  advantage: Float[Array, "A b G"]
  behaviour_logp: Float[Array, "A b G R"] | None = None
  key: UInt32[Array, "A 2"] | None = None


def random_keys(
  seed: int, step: int, minibatch: int, micro_batches: int
) -> UInt32[np.ndarray, "A 2"]:
  """Returns the data of a random key for each micro-batch, from what identifies it in a run.

  They are a hash, identical on every process, so that a run that resumes draws what it would have.

  Args:
    seed: seed of the run.
    step: training step.
    minibatch: index in the step.
    micro_batches: number of micro-batches, A.
  """
  digests = [
    hashlib.blake2b(f"update\0{seed}\0{step}\0{minibatch}\0{m}".encode(), digest_size=8).digest()
    for m in range(micro_batches)
  ]
  return np.frombuffer(b"".join(digests), dtype="<u4").reshape(-1, 2).astype(np.uint32)


class Updater:
  """Computes log-probs and updates of the policy.

  On a mesh, requires parameters in the layout of `Model.layout` and mini-batches that are sharded
  along b. Gradients and the new state have the layout of the parameters.

  Attributes:
    token_logprobs: program of `compute_logprobs`.
    update: program of `compute_update`; the state is donated.
  """

  def __init__(
    self,
    model: models.Model,
    optimizer: optax.GradientTransformation,
    loss: Mapping[str, Any],
    *,
    temperature: float,
    banned_ids: Sequence[int],
    max_tokens: int,
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
      max_tokens: maximum response length of the run.
      dtype: precision of computation.
      entropy: whether the policy's entropy is computed, as a metric or for the loss.
      adapters: options of the adapters that are trained; None trains all weights.
      mesh: mesh with any of the axes data, fsdp and tensor; None is a single device.
    """
    rows = None if mesh is None else layouts.row_sharding(mesh)
    self._model = dataclasses.replace(model, rows=rows)
    self._optimizer, self._loss_options = optimizer, dict(loss)
    self._temperature, self._max_tokens = temperature or 1.0, max_tokens
    self._dtype, self._entropy, self._mesh = dtype, entropy, mesh
    self._adapters = adapters
    self._banned = np.zeros(model.vocab_size, bool)
    self._banned[list(banned_ids)] = True
    self.token_logprobs = Program.of(self.compute_logprobs)
    self.update = Program.of(self.compute_update, donate=(0,))

  def init(self, params: models.Params) -> TrainState:
    """Returns the initial state, with copies of the arrays: updates donate those of the state.

    Args:
      params: all weights or adapters, in any precision and in the layout of training.
    """
    params = jax.tree.map(lambda x: jnp.array(x, jnp.float32, copy=True), params)
    return self._constrain(TrainState(params, self._optimizer.init(params)))

  def compute_logprobs(
    self, params: models.Params, minibatch: Minibatch
  ) -> Float[Array, "A b G R"]:
    """Returns fp32 log-probs in nats of the tokens that count, and 0 for others.

    They are the sampler's `logp`: at its temperature, over the tokens that are not banned.

    Args:
      params: parameter tree of the policy, in any precision.
    """
    params = self._cast(params)

    def compute_micro_batch(micro):
      return jnp.where(micro.mask, self._log_probs(params, micro).logp, 0)

    return jax.lax.map(compute_micro_batch, minibatch)

  def compute_update(
    self,
    state: TrainState,
    frozen: models.Params | None,
    batch: UpdateBatch,
  ) -> tuple[TrainState, Metrics]:
    """Takes one optimizer step.

    Args:
      frozen: weights that the adapters belong to; None where all weights are trained.

    Returns:
      The new state, and the metrics of `gradient` with `finite`: 1, or 0 where the gradient is not
      finite; then parameters and moments do not change.
    """
    grads, metrics = self.gradient(state.params, frozen, batch)
    updates, moments = self._optimizer.update(grads, state.optimizer, state.params)
    new = TrainState(optax.apply_updates(state.params, updates), moments)
    metrics["finite"] = moments.last_finite.astype(jnp.float32)
    return self._constrain(new), metrics

  def gradient(
    self,
    params: models.Params,
    frozen: models.Params | None,
    batch: UpdateBatch,
  ) -> tuple[models.Params, Metrics]:
    """Returns the gradient of the loss, computed in `dtype` and summed over micro-batches in fp32.

    The loss is divided by counts of the whole mini-batch, so that the sum does not depend on how it
    is cut; the objectives `clip_cov` and `kl_cov` choose their tokens within a micro-batch.

    Args:
      params: fp32 master weights.
      frozen: weights that the adapters belong to; None where all weights are trained.

    Returns:
      The gradient, and the metrics of `method.policy_loss` with `loss`, `grad_norm` before any
      clipping and, with `behaviour_logp`, those of `method.mismatch`.
    """
    params_cast = self._cast(params)
    counts = method.denominators(batch.minibatch.mask, self._max_tokens)

    def add_micro_batch(total, micro):
      gradient = jax.value_and_grad(self._loss, has_aux=True)
      (loss, metrics), grads = gradient(params_cast, frozen, micro, counts)
      total = jax.tree.map(lambda t, g: t + g.astype(jnp.float32), total, grads)
      return total, metrics | {"loss": loss}

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), params)
    # Without the constraint, nothing tells the compiler to shard the sums as the parameters are.
    grads, parts = jax.lax.scan(add_micro_batch, self._constrain(zeros), batch)
    combine = {"ratio_min": jnp.min, "ratio_max": jnp.max}
    metrics = {name: combine.get(name, jnp.sum)(part) for name, part in parts.items()}
    metrics["grad_norm"] = optax.tree.norm(grads)
    if batch.behaviour_logp is not None:
      metrics |= method.mismatch(batch.old_logp, batch.behaviour_logp, batch.minibatch.mask)
    return grads, metrics

  def _loss(
    self,
    params: models.Params,
    frozen: models.Params | None,
    micro: UpdateBatch,
    counts: method.Denominators,
  ) -> tuple[Float[Array, ""], Metrics]:
    """Returns the share of a micro-batch, without the axis A, in the loss and its metrics."""
    if self._adapters is not None:
      params = lora.attach(frozen, params, self._adapters)
    policy, options = self._log_probs(params, micro.minibatch), self._loss_options
    entropy = policy.entropy if self._entropy else None
    if self._entropy and not options.get("entropy_coef"):
      # The compiler would compute its gradient even for a coefficient of zero.
      entropy = jax.lax.stop_gradient(entropy)
    key = None if micro.key is None else jax.random.wrap_key_data(micro.key, impl="threefry2x32")
    return method.policy_loss(
      policy.logp,
      micro.old_logp,
      micro.ref_logp,
      micro.advantage,
      micro.minibatch.mask,
      behaviour_logp=micro.behaviour_logp,
      entropy=entropy,
      denominators=counts,
      key=key,
      **options,
    )

  def _log_probs(self, params: models.Params, micro: Minibatch) -> models.LogProbs:
    """Returns log-probs and entropy of the tokens of a micro-batch, without the axis A."""
    features = micro.features
    if features is None and micro.images is not None:
      features = self._model.encode(params, micro.images)
    last, hidden = self._model.forward(params, micro.prompt, features, micro.tokens)
    return self._model.logp(params, last, hidden, micro.tokens, self._temperature, self._banned)

  def _cast(self, params: models.Params) -> models.Params:
    return jax.tree.map(lambda x: x.astype(self._dtype), params)

  def _constrain(self, tree: Any) -> Any:
    return tree if self._mesh is None else layouts.constrain(tree, self._mesh, self._model.layout)
