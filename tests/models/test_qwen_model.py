"""Compares the whole model with transformers': logits, prefixes, caches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sejax import models
from sejax.models.transformer import generation
from tests.models import torch_reference

ODD = (10, 18)  # Patches of a 140x252 px image; its windows are incomplete at two edges.
G, T = 3, 6

CASES = {
  "one image": [[3, ODD, 5], [1, (4, 4), 2]],
  "three images": [[3, ODD, (4, 4), 2, (8, 6), 5], [(2, 2), 1, (4, 8), (6, 4), 9]],
  "text only": [[7], [12]],
  "mixed": [[7], [2, ODD, (4, 4), 2, (8, 6), 5], [(4, 12), 3]],
  "long beside short": [[6, (32, 34), 20], [4]],
}


@functools.partial(jax.jit, static_argnums=1)
def run(params, config, prompt, images, tokens):
  """Returns logits after the prompt and after each token, computed in two passes and in one."""
  features = None if images is None else config.encode(params, images)
  prefix, first = config.prefill(params, prompt, features)
  extended, cache = config.extend(params, prefix, tokens)
  assert cache is None
  last, hidden = config.forward(params, prompt, features, tokens)
  return {
    "in two passes": (first, generation.logits(params, extended)),
    "in one pass": (generation.logits(params, last), generation.logits(params, hidden)),
  }


def random_tokens(prompts: int, members: int = G, length: int = T, seed: int = 5) -> np.ndarray:
  rng = np.random.default_rng(seed)
  shape = (prompts, members, length)
  return rng.integers(2, torch_reference.TEXT_IDS, shape).astype(np.int32)


def torch_logits(model, batch, tokens) -> tuple[np.ndarray, np.ndarray]:
  """Returns torch's logits after each prompt `[B,V]` and after each new token `[B,G,T,V]`."""
  with torch.no_grad():
    logits = model(**batch.torch_inputs(tokens)).logits.numpy()
  logits = logits.reshape(*tokens.shape[:2], *logits.shape[1:])
  first = [row[0, length - 1] for row, length in zip(logits, batch.lengths, strict=True)]
  after = [
    row[:, length : length + tokens.shape[2]]
    for row, length in zip(logits, batch.lengths, strict=True)
  ]
  return np.stack(first), np.stack(after)


def assert_close(got, want):
  assert 0.5 < np.abs(want).max() < 10  # The tolerance is meant for logits of about one.
  np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)


def assert_logits(
  pair, batch, config=None, tokens=None, prompt_size=None, image_size=None
) -> tuple[jax.Array, jax.Array]:
  """Compares logits from two passes and from one with torch's; returns those from one pass."""
  config = config or pair.config
  tokens = random_tokens(len(batch.ids)) if tokens is None else tokens
  want_first, want_after = torch_logits(pair.torch_model, batch, tokens)
  images = batch.images(config, image_size) if any(map(len, batch.patches)) else None
  outputs = run(pair.params, config, batch.prompt(config, prompt_size), images, tokens)
  for first, after in outputs.values():
    assert_close(first, want_first)
    assert_close(after, want_after)
  return outputs["in one pass"]


@pytest.mark.parametrize("case", CASES)
def test_logits(tiny, case):
  assert_logits(tiny, torch_reference.make_batch(tiny.config, CASES[case]))


def test_logits_of_a_tied_head(tied):
  assert_logits(tied, torch_reference.make_batch(tied.config, CASES["mixed"]))


def test_padding_changes_nothing(tiny):
  """Larger buckets of tokens and patches give the same logits."""
  batch = torch_reference.make_batch(tiny.config, CASES["mixed"])
  assert_logits(tiny, batch, prompt_size=128, image_size=320)


def test_attention_in_chunks(tiny):
  """Chunks that divide neither the prompt's length nor the continuations'."""
  config = dataclasses.replace(tiny.config, query_chunk=13)
  assert_logits(tiny, torch_reference.make_batch(config, CASES["one image"]), config)


def test_two_images_give_two_answers(tiny):
  batch = torch_reference.make_batch(tiny.config, [[3, (4, 8), 4]] * 2)
  batch = dataclasses.replace(batch, ids=[batch.ids[0]] * 2)
  first, after = assert_logits(tiny, batch, tokens=np.repeat(random_tokens(1), 2, axis=0))
  assert np.abs(first[0] - first[1]).max() > 0.1
  assert (np.abs(after[0] - after[1]).max(axis=-1) > 1e-3).all()


@functools.partial(jax.jit, static_argnums=(1, 6))
def step(params, config, prefix, tokens, cache, lengths, attended_length):
  hidden, cache = config.extend(params, prefix, tokens, cache, lengths, attended_length)
  return generation.logits(params, hidden), cache


@functools.partial(jax.jit, static_argnums=1)
def prefill(params, config, prompt, images):
  return config.prefill(params, prompt, config.encode(params, images))


def test_token_by_token(tiny):
  """Decoding token by token equals one pass; only `attended_length` positions are attended to."""
  config, params = tiny.config, tiny.params
  batch = torch_reference.make_batch(config, CASES["mixed"])
  tokens = random_tokens(3)
  want_first, want_after = torch_logits(tiny.torch_model, batch, tokens)
  prefix, first = prefill(params, config, batch.prompt(config), batch.images(config))
  assert_close(first, want_first)
  cache = config.empty_cache(3, G, cache_length=8, dtype=jnp.float32)
  # Cache positions beyond `attended_length` must not be read.
  cache = cache._replace(keys=cache.keys.at[..., T:, :].set(jnp.nan))
  for t in range(T):
    attended_length = 4 if t <= 4 else T
    logits, cache = step(
      params, config, prefix, tokens[:, :, t : t + 1], cache, None, attended_length
    )
    assert_close(logits[:, :, 0], want_after[:, :, t])
  np.testing.assert_array_equal(cache.lengths, np.full((3, G), T))
  assert cache.used == T


