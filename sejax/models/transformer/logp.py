"""Log-probs and entropies of given tokens, computed in chunks so that few logits exist at once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sejax.models.transformer.config import ModelConfig
from sejax.models.transformer.generation import logits
from sejax.models.transformer.layers import constrain_rows
from sejax.models.transformer.params import Params


class LogProbs(NamedTuple):
  """Log-prob of each token and entropy of the distribution over it; fp32, in nats."""

  logp: Float[Array, "B G T"]
  entropy: Float[Array, "B G T"]


def logp(
  params: Params,
  config: ModelConfig,
  last_hidden: Float[Array, "B D"] | Float[Array, "B G D"],
  hidden: Float[Array, "B G T D"],
  tokens: Int[Array, "B G T"],
  temperature: float | Float[Array, ""] = 1.0,
  banned: Bool[Array, " V"] | None = None,
) -> LogProbs:
  """Computes log-probs and entropies of tokens from the hidden state before each of them.

  Logits exist for `config.logits_chunk` tokens of a row at a time and are recomputed in the
  backward pass; an array `[B,G,T,V]` never exists.

  Args:
    last_hidden: hidden state before the first token: of each prompt's last token, from `prefill` or
      `forward`, or of each continuation's last token after a cached `extend`, from `select_last`.
    hidden: hidden states of the tokens, from `extend` or `forward`.
    temperature: logits are divided by it, as in sampling.
    banned: True for ids that cannot be sampled; their log-prob is minus infinity. If the padding id
      is banned, remove padding with `jnp.where`, as zero times minus infinity is NaN.
  """
  batch, members, length = tokens.shape
  last_hidden = last_hidden if last_hidden.ndim == 3 else last_hidden[:, None]
  first = jnp.broadcast_to(last_hidden[:, :, None], (batch, members, 1, hidden.shape[-1]))
  before = constrain_rows(jnp.concatenate([first, hidden[:, :, :-1]], axis=2), config.rows)

  count = members * length
  chunks = -(-count // config.logits_chunk)
  size = -(-count // chunks)

  def split(x):  # [B,G,T,...] -> [chunks,B,size,...]
    flat = x.reshape(batch, count, *x.shape[3:])
    flat = jnp.pad(flat, [(0, 0), (0, chunks * size - count)] + [(0, 0)] * (flat.ndim - 2))
    return jnp.moveaxis(flat.reshape(batch, chunks, size, *flat.shape[2:]), 1, 0)

  # The head enters the loop in fp32 and is cast inside, so that its gradient is summed over chunks
  # in fp32.
  head = jax.tree.map(lambda x: x.astype(jnp.float32), _head(params))

  @jax.checkpoint
  def logp_of_chunk(inputs):
    chunk_hidden, chunk_tokens = inputs
    cast_head = jax.tree.map(lambda x: x.astype(hidden.dtype), head)
    return _from_logits(logits(cast_head, chunk_hidden), chunk_tokens, temperature, banned)

  found = jax.lax.map(logp_of_chunk, (split(before), split(tokens)))

  def join(x):  # [chunks,B,size] -> [B,G,T]
    flat = jnp.moveaxis(x, 0, 1).reshape(batch, chunks * size)
    return flat[:, :count].reshape(tokens.shape)

  return jax.tree.map(join, found)


def _head(params: Params) -> Params:
  """Returns the part of the parameter tree that `logits` uses."""
  if "lm_head" in params:
    return {"lm_head": params["lm_head"]}
  return {"decoder": {"embed": params["decoder"]["embed"]}}


def _from_logits(
  raw: Float[Array, "B C V"],
  tokens: Int[Array, "B C"],
  temperature: float | Float[Array, ""],
  banned: Bool[Array, " V"] | None,
) -> LogProbs:
  """Computes log-probs and entropies from the logits of one chunk of C tokens."""
  scaled = raw / temperature
  allowed = scaled if banned is None else jnp.where(banned, -jnp.inf, scaled)
  normalizer = jax.nn.logsumexp(allowed, axis=-1, keepdims=True)
  chosen = jnp.take_along_axis(allowed - normalizer, tokens[..., None], axis=-1)[..., 0]
  # A banned token adds nothing: its probability is 0, and the logarithm without the mask is finite.
  entropy = -jnp.sum(jnp.exp(allowed - normalizer) * (scaled - normalizer), axis=-1)
  return LogProbs(chosen, entropy)
