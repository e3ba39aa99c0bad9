"""Estimates of the KL divergence from the current to the initial policy, token by token.

With e = logp - ref_logp (http://joschu.net/blog/kl-approx.html), in nats:

| name | value | gradient with respect to logp |
|---|---|---|
| `k1` | e | 1, which is no gradient of the KL |
| `k2` | e^2 / 2 | e |
| `k3` | clip(exp(d) - d - 1, -10, 10), d = clip(-e, -20, 20) | 1 - exp(d) |
| `k1+` | e | e |
| `k3+` | that of `k3` | e |

All are verl's, and so is the "+": the value of an estimator with the gradient of `k2`
(straight-through), which on policy is an unbiased estimate of the KL's gradient. TRL multiplies
`k3` by the ratio instead, which is not built.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sejax.method import inputs
from sejax.method.numerics import MAX_LOG_RATIO, clip

ESTIMATORS = ("k1", "k2", "k3", "k1+", "k3+")

_MAX_K3 = 10.0  # as in verl


def estimate(
  logp: Float[Array, "*N R"], ref_logp: Float[Array, "*N R"], estimator: str
) -> Float[Array, "*N R"]:
  """Returns an estimate of the KL at each token.

  Args:
    estimator: one of `ESTIMATORS`.

  Raises:
    ValueError: the estimator is unknown.
  """
  inputs.one_of("kl_estimator", estimator, ESTIMATORS)
  e = logp - ref_logp
  value = _value(e, estimator.removesuffix("+"))
  if not estimator.endswith("+"):
    return value
  k2 = _value(e, "k2")
  return k2 - jax.lax.stop_gradient(k2) + jax.lax.stop_gradient(value)


def k3(e: Float[Array, "*n"]) -> Float[Array, "*n"]:
  """Returns exp(-e) - 1 + e of a difference of log-probs, clipped as in verl."""
  d = clip(-e, -MAX_LOG_RATIO, MAX_LOG_RATIO)
  # expm1 keeps the digits that exp(d) - 1 loses near 0, where d is for most of a run.
  return clip(jnp.expm1(d) - d, -_MAX_K3, _MAX_K3)


def _value(e: Float[Array, "*n"], estimator: str) -> Float[Array, "*n"]:
  match estimator:
    case "k1":
      return e
    case "k2":
      return jnp.square(e) / 2
    case "k3":
      return k3(e)
