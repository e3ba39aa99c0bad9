"""Memory of compiled programs at full lengths, and program size by depth; nothing is executed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest

from sejax import models
from sejax.models import qwen2_5_vl as qwen
from tests.models import torch_reference

pytestmark = pytest.mark.long

MIB = 2**20


def narrow_config(vocab_size: int = 128, layers: int = 2) -> qwen.Qwen25VL:
  """Returns a model so small that memory which grows with lengths or vocabulary dominates."""
  tiny = torch_reference.tiny_config()
  text = dataclasses.replace(
    tiny.text,
    vocab_size=vocab_size,
    hidden_size=32,
    num_hidden_layers=layers,
    mrope_section=(1, 1, 2),
  )
  vision = dataclasses.replace(tiny.vision, out_hidden_size=32)
  return dataclasses.replace(tiny, text=text, vision=vision)


def params_of(config: qwen.Qwen25VL) -> models.Params:
  return jax.eval_shape(lambda key: config.init(key), jax.random.key(0))


def ints(*shape: int) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, jnp.int32)


def floats(*shape: int) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def prompt_of(rows: int, length: int) -> models.Prompt:
  return models.Prompt(ints(rows, length), ints(rows), ints(3, rows, length))


def temporary_bytes(function, *inputs) -> int:
  compiled = jax.jit(function).lower(*inputs).compile()
  return compiled.memory_analysis().temp_size_in_bytes


def training_loss(config, params, prompt, tokens):
  last, hidden = config.forward(params, prompt, None, tokens)
  return config.logp(params, last, hidden, tokens).logp.sum()


def test_training_does_not_hold_the_scores_of_all_queries():
  P, G, T = 1024, 4, 2048
  config = narrow_config()
  gradient = jax.grad(functools.partial(training_loss, config))
  used = temporary_bytes(gradient, params_of(config), prompt_of(1, P), ints(1, G, T))
  all_scores = config.text.num_attention_heads * G * T * (P + T) * 4
  chunk_scores = all_scores // (G * T) * config.query_chunk
  assert (all_scores, chunk_scores) == (384 * MIB, 48 * MIB)
  # Scores, softmax weights and their gradients of one chunk; everything else is small here.
  assert used < 5 * chunk_scores

  unchunked = dataclasses.replace(config, query_chunk=G * T)
  gradient = jax.grad(functools.partial(training_loss, unchunked))
  used = temporary_bytes(gradient, params_of(config), prompt_of(1, P), ints(1, G, T))
  assert used > 3 * all_scores  # Without chunks the bound above does not hold.


def test_packed_rows_do_not_hold_the_scores_of_all_queries():
  P, G, T, BLOCK = 1024, 4, 2048, 128
  config, size = narrow_config(), P + G * T
  packing = models.Packing(ints(1, size), ints(1, size), ints(1, 1, 1 + G), ints(1, 1, 1 + G))

  def loss(params, prompt, tokens, packing):
    found = config.packed_log_probs(params, prompt, None, tokens, packing, block=BLOCK)
    return found.logp.sum()

  used = temporary_bytes(jax.grad(loss), params_of(config), prompt_of(1, P), ints(1, G, T), packing)
  # A query has the keys of its prompt, its block, and as many before it as a sequence may have.
  chunk_scores = config.text.num_attention_heads * config.query_chunk * (P + T + BLOCK) * 4
  assert chunk_scores == 50 * MIB
  assert used < 5 * chunk_scores


def test_a_saved_gate_is_not_computed_again():
  config, tokens = narrow_config(), 64

  def flops(remat):
    gradient = jax.grad(functools.partial(training_loss, dataclasses.replace(config, remat=remat)))
    arguments = params_of(config), prompt_of(1, 16), ints(1, 1, tokens - 16)
    return jax.jit(gradient).lower(*arguments).compile().cost_analysis()["flops"]

  # Of the scan over layers, one is counted.
  product = 2 * tokens * config.text.hidden_size * config.text.intermediate_size
  assert flops("nothing") - flops("gate") == pytest.approx(product, rel=0.05)


def test_log_probs_do_not_hold_the_logits_of_all_tokens():
  G, T, V = 8, 2048, 152_064
  config = narrow_config(vocab_size=V)

  def loss(params, last, hidden, tokens):
    found = config.logp(params, last, hidden, tokens)
    return found.logp.sum() + found.entropy.sum()

  gradient = jax.grad(loss, argnums=(0, 2))
  inputs = (params_of(config), floats(1, 32), floats(1, G, T, 32), ints(1, G, T))
  # All logits take 9,504 MiB. Those of a chunk of 256 tokens take 149 MiB, and a few copies exist.
  assert temporary_bytes(gradient, *inputs) < 1000 * MIB


def decode_step_bytes(config, members: int, length: int) -> int:
  """Returns what a decode step needs for a prompt, and pages that hold as many tokens."""
  page_size = 16
  pages = length // page_size
  params = params_of(config)

  def step(params, tokens, prefix, pages, recent, table):
    return config.decode(
      params, tokens, prefix=prefix, pages=pages, recent=recent, table=table, shards=1
    )

  def state():
    empty = (
      config.empty_prefix(1, length, jnp.float32),
      config.empty_pages(pages, page_size, jnp.float32),
    )
    return *map(config.decoding_state, empty), config.empty_recent(members, 16, jnp.float32)

  if config.layered_cache:
    layers = jax.eval_shape(models.unstack_layers, config.layers(params))
    params = config.with_layers(params, layers)
  rows = ints(members)
  table = models.BatchTable(rows, rows, ints(1, members), rows, ints(pages), ints(pages))
  return temporary_bytes(step, params, rows, *jax.eval_shape(state), table)


@pytest.mark.parametrize("layered_cache", [False, True])
def test_a_decode_step_does_not_copy_keys_for_each_member(layered_cache):
  """Neither those of the prompt nor those in pages: more members need more scores only."""
  config = dataclasses.replace(narrow_config(layers=8), layered_cache=layered_cache)
  P = 8192
  one, nine = (decode_step_bytes(config, members, P) for members in (1, 9))
  layer = 2 * config.text.num_key_value_heads * config.text.head_size * P * 4
  scores = config.text.num_attention_heads * P * 4
  assert (layer, scores) == (MIB, MIB // 8)
  # Scores and the softmax's weights; a copy of the prompt for each of 8 more would take 8 MiB.
  assert nine - one < 8 * 2.2 * scores
  if not layered_cache:
    # The scan over layers holds one layer's prompt and pages, and scores of them.
    assert one < 2 * layer + 2 * scores + 0.3 * MIB


def test_compiled_size_does_not_grow_with_depth():
  def lowered_size(layers):
    config = narrow_config(layers=layers)
    gradient = jax.jit(jax.grad(functools.partial(training_loss, config)))
    inputs = (params_of(config), prompt_of(1, 64), ints(1, 2, 16))
    return len(gradient.lower(*inputs).as_text())

  assert lowered_size(28) < 1.05 * lowered_size(4)
