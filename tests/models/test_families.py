"""Compares Qwen2-VL and Qwen3-VL with transformers' torch models, on random tiny weights in fp32.

Qwen2.5-VL has tests of its own beside this file.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextRotaryEmbedding

from sejax import models
from sejax.models import lora
from sejax.models.transformer.rope import text_angles
from tests.models import decoding, grpo, torch_reference

# The table of learned positions has 6 x 6 entries: it is enlarged and reduced, on each axis.
PROMPTS = [
  [5, (4, 4), 3],
  [2, (8, 4), 1, (4, 6), (6, 6), 9],  # three images of different grids
  [1, (2, 20), 3],
  [4, (20, 2)],  # ends with an image
  [9],  # text only, in a batch with images
  [3, (12, 8), 4],
]
G, T = 2, 6
WIDTH, PATCHES = 60, 104  # with padding


@dataclasses.dataclass(frozen=True)
class Family:
  """A torch model of transformers, its directory, and what sejax loads from it."""

  reference: Any
  directory: pathlib.Path
  model: models.Model
  params: models.Params

  def batch(self, prompts=PROMPTS) -> torch_reference.Batch:
    return torch_reference.make_batch(self.model, prompts)

  def load_gradients(self, directory: pathlib.Path) -> models.Params:
    """Returns the torch model's gradients as a parameter tree, read as weights are."""
    kept = [parameter.clone() for parameter in self.reference.parameters()]
    with torch.no_grad():
      for parameter in self.reference.parameters():
        parameter.copy_(parameter.grad)
      self.reference.save_pretrained(directory)
      for parameter, value in zip(self.reference.parameters(), kept, strict=True):
        parameter.copy_(value)
    return models.load(directory)[1]


def padded_with_images(prompt: models.Prompt) -> models.Prompt:
  """Returns prompts whose padding are image tokens, which must mean nothing there."""
  is_padding = np.arange(prompt.ids.shape[1]) >= prompt.lengths[:, None]
  return prompt._replace(ids=np.where(is_padding, torch_reference.IMAGE, prompt.ids))


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen3_vl"])
def name(request):
  return request.param


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def family(request, name, tmp_path_factory):
  config = torch_reference.tiny_family(name, tie_word_embeddings=request.param)
  reference = torch_reference.torch_model(config)
  directory = tmp_path_factory.mktemp(name)
  reference.save_pretrained(directory)
  return Family(reference, directory, *models.load(directory))


@functools.partial(jax.jit, static_argnums=0)
def run(model, params, prompt, images, tokens):
  """Returns features, and hidden states of prompt ends and continuations, in two passes and one."""
  features = None if images is None else model.encode(params, images)
  prefix, _ = model.prefill(params, prompt, features)
  extended, _ = model.extend(params, prefix, tokens)
  hidden = (prefix.last_hidden, extended), model.forward(params, prompt, features, tokens)
  return features, jax.tree.map(lambda h: model.logits(params, h), hidden)


def draw_tokens(rows: int) -> np.ndarray:
  rng = np.random.default_rng(1)
  return rng.integers(2, torch_reference.TEXT_IDS, (rows, G, T)).astype(np.int32)


@pytest.fixture(scope="module")
def outputs(family):
  batch = family.batch()
  prompt = padded_with_images(batch.prompt(family.model, WIDTH))
  images = batch.images(family.model, PATCHES)
  return run(family.model, family.params, prompt, images, draw_tokens(len(PROMPTS)))


def assert_same_logits(family, batch, found):
  tokens = draw_tokens(len(batch.ids))
  with torch.no_grad():
    want = family.reference(**batch.torch_inputs(tokens)).logits.numpy()
  want = want.reshape(*tokens.shape[:2], *want.shape[1:])
  assert want.std() > 0.5
  for row, length in enumerate(batch.lengths):
    for first, after in found:
      ends = np.broadcast_to(first[row], (G, first.shape[-1]))
      np.testing.assert_allclose(ends, want[row, :, length - 1], atol=2e-5, rtol=0)
      np.testing.assert_allclose(after[row], want[row, :, length : length + T], atol=2e-5, rtol=0)


def test_logits(family, outputs):
  assert_same_logits(family, family.batch(), outputs[1])


