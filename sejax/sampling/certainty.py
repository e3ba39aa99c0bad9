"""How sure a model is of its next tokens, measured on the logits that tokens are drawn from.

Self-certainty is the reward of Intuitor (arXiv:2505.19590) up to a constant: it is the divergence
KL(uniform || p) plus the logarithm of the number of allowed tokens, as the authors' code computes
it. Banned tokens are left out; the authors' code, which knows none, would make it infinite.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sejax.sampling.filters import Filters


class Certainty(NamedTuple):
  """Of the distribution over the next token of each row, in nats.

  Attributes:
    entropy: with temperature and banned ids, but before the other filters; at temperature 0, that
      at temperature 1.
    self_certainty: logsumexp(z) - mean(z) over the logits z of the allowed tokens.
  """

  entropy: Float[Array, "*b"]
  self_certainty: Float[Array, "*b"]


def certainty(filters: Filters, logits: Float[Array, "*b V"], temperature: float) -> Certainty:
  """Returns how sure the model is of the next token.

  Args:
    filters: temperature of the entropy, and banned ids.
    logits: fp32.
    temperature: of self-certainty; above 0.
  """
  allowed = jnp.ones(logits.shape[-1], bool)
  if filters.banned:
    allowed = allowed.at[jnp.array(filters.banned)].set(False)
  scaled = logits / (filters.temperature or 1.0)
  logp = scaled - _logsumexp(scaled, allowed)[..., None]
  z = logits / temperature
  mean = jnp.sum(z, axis=-1, where=allowed) / jnp.sum(allowed)
  return Certainty(
    entropy=-jnp.sum(jnp.exp(logp) * logp, axis=-1, where=allowed),
    self_certainty=_logsumexp(z, allowed) - mean,
  )


def _logsumexp(z: Float[Array, "*b V"], allowed: Bool[Array, " V"]) -> Float[Array, "*b"]:
  return jax.nn.logsumexp(z, axis=-1, where=allowed)
