"""Log-probs and entropy of given tokens, without the logits of all of them at once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sejax.models.transformer.config import ModelConfig
from sejax.models.transformer.generation import logits
from sejax.models.transformer.layers import split_rows
from sejax.models.transformer.params import Params


class LogProbs(NamedTuple):
  """Of each token, under the distribution it was, or could have been, drawn from; fp32, in nats."""

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
  """Scores tokens by the hidden state before each: the prompt's last, then the trajectory's own.

  Logits exist for `config.logits_chunk` tokens of a row at a time and are computed again in the
  backward pass; a `[B,G,T,V]` array never exists.

  Args:
    params: the parameter tree.
    config: the model.
    last_hidden: of the token before the first: each prompt's last, from `prefill` or `forward`, or
      each trajectory's own after a cached `extend`, from `select_last`.
    hidden: of the tokens, from `extend` or `forward`.
    tokens: what to score.
    temperature: logits are divided by it, as in sampling.
    banned: tokens that cannot be drawn; their log-prob is minus infinity. Padding that is banned
      has it too, so leave padding out by `jnp.where`, not by multiplying with zero.

  Returns:
    Log-prob of each token and entropy of the distribution over it.
  """
  batch, members, length = tokens.shape
  last_hidden = last_hidden if last_hidden.ndim == 3 else last_hidden[:, None]
  first = jnp.broadcast_to(last_hidden[:, :, None], (batch, members, 1, hidden.shape[-1]))
  before = split_rows(jnp.concatenate([first, hidden[:, :, :-1]], axis=2), config.rows)

  count = members * length
  chunks = -(-count // config.logits_chunk)
  size = -(-count // chunks)

  def split(x):  # [B,G,T,...] -> [chunks,B,size,...]
    flat = x.reshape(batch, count, *x.shape[3:])
    flat = jnp.pad(flat, [(0, 0), (0, chunks * size - count)] + [(0, 0)] * (flat.ndim - 2))
    return jnp.moveaxis(flat.reshape(batch, chunks, size, *flat.shape[2:]), 1, 0)

  # Narrowed inside the loop, so that the head's gradient is summed over chunks in fp32.
  head = jax.tree.map(lambda x: x.astype(jnp.float32), _head(params))

  @jax.checkpoint
  def chunk(xs):
    narrow = jax.tree.map(lambda x: x.astype(hidden.dtype), head)
    return _from_logits(logits(narrow, xs[0]), xs[1], temperature, banned)

  found = jax.lax.map(chunk, (split(before), split(tokens)))

  def join(x):  # [chunks,B,size] -> [B,G,T]
    flat = jnp.moveaxis(x, 0, 1).reshape(batch, chunks * size)
    return flat[:, :count].reshape(tokens.shape)

  return jax.tree.map(join, found)


def _head(params: Params) -> Params:
  """Returns the part of the tree that `logits` reads."""
  if "lm_head" in params:
    return {"lm_head": params["lm_head"]}
  return {"decoder": {"embed": params["decoder"]["embed"]}}


def _from_logits(
  raw: Float[Array, "B C V"],
  tokens: Int[Array, "B C"],
  temperature: float | Float[Array, ""],
  banned: Bool[Array, " V"] | None,
) -> LogProbs:
  scaled = raw / temperature
  allowed = scaled if banned is None else jnp.where(banned, -jnp.inf, scaled)
  normalizer = jax.nn.logsumexp(allowed, axis=-1, keepdims=True)
  chosen = jnp.take_along_axis(allowed - normalizer, tokens[..., None], axis=-1)[..., 0]
  # Of a banned token the probability is 0 and, here, the logarithm finite: it adds nothing.
  entropy = -jnp.sum(jnp.exp(allowed - normalizer) * (scaled - normalizer), axis=-1)
  return LogProbs(chosen, entropy)
