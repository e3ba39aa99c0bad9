"""Compares the whole model with transformers': logits, prefixes, pages."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sejax import models
from sejax.models.transformer import generation
from tests.models import decoding, torch_reference

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
  extended, _ = config.extend(params, prefix, tokens)
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


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_logits(tiny, case):
  assert_logits(tiny, torch_reference.make_batch(tiny.config, CASES[case]))


@pytest.mark.long
def test_logits_of_a_tied_head(tied):
  assert_logits(tied, torch_reference.make_batch(tied.config, CASES["mixed"]))


@pytest.mark.long
def test_padding_changes_nothing(tiny):
  """Larger buckets of tokens and patches give the same logits."""
  batch = torch_reference.make_batch(tiny.config, CASES["mixed"])
  assert_logits(tiny, batch, prompt_size=128, image_size=320)


@pytest.mark.long
def test_attention_in_chunks(tiny):
  """Chunks that divide neither the prompt's length nor the continuations'."""
  config = dataclasses.replace(tiny.config, query_chunk=13)
  assert_logits(tiny, torch_reference.make_batch(config, CASES["one image"]), config)


@pytest.mark.long
def test_two_images_give_two_answers(tiny):
  batch = torch_reference.make_batch(tiny.config, [[3, (4, 8), 4]] * 2)
  batch = dataclasses.replace(batch, ids=[batch.ids[0]] * 2)
  first, after = assert_logits(tiny, batch, tokens=np.repeat(random_tokens(1), 2, axis=0))
  assert np.abs(first[0] - first[1]).max() > 0.1
  assert (np.abs(after[0] - after[1]).max(axis=-1) > 1e-3).all()


@functools.partial(jax.jit, static_argnums=1)
def prefill(params, config, prompt, images):
  return config.prefill(params, prompt, config.encode(params, images))


# Tokens of a run, of a page, and row shards: all in one run, a run for each token, and runs that
# end within pages; layers in arrays of their own, too.
@pytest.mark.parametrize(
  ("steps", "page_size", "shards", "layered_cache"),
  [(None, 4, 1, False), (1, 4, 3, False), (4, 3, 1, True)],
)
def test_token_by_token(tiny, steps, page_size, shards, layered_cache):
  """Decoding token by token equals one pass of torch's."""
  config = dataclasses.replace(tiny.config, layered_cache=layered_cache)
  batch = torch_reference.make_batch(config, CASES["mixed"])
  tokens = random_tokens(3)
  want_first, want_after = torch_logits(tiny.torch_model, batch, tokens)
  prefix, first = prefill(tiny.params, config, batch.prompt(config), batch.images(config))
  assert_close(first, want_first)
  hidden = decoding.decode(
    config, tiny.params, prefix, tokens, steps=steps, page_size=page_size, shards=shards
  )
  assert_close(generation.logits(tiny.params, hidden), want_after)


@pytest.mark.long
@pytest.mark.parametrize("layered_cache", [False, True])
def test_continuing_after_texts_of_different_lengths(tiny, layered_cache):
  """Continuations start with texts of different lengths; then single tokens, some ending early."""
  config = dataclasses.replace(tiny.config, layered_cache=layered_cache)
  batch = torch_reference.make_batch(config, CASES["mixed"])
  tokens = random_tokens(3, length=8)
  text = np.array([[4, 1, 0], [2, 8, 3], [3, 0, 6]])
  _, want = torch_logits(tiny.torch_model, batch, tokens)
  prefix, _ = prefill(tiny.params, config, batch.prompt(config), batch.images(config))
  hidden = decoding.decode(
    config, tiny.params, prefix, tokens, given=text, steps=3, page_size=3, shards=3
  )
  assert_close(generation.logits(tiny.params, hidden), want)


