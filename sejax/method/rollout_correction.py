"""Importance weights where the sampler and the trainer give a token different probabilities.

The sampler draws from its own distribution: of another program, in another precision, and after
filters such as top-p. With x = old_logp - behaviour_logp, trainer against sampler, the policy loss
of a token is multiplied by a weight w without gradient:

| correction | w |
|---|---|
| `none` | 1 |
| `token_truncate` | clip(exp(x), correction_min, correction_max): truncated importance sampling |
| `token_mask` | exp(x), and 0 outside of the bounds: IcePop |
| `sequence_truncate`, `sequence_mask` | the same with the sum of x over the sequence |

x is clipped to [-20, 20] first, as in verl; the names and bounds are TRL's. A weight of 0 leaves
the token in the denominators, in both. `gmpo`, whose loss is one per sequence, takes the geometric
mean of the weights, as verl does, and refuses `token_mask`. verl's rejection, which reduces the
denominators, and its division by the mean weight are not built. The KL penalty and the entropy are
not weighted.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sejax.method import inputs
from sejax.method.aggregation import Denominators
from sejax.method.kl import k3
from sejax.method.numerics import as_bool, clip, exp_clipped, keep, sequence_sum

CORRECTIONS = ("none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask")


def importance_weights(
  old_logp: Float[Array, "*N R"],
  behaviour_logp: Float[Array, "*N R"],
  mask: Bool[Array, "*N R"],
  *,
  rollout_correction: str,
  correction_min: float,
  correction_max: float,
) -> Float[Array, "*N R"]:
  """Returns the weight of each token, without gradient; 1 where masked.

  Args:
    old_logp: log-probs under the policy before the first update, by the trainer.
    behaviour_logp: log-probs under the distribution that the sampler drew from.
    mask: tokens that count.
    rollout_correction: one of `CORRECTIONS`.
    correction_min: smallest weight, in [0, 1].
    correction_max: largest weight, at least 1, so that tokens on which both agree count.

  Raises:
    ValueError: an option is unknown or out of its range.
  """
  check_correction(rollout_correction, correction_min, correction_max)
  if rollout_correction == "none":
    return jnp.ones(jnp.shape(mask), jnp.float32)
  mask = as_bool(mask)
  x = jax.lax.stop_gradient(keep(mask, old_logp) - keep(mask, behaviour_logp))
  level, _, rule = rollout_correction.partition("_")
  if level == "sequence":
    x = jnp.broadcast_to(sequence_sum(mask, x), x.shape)
  ratio = exp_clipped(x)
  if rule == "truncate":
    weight = clip(ratio, correction_min, correction_max)
  else:
    weight = jnp.where((ratio < correction_min) | (ratio > correction_max), 0.0, ratio)
  return jnp.where(mask, weight, 1.0)


def check_correction(rollout_correction: str, correction_min: float, correction_max: float) -> None:
  """Raises OptionError unless the options can be."""
  inputs.one_of("rollout_correction", rollout_correction, CORRECTIONS)
  inputs.between("correction_max", correction_max, 1.0, float("inf"))
  inputs.between("correction_min", correction_min, 0.0, 1.0)


def mismatch_parts(
  old_logp: Float[Array, "*N R"],
  behaviour_logp: Float[Array, "*N R"],
  mask: Bool[Array, "*N R"],
  denominators: Denominators | None = None,
) -> dict[str, Float[Array, ""]]:
  """Returns a micro-batch's parts in `mismatch`: they add up, but for the maximum.

  Args:
    old_logp: log-probs under the policy before the first update, by the trainer.
    behaviour_logp: log-probs under the distribution that the sampler drew from.
    mask: tokens that count.
    denominators: counts of the whole optimizer batch; None if this micro-batch is all of it.
  """
  mask = as_bool(mask)
  count = jnp.sum(mask) if denominators is None else denominators.tokens
  count = jnp.maximum(count, 1)

  def mean(values: Float[Array, "*N R"]) -> Float[Array, ""]:
    return jnp.sum(keep(mask, values)) / count

  x = keep(mask, old_logp) - keep(mask, behaviour_logp)
  weights = exp_clipped(x)
  return {
    "mismatch_mean": mean(jnp.abs(x)),
    "mismatch_max": jnp.max(jnp.abs(x)),
    "mismatch_k3_kl": mean(k3(-x)),
    "mismatch_weight": mean(weights),
    "mismatch_square": mean(jnp.square(weights)),
  }


def mismatch(parts: Mapping[str, Float[Array, ""]]) -> dict[str, Float[Array, ""]]:
  """Returns how far sampler and trainer disagree about the tokens of an optimizer batch.

  Args:
    parts: `mismatch_parts` of the whole batch, or of its micro-batches combined.

  Returns:
    - `mismatch_mean`, `mismatch_max`: mean and largest |x| over tokens, in nats.
    - `mismatch_k3_kl`: estimate of the KL from the sampler to the trainer, exp(x) - 1 - x over
      tokens, clipped as in `sejax.method.kl.k3`.
    - `mismatch_ess`: effective sample size of the weights w = exp(x), as a share of the tokens:
      (mean w)^2 / mean w^2, 1 where both agree.

    All are of the plain difference, whatever correction is used; 0, 0, 0 and 1 without any token.
  """
  found = {name: parts[name] for name in ("mismatch_mean", "mismatch_max", "mismatch_k3_kl")}
  ess = effective_sample_size(parts["mismatch_weight"], parts["mismatch_square"])
  return found | {"mismatch_ess": ess}


def effective_sample_size(
  mean: Float[Array, ""], mean_square: Float[Array, ""]
) -> Float[Array, ""]:
  """Returns the effective sample size of weights, as a share: 1 if no weight is above 0.

  Args:
    mean: mean of the weights.
    mean_square: mean of their squares.
  """
  share = jnp.square(mean) / jnp.maximum(mean_square, 1e-30)
  return jnp.where(mean_square > 0, share, 1.0)
