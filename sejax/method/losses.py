"""The clipped GRPO loss of a micro-batch, normalized by counts of the whole optimizer batch."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from sejax.method import inputs

AGGREGATIONS = (
  "token-mean",
  "seq-mean-token-sum",
  "seq-mean-token-mean",
  "seq-mean-token-sum-norm",
)

# Bounds of the released code. exp of the first stays finite in float32.
_MAX_LOG_RATIO = 20.0
_MAX_KL = 10.0


class Denominators(NamedTuple):
  """Counts of an optimizer batch by which the sums over tokens in a loss are divided.

  Attributes:
    tokens: number of unmasked tokens.
    sequences: number of sequences with an unmasked token, that is, without padding rows.
    max_tokens: the configured longest response, not the padded length of the batch.
  """

  tokens: Int[Array, ""]
  sequences: Int[Array, ""]
  max_tokens: int


def denominators(mask: Bool[Array, "*N R"], max_tokens: int) -> Denominators:
  """Counts the tokens and sequences of an optimizer batch.

  Args:
    mask: response tokens of the whole batch, of all micro-batches and shards. The counts of its
      parts may be added up instead.
    max_tokens: the configured longest response.

  Returns:
    The denominators for `grpo_loss` of each micro-batch.
  """
  mask = _as_bool(mask)
  return Denominators(
    tokens=jnp.sum(mask, dtype=jnp.int32),
    sequences=jnp.sum(jnp.any(mask, axis=-1), dtype=jnp.int32),
    max_tokens=max_tokens,
  )


def grpo_loss(
  logp: Float[Array, "*N R"],
  old_logp: Float[Array, "*N R"],
  ref_logp: Float[Array, "*N R"],
  advantage: Float[Array, "*N"],
  mask: Bool[Array, "*N R"],
  *,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  dual_clip: float = 3.0,
  kl_coef: float = 0.01,
  aggregation: str = "token-mean",
  denominators: Denominators | None = None,
  entropy: Float[Array, "*N R"] | None = None,
  entropy_coef: float = 0.0,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
  """Returns the clipped policy loss with a KL penalty to the initial policy, and its metrics.

  This is GRPO (arXiv:2402.03300) with the dual clip of arXiv:1912.09729.

  Per token, with ratio = exp(clip(logp - old_logp, -20, 20)):

      L = max(-A ratio, -A clip(ratio, 1 - clip_low, 1 + clip_high))
      L = min(L, -A dual_clip)                         where A < 0
      d = clip(ref_logp - logp, -20, 20)
      k = clip(exp(d) - d - 1, -10, 10)                the low-variance KL estimate, in nats
      loss = aggregate(L) + kl_coef aggregate(k) - entropy_coef aggregate(entropy)

  `aggregate` sums over unmasked tokens and divides by

  - `token-mean`: the number of tokens (DAPO, arXiv:2503.14476). The released run.
  - `seq-mean-token-sum`: the number of sequences.
  - `seq-mean-token-mean`: the number of sequences and, per token, the length of its sequence
    (GRPO).
  - `seq-mean-token-sum-norm`: max_tokens times the number of sequences; without `denominators` by R
    alone, as in the released code (Dr. GRPO, arXiv:2503.20783).

  With the `denominators` of the optimizer batch, the losses, gradients and metrics of its
  micro-batches add up to those of the whole batch, however it is split between sequences; only
  `ratio_min` and `ratio_max` combine by minimum and maximum. Without `denominators`, the counts are
  those of `mask`.

  Gradients flow through `logp` and `entropy` only. Masked positions are replaced before any
  arithmetic, so that NaN there reaches neither the loss nor its gradient. If everything is masked,
  both are 0. All arithmetic is in float32. Options are static: each set of them compiles once.

  Args:
    logp: log-probabilities of the response tokens under the current policy, in nats.
    old_logp: log-probabilities under the policy that sampled the tokens.
    ref_logp: log-probabilities under the initial policy.
    advantage: A, one per sequence.
    mask: tokens that count; boolean, or 0 and 1.
    clip_low: largest decrease of the ratio below 1, in [0, 1].
    clip_high: largest increase of the ratio above 1, at least 0.
    dual_clip: bound on L in units of |A| where A < 0, at least 1; infinity disables it.
    kl_coef: weight of the KL estimate, at least 0.
    aggregation: one of `AGGREGATIONS`.
    denominators: counts of the whole optimizer batch; None if this micro-batch is all of it.
    entropy: entropy of the policy at each token, in nats; None if not computed.
    entropy_coef: weight of the entropy bonus; needs `entropy` unless it is 0.

  Returns:
    The loss, and a dict of scalar metrics without gradient: `policy_loss` and `kl`, aggregated and
    not multiplied by coefficients; means over tokens: `clipfrac` (share where clipping the ratio
    changed L), `clipfrac_lower` (share where the dual clip did), `ppo_kl` (old_logp - logp) and, if
    given, `entropy`; `ratio_min` and `ratio_max`, both 1 if everything is masked.

  Raises:
    ValueError: an option is unknown or out of its range, or a shape does not fit.
  """
  inputs.one_of("aggregation", aggregation, AGGREGATIONS)
  inputs.between("clip_low", clip_low, 0.0, 1.0)
  inputs.between("clip_high", clip_high, 0.0, inputs.LARGEST)
  inputs.between("dual_clip", dual_clip, 1.0, float("inf"))
  inputs.between("kl_coef", kl_coef, 0.0, inputs.LARGEST)
  inputs.finite("entropy_coef", entropy_coef)
  if entropy is None and entropy_coef:
    raise ValueError(f"entropy_coef={inputs.quoted(entropy_coef)} needs entropy, which is None")
  _check_shapes(logp, advantage, old_logp=old_logp, ref_logp=ref_logp, mask=mask, entropy=entropy)

  return _grpo_loss(
    *(jnp.asarray(x) for x in (logp, old_logp, ref_logp, advantage, mask)),
    denominators,
    entropy,
    clip_low=clip_low,
    clip_high=clip_high,
    dual_clip=dual_clip,
    kl_coef=kl_coef,
    aggregation=aggregation,
    entropy_coef=entropy_coef,
  )


@functools.partial(
  jax.jit,
  static_argnames=(
    "clip_low",
    "clip_high",
    "dual_clip",
    "kl_coef",
    "aggregation",
    "entropy_coef",
  ),
)
def _grpo_loss(
  logp: Float[Array, "*N R"],
  old_logp: Float[Array, "*N R"],
  ref_logp: Float[Array, "*N R"],
  advantage: Float[Array, "*N"],
  mask: Bool[Array, "*N R"],
  denominators: Denominators | None,
  entropy: Float[Array, "*N R"] | None,
  *,
  clip_low: float,
  clip_high: float,
  dual_clip: float,
  kl_coef: float,
  aggregation: str,
  entropy_coef: float,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
  mask = _as_bool(mask)
  logp = _masked(mask, logp)
  old_logp = jax.lax.stop_gradient(_masked(mask, old_logp))
  ref_logp = jax.lax.stop_gradient(_masked(mask, ref_logp))
  A = jax.lax.stop_gradient(_masked(mask, advantage[..., None]))
  weights = _weights(mask, aggregation, denominators)
  mean_weights = _weights(mask, "token-mean", denominators)

  log_ratio = jnp.clip(logp - old_logp, -_MAX_LOG_RATIO, _MAX_LOG_RATIO)
  ratio = jnp.exp(log_ratio)
  unclipped = -A * ratio
  clipped = -A * jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high)
  pessimistic = jnp.maximum(unclipped, clipped)
  bound = dual_clip * jnp.where(A < 0, -A, jnp.inf)
  policy_loss = jnp.sum(weights * jnp.minimum(pessimistic, bound))

  kl = jnp.sum(weights * _kl_estimate(logp, ref_logp))
  loss = policy_loss + kl_coef * kl
  metrics = {
    "policy_loss": policy_loss,
    "kl": kl,
    "clipfrac": jnp.sum(mean_weights * (clipped > unclipped)),
    "clipfrac_lower": jnp.sum(mean_weights * (pessimistic > bound)),
    "ppo_kl": jnp.sum(mean_weights * -log_ratio),
    "ratio_min": _extreme(jnp.min, ratio, mask, jnp.inf),
    "ratio_max": _extreme(jnp.max, ratio, mask, -jnp.inf),
  }
  if entropy is not None:
    entropy = _masked(mask, entropy)
    loss -= entropy_coef * jnp.sum(weights * entropy)
    metrics["entropy"] = jnp.sum(mean_weights * entropy)
  return loss, jax.lax.stop_gradient(metrics)


def _weights(
  mask: Bool[Array, "*N R"], aggregation: str, batch_counts: Denominators | None
) -> Float[Array, "*N R"]:
  """Returns the weight of each token in an aggregate, 0 where masked."""
  counts = denominators(mask, mask.shape[-1]) if batch_counts is None else batch_counts
  sequences = jnp.asarray(counts.sequences, jnp.float32)
  match aggregation:
    case "token-mean":
      total = jnp.asarray(counts.tokens, jnp.float32)
    case "seq-mean-token-sum":
      total = sequences
    case "seq-mean-token-mean":
      total = sequences * jnp.sum(mask, axis=-1, keepdims=True)
    case "seq-mean-token-sum-norm":
      total = counts.max_tokens * (1.0 if batch_counts is None else sequences)
  return mask / jnp.maximum(total, 1.0)


def _kl_estimate(
  logp: Float[Array, "*N R"], ref_logp: Float[Array, "*N R"]
) -> Float[Array, "*N R"]:
  """Estimates the KL from the current to the initial policy at each token (the "k3" estimator)."""
  d = jnp.clip(ref_logp - logp, -_MAX_LOG_RATIO, _MAX_LOG_RATIO)
  # expm1 keeps the digits that exp(d) - 1 loses near 0, where d is for most of a run.
  return jnp.clip(jnp.expm1(d) - d, -_MAX_KL, _MAX_KL)


def _extreme(
  reduce: Callable[..., Float[Array, ""]],
  ratio: Float[Array, "*N R"],
  mask: Bool[Array, "*N R"],
  initial: float,
) -> Float[Array, ""]:
  """Returns the smallest or largest unmasked ratio; 1 if everything is masked."""
  return jnp.where(jnp.any(mask), reduce(ratio, where=mask, initial=initial), 1.0)


def _masked(mask: Bool[Array, "*N R"], values: Float[Array, "*N #R"]) -> Float[Array, "*N R"]:
  """Returns values in float32 with 0 where masked, also in place of NaN."""
  return jnp.where(mask, jnp.asarray(values, jnp.float32), 0.0)


def _as_bool(mask: Bool[Array, "*N R"]) -> Bool[Array, "*N R"]:
  return jnp.asarray(mask) != 0


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