def test_continuing_after_texts_of_different_lengths(tiny):
  """Continuations start with texts of different lengths; then single tokens, some ending early."""
  config, params = tiny.config, tiny.params
  batch = torch_reference.make_batch(config, CASES["mixed"])
  tokens = random_tokens(3, length=8)
  text = np.array([[4, 1, 0], [2, 4, 3], [3, 0, 1]], np.int32)
  real = np.concatenate(
    [np.arange(4) < text[..., None], np.arange(4) < (text[..., None] + 1) % 5], axis=-1
  )
  prefix, _ = prefill(params, config, batch.prompt(config), batch.images(config))
  cache = config.empty_cache(3, G, cache_length=8, dtype=jnp.float32)
  logits, cache = step(params, config, prefix, tokens[..., :4], cache, text, 0)
  got = [logits]
  for t in range(4, 8):
    lengths = real[..., t].astype(np.int32)
    logits, cache = step(params, config, prefix, tokens[..., t : t + 1], cache, lengths, 8)
    got.append(logits)
  got = np.concatenate(got, axis=2)
  np.testing.assert_array_equal(cache.valid, real)
  np.testing.assert_array_equal(cache.lengths, real.sum(axis=-1))

  # The reference gets only the real tokens of each continuation, without gaps.
  packed = np.zeros_like(tokens)
  for at in np.ndindex(3, G):
    packed[at][: real[at].sum()] = tokens[at][real[at]]
  _, want = torch_logits(tiny.torch_model, batch, packed)
  for at in np.ndindex(3, G):
    assert_close(got[at][real[at]], want[at][: real[at].sum()])


def test_image_tokens_in_padding_take_no_feature(tiny):
  batch = torch_reference.make_batch(tiny.config, [[7], [3, (4, 4), 5]])
  prompt, images = batch.prompt(tiny.config), batch.images(tiny.config)
  real = np.arange(prompt.ids.shape[1]) < prompt.lengths[:, None]
  padded_with_image_tokens = prompt._replace(
    ids=np.where(real, prompt.ids, tiny.config.image_token_id)
  )
  prefill = jax.jit(
    lambda params, prompt: tiny.config.prefill(params, prompt, tiny.config.encode(params, images))[
      1
    ]
  )
  assert not real[0].all()
  np.testing.assert_array_equal(
    prefill(tiny.params, padded_with_image_tokens), prefill(tiny.params, prompt)
  )


def test_log_probs_in_two_segments(tiny):
  """Log-probs after a cached extension, from the last hidden state of each continuation."""
  batch = torch_reference.make_batch(tiny.config, [[7], [4]])
  tokens = random_tokens(2)

  @jax.jit
  def token_logprobs(params, prompt):
    prefix, _ = tiny.config.prefill(params, prompt)
    whole, _ = tiny.config.extend(params, prefix, tokens)
    want = tiny.config.logp(params, prefix.last_hidden, whole, tokens).logp
    cache = tiny.config.empty_cache(2, G, T, jnp.float32)
    first, cache = tiny.config.extend(params, prefix, tokens[..., :2], cache)
    rest, _ = tiny.config.extend(params, prefix, tokens[..., 2:], cache)
    got = tiny.config.logp(params, first[:, :, -1], rest, tokens[..., 2:]).logp
    return got, want[..., 2:]

  got, want = token_logprobs(tiny.params, batch.prompt(tiny.config))
  np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)


def test_select_last():
  hidden = np.arange(2 * 3 * 4 * 2, dtype=np.float32).reshape(2, 3, 4, 2)
  lengths = np.array([[1, 4, 2], [3, 0, 4]])
  got = models.select_last(jnp.asarray(hidden), jnp.asarray(lengths))
  for b, g in np.ndindex(2, 3):
    np.testing.assert_array_equal(got[b, g], hidden[b, g, max(lengths[b, g] - 1, 0)])


def test_bf16(tiny):
  """With bf16 weights the model computes in bf16, with no larger error than torch in bf16."""
  batch = torch_reference.make_batch(tiny.config, CASES["mixed"])
  tokens = random_tokens(3)
  _, exact = torch_logits(tiny.torch_model, batch, tokens)
  bf16_model = torch_reference.torch_model(tiny.config).to(torch.bfloat16)
  with torch.no_grad():
    logits = bf16_model(**batch.torch_inputs(tokens)).logits.float().numpy()
  rows = logits.reshape(3, G, *logits.shape[1:])
  theirs = np.stack([row[:, n : n + T] for row, n in zip(rows, batch.lengths, strict=True)])

  params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tiny.params)
  inputs = (batch.prompt(tiny.config), batch.images(tiny.config), tokens)
  for first, after in run(params, tiny.config, *inputs).values():
    assert first.dtype == after.dtype == jnp.float32
    error = np.sqrt(np.mean((after - exact) ** 2))
    assert 1e-3 < error < 1.2 * np.sqrt(np.mean((theirs - exact) ** 2))
  prefix, _ = prefill.eval_shape(params, tiny.config, *inputs[:2])
  assert prefix.keys.dtype == prefix.last_hidden.dtype == jnp.bfloat16
