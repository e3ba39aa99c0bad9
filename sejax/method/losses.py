"""The policy loss of a micro-batch, normalized by counts of the whole optimizer batch."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from sejax.method import inputs, kl
from sejax.method.aggregation import AGGREGATIONS, Denominators, token_weights
from sejax.method.numerics import as_bool, keep
from sejax.method.objectives import OBJECTIVES, Surrogate, Tokens, covariance
from sejax.method.objectives.cispo import cispo
from sejax.method.objectives.gmpo import gmpo
from sejax.method.objectives.gspo import gspo
from sejax.method.objectives.ratio_clip import grpo
from sejax.method.objectives.sapo import sapo
from sejax.method.rollout_correction import check_correction, importance_weights


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
  """The options of `policy_loss`, checked, with an objective's own in place of None."""

  objective: str
  clip_low: float | None
  clip_high: float | None
  dual_clip: float
  tau_pos: float
  tau_neg: float
  clip_cov_ratio: float
  clip_cov_lb: float
  clip_cov_ub: float
  kl_cov_ratio: float
  kl_cov_coef: float
  kl_coef: float
  kl_estimator: str
  rollout_correction: str
  correction_min: float
  correction_max: float
  aggregation: str | None
  entropy_coef: float

  def resolve(self) -> "_Options":
    """Returns the options without None; raises OptionError if one cannot be."""
    inputs.one_of("objective", self.objective, tuple(OBJECTIVES))
    own = OBJECTIVES[self.objective]
    chosen = {
      name: getattr(own, name) if getattr(self, name) is None else getattr(self, name)
      for name in ("clip_low", "clip_high", "aggregation")
    }
    inputs.one_of("aggregation", chosen["aggregation"], AGGREGATIONS)
    if own.fixed and chosen["aggregation"] != own.aggregation:
      wanted = f"{own.aggregation}, by which objective {self.objective} is defined"
      raise inputs.OptionError("aggregation", self.aggregation, wanted)
    # A ratio is at least 0; gmpo bounds its logarithm.
    lowest = inputs.LARGEST if self.objective == "gmpo" else 1.0
    for name, largest in (("clip_low", lowest), ("clip_high", inputs.LARGEST)):
      if getattr(own, name) is not None:
        inputs.between(name, chosen[name], 0.0, largest)
      elif chosen[name] is not None:
        wanted = f"None with objective {self.objective}, which clips no ratio"
        raise inputs.OptionError(name, chosen[name], wanted)
    inputs.between("dual_clip", self.dual_clip, 1.0, float("inf"))
    for name in ("tau_pos", "tau_neg"):
      inputs.positive(name, getattr(self, name))
    for name in ("clip_cov_ratio", "kl_cov_ratio"):
      inputs.between(name, getattr(self, name), 0.0, 1.0)
    inputs.finite("clip_cov_lb", self.clip_cov_lb)
    inputs.between("clip_cov_ub", self.clip_cov_ub, -inputs.LARGEST, float("inf"))
    if self.clip_cov_ub < self.clip_cov_lb:
      wanted = f"at most clip_cov_ub={self.clip_cov_ub}"
      raise inputs.OptionError("clip_cov_lb", self.clip_cov_lb, wanted)
    for name in ("kl_cov_coef", "kl_coef"):
      inputs.between(name, getattr(self, name), 0.0, inputs.LARGEST)
    inputs.one_of("kl_estimator", self.kl_estimator, kl.ESTIMATORS)
    check_correction(self.rollout_correction, self.correction_min, self.correction_max)
    if self.objective == "gmpo" and self.rollout_correction == "token_mask":
      wanted = "another one, such as sequence_mask, with objective gmpo, which weighs sequences"
      raise inputs.OptionError("rollout_correction", self.rollout_correction, wanted)
    inputs.finite("entropy_coef", self.entropy_coef)
    return dataclasses.replace(self, **chosen)