@pytest.mark.long
def test_logits_without_images(family):
  batch = family.batch([[20], [3]])
  prompt = batch.prompt(family.model)
  _, logits = run(family.model, family.params, prompt, None, draw_tokens(2))
  assert_same_logits(family, batch, logits)


def test_vision_features_of_every_level(family, outputs):
  batch = family.batch()
  with torch.no_grad():
    wanted = family.reference.model.get_image_features(
      torch.from_numpy(np.concatenate(batch.patches)), torch.from_numpy(np.concatenate(batch.grids))
    )
  levels = [wanted.pooler_output, *(getattr(wanted, "deepstack_features", None) or [])]
  found = jax.tree.leaves(outputs[0])
  assert len(found) == len(levels) == (3 if family.model.model_type == "qwen3_vl" else 1)
  counts = [len(patches) // 4 for patches in batch.patches]
  for leaf, level in zip(found, levels, strict=True):
    rows = np.concatenate([row[:count] for row, count in zip(leaf, counts, strict=True)])
    np.testing.assert_allclose(rows, torch.cat(tuple(level)).numpy(), atol=2e-5, rtol=0)


@pytest.mark.parametrize(
  ("size", "count", "message"),
  [
    (34, 16, "size is 34 patches; it must be a multiple of 4"),
    (0, 16, "size is 0 patches"),
    (12, 16, "row 1: 16 patches do not fit a size of 12"),
    (32, 12, "row 1: 12 patches, but its grids hold 16"),
  ],
)
def test_images_that_do_not_fit_are_refused(name, size, count, message):
  model = torch_reference.tiny_family(name)
  patches = [np.zeros((4, model.patch_dim), np.float32), np.zeros((count, model.patch_dim))]
  with pytest.raises(ValueError, match=message):
    model.pack_images(patches, [np.array([[1, 2, 2]]), np.array([[1, 4, 4]])], size)


def test_more_images_than_there_is_room_for_are_refused(name):
  model = torch_reference.tiny_family(name)
  patches, grids = np.zeros((8, model.patch_dim), np.float32), np.array([[1, 2, 2]] * 2)
  assert model.pack_images([patches], [grids], 16, 4).lengths.tolist() == [[4, 4, 0, 0]]
  with pytest.raises(ValueError, match="a row has 2 images; there is room for 1"):
    model.pack_images([patches], [grids], 16, 1)


def test_positions(family):
  batch = family.batch()
  inputs = batch.torch_inputs()
  want, deltas = family.reference.model.get_rope_index(
    inputs["input_ids"],
    mm_token_type_ids=inputs["mm_token_type_ids"],
    image_grid_thw=inputs["image_grid_thw"],
    attention_mask=inputs["attention_mask"],
  )
  prompt = batch.prompt(family.model)
  np.testing.assert_array_equal(prompt.positions, want.numpy())
  real = np.arange(prompt.ids.shape[1]) < batch.lengths[:, None]
  ends = np.where(real, prompt.positions, -1).max(axis=(0, 2)) + 1
  np.testing.assert_array_equal(ends, batch.lengths + deltas.numpy()[:, 0])


@pytest.mark.parametrize("size", ["2b", "32b"])
def test_released_frequencies_follow_the_axes_as_in_transformers(size):
  model = models.FAMILIES["qwen3_vl"].released(size)
  config = torch_reference.CLASSES["qwen3_vl"][0](**model.to_hf()).text_config
  # Positions so different that a frequency of the wrong axis has another angle.
  positions = np.stack([np.arange(8), 100 + 3 * np.arange(8), 217 - 5 * np.arange(8)])[:, None]
  rotary = Qwen3VLTextRotaryEmbedding(config)
  cos, sin = rotary(torch.zeros(1), torch.from_numpy(positions))
  angles = text_angles(model.text, jnp.asarray(positions))
  half = model.text.head_size // 2
  np.testing.assert_allclose(jnp.cos(angles), cos[..., :half].numpy(), atol=2e-5)
  np.testing.assert_allclose(jnp.sin(angles), sin[..., :half].numpy(), atol=2e-5)


# Attention and log-probs in chunks and remat with one kind of head, all at once with the other.
CHUNKED = {"remat": "dots", "query_chunk": 20, "logits_chunk": 5}


@pytest.mark.long
def test_gradients_of_a_grpo_loss(family, tmp_path):
  changes = CHUNKED if family.model.tie_word_embeddings else {}
  model, batch = dataclasses.replace(family.model, **changes), family.batch()
  rollout = grpo.make_rollout(family.reference, batch, G, T)
  want_loss = grpo.torch_gradient(family.reference, batch, rollout)

  @jax.jit
  def found(params, prompt, images, fields):
    def loss(params):
      rollout = grpo.Rollout(*fields)
      last, hidden = model.forward(params, prompt, model.encode(params, images), rollout.tokens)
      logp = model.logp(params, last, hidden, rollout.tokens).logp
      return grpo.loss(jnp, logp, rollout)

    return jax.value_and_grad(loss)(params)

  prompt, images = batch.prompt(model, WIDTH), batch.images(model, PATCHES)
  loss, got = found(family.params, prompt, images, dataclasses.astuple(rollout))
  np.testing.assert_allclose(loss, want_loss, rtol=1e-5, atol=1e-6)
  grpo.assert_same_gradients(got, family.load_gradients(tmp_path))


@pytest.mark.long
@pytest.mark.parametrize("layered_cache", [False, True])
def test_greedy_tokens_equal_generate(family, layered_cache):
  """64 tokens, one by one from the cache; the token that ends a response is forbidden.

  If every token is the likeliest after those before it, decoding alone finds the same.
  """
  model = dataclasses.replace(family.model, layered_cache=layered_cache)
  params, eos = family.params, 1
  batch = family.batch(PROMPTS[1:4])
  drawn = np.stack([generate(family, batch, row) for row in range(len(batch.ids))])[:, None]
  prefix, first = jax.jit(model.prefill)(
    params, batch.prompt(model, WIDTH), model.encode(params, batch.images(model, PATCHES))
  )
  hidden = decoding.decode(model, params, prefix, drawn, steps=20, page_size=16)
  cached = model.logits(params, hidden[:, 0])
  before = jnp.concatenate([first[:, None], cached[:, :-1]], axis=1)
  np.testing.assert_array_equal(before.at[..., eos].set(-jnp.inf).argmax(-1), drawn[:, 0])

  hidden, _ = jax.jit(model.extend)(params, prefix, drawn)
  np.testing.assert_allclose(cached, model.logits(params, hidden[:, 0]), atol=2e-5, rtol=0)


def generate(family, batch, row) -> np.ndarray:
  """Returns 64 tokens that transformers draws greedily after a prompt of a batch."""
  alone = torch_reference.Batch(
    *(x[row : row + 1] for x in (batch.ids, batch.grids, batch.patches))
  )
  with torch.no_grad():
    ids = family.reference.generate(
      **alone.torch_inputs(),
      max_new_tokens=64,
      min_new_tokens=64,
      do_sample=False,
      pad_token_id=0,
    )
  return ids[0, batch.lengths[row] :].numpy().astype(np.int32)


TARGETS = ("q", "k", "down")


@pytest.mark.long
def test_adapters_merge_into_a_directory_that_transformers_reads(family, outputs, tmp_path):
  model, params, batch = family.model, family.params, family.batch()
  options = lora.Options(rank=4, alpha=8.0, targets=TARGETS)
  keys = iter(jax.random.split(jax.random.key(0), 6))
  adapters = jax.tree.map(
    lambda x: 0.1 * jax.random.normal(next(keys), x.shape),
    lora.init(jax.random.key(1), model, options),
  )
  attached = lora.attach(params, adapters, options)
  prompt, images = batch.prompt(model, WIDTH), batch.images(model, PATCHES)
  _, found = run(model, attached, prompt, images, draw_tokens(len(PROMPTS)))
  assert np.abs(found[0][0] - outputs[1][0][0]).max() > 0.1  # The adapters have an effect.
  models.save(lora.merge(attached, jnp.float32), model, tmp_path / "merged")
  merged = type(family.reference).from_pretrained(tmp_path / "merged", attn_implementation="eager")
  assert_same_logits(dataclasses.replace(family, reference=merged), batch, found)
