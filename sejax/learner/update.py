"""One optimizer step: log-probs of given trajectories, their loss, one update.

Axes: M micro-batches, b prompts of one, G trajectories, P prompt tokens, R response tokens, S
patches, s features of a row, D width.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, DTypeLike, Float, Int

from sejax import method, models
from sejax.models import lora
from sejax.parallel import layouts
from sejax.parallel.programs import Program

Metrics = dict[str, Float[Array, ""]]


class TrainState(NamedTuple):
  """What an update changes.

  Attributes:
    params: master weights that are trained, fp32: all of them, or adapters (`sejax.models.lora`).
    optimizer: state of `optimizer.make`.
  """

  params: models.Params
  optimizer: optax.ApplyIfFiniteState


class Minibatch(NamedTuple):
  """Groups of one optimizer step, cut into micro-batches whose activations exist one at a time.

  Attributes:
    prompt: of each group; every field has M in front, so that positions are `[M,3,b,P]`.
    images: of the prompts, M in front; None where there are none, or where `features` are given.
    features: of the images, by a vision tower that is not trained; then none are computed.
    tokens: of the trajectories, padded on the right.
    mask: which tokens count in the loss.
  """

  prompt: models.Prompt
  images: models.Images | None
  features: models.Features | None
  tokens: Int[Array, "M b G R"]
  mask: Bool[Array, "M b G R"]


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
    """Keeps what is the same for all steps.

    Args:
      model: the model.
      optimizer: from `optimizer.make`.
      loss: options of `method.grpo_loss`.
      temperature: of sampling; log-probs are those of the logits divided by it, or at 0, where
        sampling takes the most likely token, of the logits themselves.
      banned_ids: tokens that sampling never draws.
      max_tokens: the longest response the run allows.
      dtype: of computation.
      entropy: whether the policy's entropy is measured.
      adapters: what is trained, if not all weights.
      mesh: with axes data, fsdp and tensor, or some of them; one device, if None.
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
    """Returns the state before the first update, on copies: the given arrays stay usable.

    Args:
      params: what is trained, in any precision, laid out for training.
    """
    params = jax.tree.map(lambda x: jnp.array(x, jnp.float32, copy=True), params)
    return self._constrain(TrainState(params, self._optimizer.init(params)))

  def compute_logprobs(
    self, params: models.Params, minibatch: Minibatch
  ) -> Float[Array, "M b G R"]:
    """Returns log-probs of the tokens that count, as the sampler's `logp`, and 0 elsewhere; fp32.

    Args:
      params: the policy's that is asked, in any precision.
      minibatch: the trajectories.
    """
    params = self._cast(params)

    def one(micro):
      return jnp.where(micro.mask, self._log_probs(params, micro).logp, 0)

    return jax.lax.map(one, minibatch)

  def compute_update(
    self,
    state: TrainState,
    frozen: models.Params | None,
    minibatch: Minibatch,
    old_logp: Float[Array, "M b G R"],
    ref_logp: Float[Array, "M b G R"],
    advantage: Float[Array, "M b G"],
  ) -> tuple[TrainState, Metrics]:
    """Takes one optimizer step.

    Args:
      state: master weights and moments.
      frozen: what adapters belong to; None where all weights are trained.
      minibatch: whole groups.
      old_logp: from `token_logprobs`, by the policy that sampled.
      ref_logp: from `token_logprobs`, by the initial policy.
      advantage: of each trajectory.

    Returns:
      The new state, and the metrics of `gradient` with `finite`: 0 where the gradient was not, and
      nothing changed, else 1.
    """
    given = (minibatch, old_logp, ref_logp, advantage)
    grads, metrics = self.gradient(state.params, frozen, *given)
    updates, moments = self._optimizer.update(grads, state.optimizer, state.params)
    new = TrainState(optax.apply_updates(state.params, updates), moments)
    metrics["finite"] = moments.last_finite.astype(jnp.float32)
    return self._constrain(new), metrics

  def gradient(
    self,
    params: models.Params,
    frozen: models.Params | None,
    minibatch: Minibatch,
    old_logp: Float[Array, "M b G R"],
    ref_logp: Float[Array, "M b G R"],
    advantage: Float[Array, "M b G"],
  ) -> tuple[models.Params, Metrics]:
    """Adds up the gradient of the loss over micro-batches in fp32; not compiled by itself.

    The loss is divided by counts of the whole minibatch, so how it is cut changes nothing.

    Args:
      params: master weights.
      frozen: what adapters belong to; None where all weights are trained.
      minibatch: whole groups.
      old_logp: by the policy that sampled.
      ref_logp: by the initial policy.
      advantage: of each trajectory.

    Returns:
      The gradient, and as metrics those of `method.grpo_loss`, `loss`, and `grad_norm` before any
      clipping.
    """
    params_cast = self._cast(params)
    counts = method.denominators(minibatch.mask, self._max_tokens)

    def add(total, xs):
      gradient = jax.value_and_grad(self._loss, has_aux=True)
      (loss, metrics), grads = gradient(params_cast, frozen, *xs, counts)
      total = jax.tree.map(lambda t, g: t + g.astype(jnp.float32), total, grads)
      return total, metrics | {"loss": loss}

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), params)
    # Laid out explicitly: nothing else says that the sums are to be split as the parameters are.
    grads, parts = jax.lax.scan(
      add, self._constrain(zeros), (minibatch, old_logp, ref_logp, advantage)
    )
    combine = {"ratio_min": jnp.min, "ratio_max": jnp.max}
    metrics = {name: combine.get(name, jnp.sum)(part) for name, part in parts.items()}
    return grads, metrics | {"grad_norm": optax.tree.norm(grads)}

  def _loss(
    self,
    params: models.Params,
    frozen: models.Params | None,
    micro: Minibatch,
    old_logp: Float[Array, "b G R"],
    ref_logp: Float[Array, "b G R"],
    advantage: Float[Array, "b G"],
    counts: method.Denominators,
  ) -> tuple[Float[Array, ""], Metrics]:
    """Returns a micro-batch's share of the loss and metrics."""
    if self._adapters is not None:
      params = lora.attach(frozen, params, self._adapters)
    scored, options = self._log_probs(params, micro), self._loss_options
    entropy = scored.entropy if self._entropy else None
    if self._entropy and not options.get("entropy_coef"):
      # Times a coefficient of zero, its gradient would still be computed.
      entropy = jax.lax.stop_gradient(entropy)
    return method.grpo_loss(
      scored.logp,
      old_logp,
      ref_logp,
      advantage,
      micro.mask,
      denominators=counts,
      entropy=entropy,
      **options,
    )

  def _log_probs(self, params: models.Params, micro: Minibatch) -> models.LogProbs:
    """Scores a micro-batch, which has no axis M."""
    features = micro.features
    if features is None and micro.images is not None:
      features = self._model.encode(params, micro.images)
    last, hidden = self._model.forward(params, micro.prompt, features, micro.tokens)
    scoring = (micro.tokens, self._temperature, self._banned)
    return self._model.logp(params, last, hidden, *scoring)

  def _cast(self, params: models.Params) -> models.Params:
    return jax.tree.map(lambda x: x.astype(self._dtype), params)

  def _constrain(self, tree: Any) -> Any:
    return tree if self._mesh is None else layouts.constrain(tree, self._mesh, self._model.layout)
