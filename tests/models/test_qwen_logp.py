"""Compares log-probs and entropies with torch's distributions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests.models import torch_reference

B, G, T = 2, 3, 5


@functools.partial(jax.jit, static_argnums=1)
def logp(params, config, last, hidden, tokens, temperature=1.0, banned=None):
  return config.logp(params, last, hidden, tokens, temperature, banned)


@pytest.fixture
def inputs():
  """The hidden state before the first token, the hidden states of the tokens, and the tokens."""
  rng = np.random.default_rng(0)
  hidden = 2 * rng.standard_normal((B, G, T, 64)).astype(np.float32)
  last = 2 * rng.standard_normal((B, 64)).astype(np.float32)
  return last, hidden, rng.integers(0, 128, (B, G, T)).astype(np.int32)


def reference(pair, last, hidden, tokens, temperature=1.0, banned=()):
  first = np.broadcast_to(last[:, None, None], (B, G, 1, 64))
  before = torch.from_numpy(np.concatenate([first, hidden[:, :, :-1]], axis=2))
  with torch.no_grad():
    logits = pair.torch_model.lm_head(before).double() / temperature
  logits[..., list(banned)] = -torch.inf
  distribution = torch.distributions.Categorical(logits=logits)
  entropy = distribution.entropy()
  return distribution.log_prob(torch.from_numpy(tokens).long()).numpy(), entropy.numpy()


@pytest.mark.parametrize("chunk", [256, 4])  # One chunk; chunks that do not divide the 15 tokens.
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("head", ["tiny", "tied"])
def test_equals_torch(head, temperature, chunk, inputs, request):
  pair = request.getfixturevalue(head)
  config = dataclasses.replace(pair.config, logits_chunk=chunk)
  want_logp, want_entropy = reference(pair, *inputs, temperature)
  got = logp(pair.params, config, *inputs, temperature)
  np.testing.assert_allclose(got.logp, want_logp, rtol=0, atol=2e-5)
  np.testing.assert_allclose(got.entropy, want_entropy, rtol=0, atol=2e-5)


def test_banned_tokens(tiny, inputs):
  last, hidden, tokens = inputs
  banned = (3, 50, torch_reference.IMAGE)
  tokens = np.where(np.isin(tokens, banned), 4, tokens)
  tokens[1, 2, 3] = 50
  mask = jnp.zeros(128, bool).at[jnp.array(banned)].set(True)
  want_logp, want_entropy = reference(tiny, last, hidden, tokens, 0.9, banned)
  got = logp(tiny.params, tiny.config, last, hidden, tokens, 0.9, mask)
  assert np.isneginf(got.logp).sum() == 1  # The token 50 above.
  np.testing.assert_allclose(got.logp, want_logp, rtol=0, atol=2e-5)
  np.testing.assert_allclose(got.entropy, want_entropy, rtol=0, atol=2e-5)

  def loss(hidden):
    found = tiny.config.logp(tiny.params, last, hidden, tokens, 0.9, mask)
    return jnp.where(jnp.isfinite(found.logp), found.logp, 0).sum() + found.entropy.sum()

  gradient = np.asarray(jax.jit(jax.grad(loss))(hidden))
  assert np.isfinite(gradient).all()
  assert not gradient[:, :, -1].any()  # No token comes after the last one.
  assert gradient[:, :, :-1].any(axis=-1).all()