@pytest.mark.long
@pytest.mark.parametrize("layered_cache", [False, True])
@pytest.mark.parametrize("prompts", [[[2, 0, 2, 1]], [[1, 0, 1], [0, 0, 1]]])
def test_rows_of_any_prompts(tiny, prompts, layered_cache):
  """`extend` reads rows of some of the prompts, which are counted within each row shard."""
  config, prompts = tiny.config, np.array(prompts)
  batch = torch_reference.make_batch(config, [*CASES["mixed"], [5]])
  prefix, _ = prefill(tiny.params, config, batch.prompt(config), batch.images(config))
  shards = len(prompts)
  of_rows = (prompts + 4 // shards * np.arange(shards)[:, None]).reshape(-1)
  tokens = random_tokens(len(of_rows))
  extend = jax.jit(config.extend)
  # Every row's tokens after every prompt: [L,B,K,U,G,T,H] and [B,U,G,T,D].
  each = np.broadcast_to(tokens.reshape(-1, T), (4, len(of_rows) * G, T))
  all_hidden, all_pages = extend(tiny.params, prefix, each)
  all_hidden = np.asarray(all_hidden).reshape(4, len(of_rows), G, T, -1)
  want_hidden = np.stack([all_hidden[b, row] for row, b in enumerate(of_rows)])

  if layered_cache:
    config = dataclasses.replace(config, layered_cache=True)
    layers = models.unstack_layers(config.layers(tiny.params))
    params, prefix = config.with_layers(tiny.params, layers), config.decoding_state(prefix)
  else:
    params = tiny.params
  hidden, pages = extend(params, prefix, tokens, prompts)
  assert 1 < np.abs(want_hidden).max() < 10
  # Rounding of sums in another order, for numbers of about one.
  np.testing.assert_allclose(hidden, want_hidden, rtol=0, atol=2e-5)
  assert isinstance(pages.keys, tuple) == layered_cache
  for got, want in zip(pages, all_pages, strict=True):
    want = np.asarray(want)
    want = want.reshape(*want.shape[:3], len(of_rows), G, *want.shape[4:])
    want = np.stack([want[:, b, :, row] for row, b in enumerate(of_rows)], axis=1)
    np.testing.assert_allclose(np.stack(got), want, rtol=0, atol=2e-5)


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


@pytest.mark.long
def test_log_probs_in_two_segments(tiny):
  """Log-probs after tokens in pages, from the last hidden state of each continuation."""
  config, params = tiny.config, tiny.params
  batch = torch_reference.make_batch(config, [[7], [4]])
  tokens = random_tokens(2)
  prefix, _ = jax.jit(config.prefill)(params, batch.prompt(config))
  whole, _ = jax.jit(config.extend)(params, prefix, tokens)
  hidden = decoding.decode(config, params, prefix, tokens, given=2)
  logp = jax.jit(config.logp)
  want = logp(params, prefix.last_hidden, whole, tokens).logp[..., 2:]
  got = logp(params, hidden[:, :, 1], hidden[:, :, 2:], tokens[..., 2:]).logp
  assert want.std() > 0.5
  # As for logits, see `assert_close`.
  np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)


def test_select_last():
  hidden = np.arange(2 * 3 * 4 * 2, dtype=np.float32).reshape(2, 3, 4, 2)
  lengths = np.array([[1, 4, 2], [3, 0, 4]])
  got = models.select_last(jnp.asarray(hidden), jnp.asarray(lengths))
  for b, g in np.ndindex(2, 3):
    np.testing.assert_array_equal(got[b, g], hidden[b, g, max(lengths[b, g] - 1, 0)])


@pytest.mark.long
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

  def assert_error(logits):
    error = np.sqrt(np.mean((logits - exact) ** 2))
    assert 1e-3 < error < 1.2 * np.sqrt(np.mean((theirs - exact) ** 2))

  for first, after in run(params, tiny.config, *inputs).values():
    assert first.dtype == after.dtype == jnp.float32
    assert_error(after)
  prefix, _ = prefill(params, tiny.config, *inputs[:2])
  assert prefix.keys.dtype == prefix.last_hidden.dtype == jnp.bfloat16
  hidden = decoding.decode(tiny.config, params, prefix, tokens, steps=2)
  assert hidden.dtype == jnp.bfloat16
  assert_error(generation.logits(params, hidden))