def policy_loss(
  logp: Float[Array, "*N R"],
  old_logp: Float[Array, "*N R"],
  ref_logp: Float[Array, "*N R"] | None,
  advantage: Float[Array, "*N"],
  mask: Bool[Array, "*N R"],
  behaviour_logp: Float[Array, "*N R"] | None = None,
  entropy: Float[Array, "*N R"] | None = None,
  denominators: Denominators | None = None,
  key: Key[Array, ""] | None = None,
  *,
  objective: str = "grpo",
  clip_low: float | None = None,
  clip_high: float | None = None,
  dual_clip: float = 3.0,
  tau_pos: float = 1.0,
  tau_neg: float = 1.05,
  clip_cov_ratio: float = 2e-4,
  clip_cov_lb: float = 1.0,
  clip_cov_ub: float = 5.0,
  kl_cov_ratio: float = 2e-4,
  kl_cov_coef: float = 0.1,
  kl_coef: float = 0.01,
  kl_estimator: str = "k3",
  rollout_correction: str = "none",
  correction_min: float = 0.0,
  correction_max: float = 2.0,
  aggregation: str | None = None,
  entropy_coef: float = 0.0,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
  """Returns the loss of an objective with a KL penalty to the initial policy, and its metrics.

      loss = aggregate(w L) + kl_coef aggregate(k) - entropy_coef aggregate(entropy)

  L is the objective's loss of a token, see the table in `sejax.method.objectives`; w its importance
  weight, see `sejax.method.rollout_correction`; k an estimate of the KL, see `sejax.method.kl`.

  `aggregate` sums over unmasked tokens and divides by

  - `token-mean`: the number of tokens (DAPO, arXiv:2503.14476). The released run.
  - `seq-mean-token-sum`: the number of sequences.
  - `seq-mean-token-mean`: the number of sequences and, per token, the length of its sequence
    (GRPO).
  - `seq-mean-token-sum-norm`: max_tokens times the number of sequences; without `denominators` by R
    alone, as in the released code (Dr. GRPO, arXiv:2503.20783).

  With the `denominators` of the optimizer batch, the losses, gradients and metrics of its
  micro-batches add up to those of the whole batch, however it is split between sequences; only
  `ratio_min` and `ratio_max` combine by minimum and maximum. The exceptions are `clip_cov` and
  `kl_cov`, which choose tokens within a micro-batch. Without `denominators`, the counts are those
  of `mask`.

  Gradients flow through `logp` and `entropy` only; where a ratio is exactly on a clip's border,
  the whole gradient passes, and half of it on the border of the dual clip, as in torch. Masked
  positions are replaced before any arithmetic, so that NaN there reaches neither the loss nor its
  gradient. If everything is masked, both are 0. All arithmetic is in float32. Options are static:
  each set of them compiles once. `dual_clip`, `tau_*`, `clip_cov_*` and `kl_cov_*` are of one
  objective each, and others ignore them.

  Args:
    logp: log-probabilities of the response tokens under the current policy, in nats.
    old_logp: log-probabilities under the policy before the first update, by the trainer.
    ref_logp: log-probabilities under the initial policy; None leaves the penalty out, and the
      metric `kl`.
    advantage: A, one per sequence.
    mask: tokens that count; boolean, or 0 and 1.
    behaviour_logp: log-probabilities that the sampler drew by; needed by a rollout correction.
    entropy: entropy of the policy at each token, in nats; None if not computed.
    denominators: counts of the whole optimizer batch; None if this micro-batch is all of it.
    key: random key of the micro-batch; needed by `clip_cov`, which draws tokens.
    objective: one of `OBJECTIVES`.
    clip_low: largest decrease of the ratio below 1, in [0, 1]; for `gmpo` of its logarithm. None
      takes the objective's own, as for the next one and the aggregation.
    clip_high: largest increase of the ratio above 1, at least 0; for `gmpo` of its logarithm.
    dual_clip: bound on the loss in units of |A| where A < 0, at least 1; infinity disables it.
    tau_pos: sharpness of SAPO's gate where A > 0.
    tau_neg: sharpness of SAPO's gate where A <= 0.
    clip_cov_ratio: share of tokens that `clip_cov` drops; at least one token, if any qualifies.
    clip_cov_lb: covariance above which a token may be dropped.
    clip_cov_ub: covariance below which a token may be dropped.
    kl_cov_ratio: share of tokens that `kl_cov` penalizes; at least one token.
    kl_cov_coef: weight of the penalty of `kl_cov`, at least 0.
    kl_coef: weight of the KL estimate, at least 0.
    kl_estimator: one of `k1`, `k2`, `k3`, `k1+` and `k3+`.
    rollout_correction: `none`, `token_truncate`, `token_mask`, `sequence_truncate` or
      `sequence_mask`.
    correction_min: smallest importance weight.
    correction_max: largest importance weight.
    aggregation: one of `AGGREGATIONS`; `sapo` and `gmpo` have one only.
    entropy_coef: weight of the entropy bonus; needs `entropy` unless it is 0.

  Returns:
    The loss, and a dict of scalar metrics without gradient: `policy_loss` and, with `ref_logp`,
    `kl`, aggregated and not multiplied by coefficients; means over tokens: `clipfrac` (share where
    clipping changed L; for `clip_cov` share of dropped tokens), `clipfrac_lower` (share where the
    dual clip did), `ppo_kl` (old_logp - logp; for `kl_cov` its absolute value) and, if given,
    `entropy`; `ratio_min` and `ratio_max` of the objective's ratio, both 1 if everything is masked.

  Raises:
    ValueError: an option is unknown or out of its range, or a shape does not fit.
  """
  options = _Options(
    objective=objective,
    clip_low=clip_low,
    clip_high=clip_high,
    dual_clip=dual_clip,
    tau_pos=tau_pos,
    tau_neg=tau_neg,
    clip_cov_ratio=clip_cov_ratio,
    clip_cov_lb=clip_cov_lb,
    clip_cov_ub=clip_cov_ub,
    kl_cov_ratio=kl_cov_ratio,
    kl_cov_coef=kl_cov_coef,
    kl_coef=kl_coef,
    kl_estimator=kl_estimator,
    rollout_correction=rollout_correction,
    correction_min=correction_min,
    correction_max=correction_max,
    aggregation=aggregation,
    entropy_coef=entropy_coef,
  ).resolve()
  if entropy is None and entropy_coef:
    raise ValueError(f"entropy_coef={inputs.quoted(entropy_coef)} needs entropy, which is None")
  if ref_logp is None and kl_coef:
    raise ValueError(f"kl_coef={inputs.quoted(kl_coef)} needs ref_logp, which is None")
  if behaviour_logp is None and rollout_correction != "none":
    raise ValueError(
      f"rollout_correction={inputs.quoted(rollout_correction)} needs behaviour_logp, which is None"
    )
  if key is None and objective == "clip_cov":
    raise ValueError("objective='clip_cov' draws tokens at random and needs key, which is None")
  per_token = {"old_logp": old_logp, "ref_logp": ref_logp, "mask": mask}
  per_token |= {"behaviour_logp": behaviour_logp, "entropy": entropy}
  _check_shapes(logp, advantage, **per_token)

  return _policy_loss(
    *(jnp.asarray(x) for x in (logp, old_logp, advantage, mask)),
    ref_logp,
    behaviour_logp,
    entropy,
    denominators,
    key,
    options=options,
  )


@functools.partial(jax.jit, static_argnames="options")
def _policy_loss(
  logp: Float[Array, "*N R"],
  old_logp: Float[Array, "*N R"],
  advantage: Float[Array, "*N"],
  mask: Bool[Array, "*N R"],
  ref_logp: Float[Array, "*N R"] | None,
  behaviour_logp: Float[Array, "*N R"] | None,
  entropy: Float[Array, "*N R"] | None,
  denominators: Denominators | None,
  key: Key[Array, ""] | None,
  *,
  options: _Options,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
  mask = as_bool(mask)
  old_logp = jax.lax.stop_gradient(keep(mask, old_logp))
  tokens = Tokens(
    logp=keep(mask, logp),
    old_logp=old_logp,
    advantage=jax.lax.stop_gradient(keep(mask, advantage[..., None])),
    mask=mask,
    weight=_importance_weights(old_logp, behaviour_logp, mask, options),
  )
  weights = token_weights(mask, options.aggregation, denominators)
  mean_weights = token_weights(mask, "token-mean", denominators)

  surrogate = _surrogate(tokens, options, key)
  policy_loss = jnp.sum(weights * surrogate.loss)
  loss = policy_loss
  metrics = {
    "policy_loss": policy_loss,
    "clipfrac": jnp.sum(mean_weights * surrogate.clipped),
    "clipfrac_lower": jnp.sum(mean_weights * surrogate.clipped_lower),
    "ppo_kl": jnp.sum(mean_weights * surrogate.drift),
    "ratio_min": _extreme(jnp.min, surrogate.ratio, mask, jnp.inf),
    "ratio_max": _extreme(jnp.max, surrogate.ratio, mask, -jnp.inf),
  }
  if ref_logp is not None:
    ref_logp = jax.lax.stop_gradient(keep(mask, ref_logp))
    metrics["kl"] = jnp.sum(weights * kl.estimate(tokens.logp, ref_logp, options.kl_estimator))
    loss += options.kl_coef * metrics["kl"]
  if entropy is not None:
    entropy = keep(mask, entropy)
    loss -= options.entropy_coef * jnp.sum(weights * entropy)
    metrics["entropy"] = jnp.sum(mean_weights * entropy)
  return loss, jax.lax.stop_gradient(metrics)


def _surrogate(tokens: Tokens, options: _Options, key: Key[Array, ""] | None) -> Surrogate:
  """Returns the objective's losses of the tokens."""
  bounds = {"clip_low": options.clip_low, "clip_high": options.clip_high}
  match options.objective:
    case "grpo":
      return grpo(tokens, **bounds, dual_clip=options.dual_clip)
    case "gspo":
      return gspo(tokens, **bounds)
    case "cispo":
      return cispo(tokens, **bounds)
    case "sapo":
      return sapo(tokens, tau_pos=options.tau_pos, tau_neg=options.tau_neg)
    case "gmpo":
      return gmpo(tokens, **bounds)
    case "clip_cov":
      among = covariance.candidates(
        tokens, **bounds, lowest=options.clip_cov_lb, highest=options.clip_cov_ub
      )
      count = covariance.number(tokens.mask, options.clip_cov_ratio)
      return covariance.clip_cov(tokens, covariance.draw(key, among, count), **bounds)
    case "kl_cov":
      count = covariance.number(tokens.mask, options.kl_cov_ratio)
      penalized = covariance.largest(tokens, count)
      return covariance.kl_cov(tokens, penalized, coef=options.kl_cov_coef)


def _importance_weights(
  old_logp: Float[Array, "*N R"],
  behaviour_logp: Float[Array, "*N R"] | None,
  mask: Bool[Array, "*N R"],
  options: _Options,
) -> Float[Array, "*N R"]:
  if behaviour_logp is None:
    return jnp.ones(mask.shape, jnp.float32)
  return importance_weights(
    old_logp,
    behaviour_logp,
    mask,
    rollout_correction=options.rollout_correction,
    correction_min=options.correction_min,
    correction_max=options.correction_max,
  )


def _extreme(
  reduce: Callable[..., Float[Array, ""]],
  ratio: Float[Array, "*N R"],
  mask: Bool[Array, "*N R"],
  initial: float,
) -> Float[Array, ""]:
  """Returns the smallest or largest unmasked ratio; 1 if everything is masked."""
  return jnp.where(jnp.any(mask), reduce(ratio, where=mask, initial=initial), 1.0)


def _check_shapes(
  logp: Float[Array, "*N R"],
  advantage: Float[Array, "*N"],
  **per_token: Float[Array, "*N R"] | None,
) -> None:
  shape = np.shape(logp)  # of arrays, traced arrays and lists
  for name, array in per_token.items():
    if array is not None and np.shape(array) != shape:
      raise ValueError(f"{name} has shape {np.shape(array)} but logp has {shape}")
  if np.shape(advantage) != shape[:-1]:
    raise ValueError(
      f"advantage has shape {np.shape(advantage)} but logp has {shape}; "
      f"one advantage per sequence is {shape[:-1]}"
    )
