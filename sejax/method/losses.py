"""The clipped GRPO loss of one micro-batch, with the denominators of the whole optimizer batch."""

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

_MAX_LOG_RATIO = 20.0  # exp stays finite in float32; both bounds are the released code's.
_MAX_KL = 10.0


class Denominators(NamedTuple):
  """What the sums of a loss are divided by, counted over a whole optimizer batch.

  Attributes:
    tokens: unmasked tokens.
    sequences: sequences with at least one unmasked token, so that padding rows do not count.
    max_tokens: the longest response the run allows, never the width of a bucket.
  """

  tokens: Int[Array, ""]
  sequences: Int[Array, ""]
  max_tokens: int


def denominators(mask: Bool[Array, "*N R"], max_tokens: int) -> Denominators:
  """Counts the tokens and sequences of an optimizer batch.

  Args:
    mask: response tokens of the whole batch, every micro-batch and every shard. Counts of parts
      may be added instead.
    max_tokens: the longest response the run allows.

  Returns:
    The denominators to give to `grpo_loss` with each part of that batch.
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
  """Clipped policy loss with KL to the initial policy (GRPO, arXiv:2402.03300).

  Per token, with ratio = exp(clip(logp - old_logp, -20, 20)):

      L = max(-A ratio, -A clip(ratio, 1 - clip_low, 1 + clip_high))
      L = min(L, -A dual_clip)                         where A < 0 (dual clip, arXiv:1912.09729)
      d = clip(ref_logp - logp, -20, 20)
      k = clip(exp(d) - d - 1, -10, 10)                the low-variance KL estimate, in nats
      loss = aggregate(L) + kl_coef aggregate(k) - entropy_coef aggregate(entropy)

  An aggregate is a sum over unmasked tokens over a denominator:

  - `token-mean`: tokens (DAPO, arXiv:2503.14476). The released run.
  - `seq-mean-token-sum`: sequences.
  - `seq-mean-token-mean`: sequences, each token weighted by 1 / its sequence's length (GRPO).
  - `seq-mean-token-sum-norm`: max_tokens times sequences; without `denominators` R alone, as in the
    released code (Dr. GRPO, arXiv:2503.20783).

  With the `denominators` of the optimizer batch, the losses, gradients and metrics of its
  micro-batches add up to those of the whole batch, however it is cut between sequences; only
  `ratio_min` and `ratio_max` combine by minimum and maximum. Without them the call stands alone and
  counts its own mask.

  Only `logp` and `entropy` carry a gradient. Masked positions are replaced before any arithmetic,
  so whatever stands there, NaN included, reaches neither value nor gradient; where everything is
  masked, loss and gradient are 0. All arithmetic is float32. Options are static: each set of them
  compiles once.

  Args:
    logp: log-probabilities of the response tokens under the current policy, in nats.
    old_logp: the same under the policy that sampled.
    ref_logp: the same under the initial policy.
    advantage: A, one per sequence.
    mask: which tokens count, boolean or 0 and 1.
    clip_low: how far the ratio may fall below 1, in [0, 1].
    clip_high: how far it may rise above 1, at least 0.
    dual_clip: bound on L in units of |A| where A < 0, at least 1; infinity switches it off.
    kl_coef: weight of the KL estimate, at least 0.
    aggregation: one of `AGGREGATIONS`.
    denominators: counts of the whole optimizer batch; None if this call is all of it.
    entropy: entropy of the policy at each token, in nats, or None.
    entropy_coef: weight of the entropy bonus; needs `entropy` unless it is 0.

  Returns:
    The loss and a dict of scalars without gradient: `policy_loss` and `kl` as aggregated, before
    their coefficients; as means over tokens `clipfrac` (the ratio's clip changed L),
    `clipfrac_lower` (the dual clip did), `ppo_kl` (of old_logp - logp) and, where given, `entropy`;
    `ratio_min` and `ratio_max`, both 1 where everything is masked.

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
  logp = _select(mask, logp)
  old_logp, ref_logp, A = (
    jax.lax.stop_gradient(_select(mask, x))
    for x in (old_logp, ref_logp, jnp.asarray(advantage)[..., None])
  )
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
    entropy = _select(mask, entropy)
    loss -= entropy_coef * jnp.sum(weights * entropy)
    metrics["entropy"] = jnp.sum(mean_weights * entropy)
  return loss, jax.lax.stop_gradient(metrics)


def _weights(
  mask: Bool[Array, "*N R"], aggregation: str, given: Denominators | None
) -> Float[Array, "*N R"]:
  """Weight of each token in an aggregate, 0 where masked."""
  counts = denominators(mask, mask.shape[-1]) if given is None else given
  sequences = jnp.asarray(counts.sequences, jnp.float32)
  match aggregation:
    case "token-mean":
      total = jnp.asarray(counts.tokens, jnp.float32)
    case "seq-mean-token-sum":
      total = sequences
    case "seq-mean-token-mean":
      total = sequences * jnp.sum(mask, axis=-1, keepdims=True)
    case "seq-mean-token-sum-norm":
      total = counts.max_tokens * (1.0 if given is None else sequences)
  return mask / jnp.maximum(total, 1.0)


def _kl_estimate(
  logp: Float[Array, "*N R"], ref_logp: Float[Array, "*N R"]
) -> Float[Array, "*N R"]:
  """KL of the current to the initial policy at each token, low-variance form ("k3")."""
  d = jnp.clip(ref_logp - logp, -_MAX_LOG_RATIO, _MAX_LOG_RATIO)
  # expm1 keeps the digits that exp(d) - 1 loses near 0, where the policy is for most of a run.
  return jnp.clip(jnp.expm1(d) - d, -_MAX_KL, _MAX_KL)


def _extreme(
  reduce: Callable[..., Float[Array, ""]],
  ratio: Float[Array, "*N R"],
  mask: Bool[Array, "*N R"],
  start: float,
) -> Float[Array, ""]:
  return jnp.where(jnp.any(mask), reduce(ratio, where=mask, initial=start), 1.0)


def _select(mask: Bool[Array, "*N R"], values: Float[Array, "*N #R"]) -> Float[Array, "*N R"]:
  return jnp.where(mask, jnp.asarray(values, jnp.float32), 0.0)


def _as_bool(mask: Bool[Array, "*N R"]) -> Bool[Array, "*N R"]:
  return jnp.asarray(mask) != 0


def _check_shapes(
  logp: Float[Array, "*N R"],
  advantage: Float[Array, "*N"],
  **per_token: Float[Array, "*N R"] | None,
) -> None:
  # np.shape reads the attribute of an array, traced or not, and measures a list.
  shape = np.shape(logp)
  for name, array in per_token.items():
    if array is not None and np.shape(array) != shape:
      raise ValueError(f"{name} has shape {np.shape(array)} but logp has {shape}")
  if np.shape(advantage) != shape[:-1]:
    raise ValueError(
      f"advantage has shape {np.shape(advantage)} but logp has {shape}; "
      f"one advantage per sequence is {shape[:-1]}"
    )
