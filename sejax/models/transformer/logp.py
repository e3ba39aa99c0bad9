"""Log-probs and entropies of given tokens, computed in chunks so that few logits exist at once.

The fused output layer of tokamax 0.0.12 (`linear_softmax_cross_entropy_loss`) was considered: it
returns one sum or mean over tokens, no entropy, and has no banned ids.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sejax.models.transformer.config import ModelConfig
from sejax.models.transformer.generation import logits
from sejax.models.transformer.layers import constrain_rows
from sejax.models.transformer.layout import DECODING
from sejax.models.transformer.params import Params
from sejax.parallel import layouts


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
  last_hidden = last_hidden if last_hidden.ndim == 3 else last_hidden[:, None]
  first = jnp.broadcast_to(last_hidden[:, :, None], (*tokens.shape[:2], 1, hidden.shape[-1]))
  before = jnp.concatenate([first, hidden[:, :, :-1]], axis=2)
  flat = before.reshape(len(tokens), -1, hidden.shape[-1])
  found = logp_of_tokens(params, config, flat, tokens.reshape(len(tokens), -1), temperature, banned)
  return jax.tree.map(lambda x: x.reshape(tokens.shape), found)


def logp_of_tokens(
  params: Params,
  config: ModelConfig,
  before: Float[Array, "N C D"],
  tokens: Int[Array, "N C"],
  temperature: float | Float[Array, ""] = 1.0,
  banned: Bool[Array, " V"] | None = None,
) -> LogProbs:
  """Computes log-probs and entropies `[N,C]` of tokens, see `logp`.

  Args:
    before: hidden state of the token before each token.
  """
  rows, count = tokens.shape
  before = constrain_rows(before, config.rows)
  chunks = -(-count // config.logits_chunk)
  size = -(-count // chunks)

  def split(x):  # [N,C,...] -> [chunks,N,size,...]
    padded = jnp.pad(x, [(0, 0), (0, chunks * size - count)] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(padded.reshape(rows, chunks, size, *x.shape[2:]), 1, 0)

  head = _head(params)
  if config.rows is not None:  # Gathered here once. In the loop it would be for each chunk.
    head = layouts.constrain(head, config.rows.mesh, DECODING)
  # The head enters the loop in fp32 and is cast inside, so that its gradient is summed over chunks
  # in fp32.
  head = jax.tree.map(lambda x: x.astype(jnp.float32), head)

  @jax.checkpoint
  def logp_of_chunk(inputs):
    chunk_before, chunk_tokens = inputs
    cast_head = jax.tree.map(lambda x: x.astype(before.dtype), head)
    return _from_logits(logits(cast_head, chunk_before), chunk_tokens, temperature, banned)

  found = jax.lax.map(logp_of_chunk, (split(before), split(tokens)))

  def join(x):  # [chunks,N,size] -> [N,C]
    return jnp.moveaxis(x, 0, 1).reshape(rows, chunks * size)[:, :count]

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
  # Unlike a gather, whose gradient writes all logits once more, this is fused with what is around.
  is_chosen = tokens[..., None] == jnp.arange(raw.shape[-1])
  chosen = jnp.sum(jnp.where(is_chosen, allowed - normalizer, 0), axis=-1)
  # A banned token adds nothing: its probability is 0, and the logarithm without the mask is finite.
  entropy = -jnp.sum(jnp.exp(allowed - normalizer) * (scaled - normalizer), axis=-1)
  return LogProbs(chosen, entropy)
