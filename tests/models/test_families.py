"""Qwen2-VL and Qwen3-VL against transformers' torch models, on random tiny weights in fp32."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sejax import models
from tests.models import families

G, T = 2, 5
CASES = {
  "one picture": [[5, (4, 4), 3]],
  "three of different grids": [[2, (8, 4), 1, (4, 6), (6, 6), 9]],
  "wide and tall": [[1, (2, 20), 3], [4, (20, 2)]],  # the table of positions has 6 x 6 entries
  "text only": [[20]],
  "unequal prompts": [[5, (4, 4), 3], [7], [2, (8, 4), (4, 6), 9], [20], [1, (2, 12), 3]],
}


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen3_vl"])
def family(request):
  return request.param


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def both(request, family, tmp_path_factory):
  """The torch model, its directory, and what is loaded from it."""
  directory = tmp_path_factory.mktemp(family)
  reference = families.torch_model(families.tiny_model(family, tied=request.param))
  reference.save_pretrained(directory)
  return reference, directory, *models.load(directory)


@functools.partial(jax.jit, static_argnums=1)
def run(params, model, prompt, images, tokens):
  features = None if images is None else model.encode(params, images)
  prefix, first = model.prefill(params, prompt, features)
  hidden, _ = model.extend(params, prefix, tokens)
  last, once = model.forward(params, prompt, features, tokens)
  in_two = first, model.logits(params, hidden)
  return in_two, (model.logits(params, last), model.logits(params, once)), features


@pytest.mark.parametrize("case", CASES)
def test_logits_and_features(both, case):
  reference, _, model, params = both
  batch = families.make_batch(model, CASES[case])
  rows = len(batch.ids)
  tokens = np.random.default_rng(1).integers(2, families.TEXT_IDS, (rows, G, T)).astype(np.int32)
  *found, features = run(params, model, batch.prompt(model), batch.images(model), tokens)
  for row in range(rows):
    for g in range(G):
      inputs = families.torch_inputs(batch, row, tokens[row, g].tolist())
      with torch.no_grad():
        want = reference(**inputs).logits[0].numpy()
      length = len(batch.ids[row])
      for first, after in found:
        np.testing.assert_allclose(first[row], want[length - 1], atol=2e-5)
        np.testing.assert_allclose(after[row, g], want[length:], atol=2e-5)
    if len(batch.grids[row]):
      with torch.no_grad():
        wanted = reference.model.get_image_features(
          torch.from_numpy(batch.patches[row]), torch.from_numpy(batch.grids[row])
        )
      levels = [wanted.pooler_output, *(getattr(wanted, "deepstack_features", None) or [])]
      leaves = jax.tree.leaves(features)
      assert len(leaves) == len(levels) == (3 if model.model_type == "qwen3_vl" else 1)
      for leaf, level in zip(leaves, levels, strict=True):
        level = torch.cat(level).numpy()
        np.testing.assert_allclose(leaf[row, : len(level)], level, atol=2e-5)


def test_gradients(both):
  """Of a sum of log-probs and entropies; every tensor within 1e-4 of its largest."""
  reference, directory, model, params = both
  batch = families.make_batch(model, CASES["unequal prompts"])
  rows = len(batch.ids)
  tokens = np.random.default_rng(1).integers(2, families.TEXT_IDS, (rows, G, T)).astype(np.int32)
  weights = np.random.default_rng(2).standard_normal((rows, G, T)).astype(np.float32)
  prompt, images = batch.prompt(model), batch.images(model)

  def loss(params):
    features = model.encode(params, images)
    last, hidden = model.forward(params, prompt, features, tokens)
    return (weights * model.logp(params, last, hidden, tokens).logp).sum()

  got = jax.jit(jax.grad(loss))(params)
  reference.zero_grad()
  total = torch.zeros(())
  for row in range(rows):
    for g in range(G):
      inputs = families.torch_inputs(batch, row, tokens[row, g].tolist())
      logp = reference(**inputs).logits[0].log_softmax(-1)[len(batch.ids[row]) - 1 : -1]
      chosen = logp[torch.arange(T), torch.from_numpy(tokens[row, g]).long()]
      total = total + (torch.from_numpy(weights[row, g]) * chosen).sum()
  total.backward()
  with torch.no_grad():  # Gradients in the form of a directory are read as weights are.
    kept = [parameter.clone() for parameter in reference.parameters()]
    for parameter in reference.parameters():
      parameter.copy_(parameter.grad)
    reference.save_pretrained(directory / "gradients")
    for parameter, value in zip(reference.parameters(), kept, strict=True):
      parameter.copy_(value)
  _, want = models.load(directory / "gradients")
  for (path, a), b in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True):
    scale = float(jnp.abs(b).max())
    assert scale > 0, path
    np.testing.assert_allclose(a, b, atol=1e-4 * scale, err_msg=str(path))


def test_greedy_tokens_are_those_of_generate(both):
  reference, _, model, params = both
  batch = families.make_batch(model, CASES["three of different grids"])
  prompt = batch.prompt(model)
  prefix, logits = model.prefill(params, prompt, model.encode(params, batch.images(model)))
  cache = model.empty_cache(1, 1, 64, jnp.float32)
  step = jax.jit(model.extend)
  tokens = []
  for _ in range(64):
    tokens.append(int(logits.reshape(-1).argmax()))
    hidden, cache = step(params, prefix, jnp.array([[tokens[-1:]]]), cache)
    logits = model.logits(params, hidden[0, 0, 0])
  inputs = families.torch_inputs(batch, 0)
  with torch.no_grad():
    want = reference.generate(
      **inputs, max_new_tokens=64, min_new_tokens=64, do_sample=False, pad_token_id=0
    )
  # `generate` was told not to end; so what ends a response is left out here.
  want = want[0, len(batch.ids[0]) :].tolist()
  upto = tokens.index(1) if 1 in tokens else 64
  assert upto > 8
  assert tokens[:upto] == want[:upto]


def test_a_directory_is_written_as_it_was_read(both, tmp_path):
  reference, directory, model, params = both
  models.save(params, model, tmp_path / "export")
  kind = type(reference)
  again, said = kind.from_pretrained(tmp_path / "export", output_loading_info=True)
  assert not said["missing_keys"]
  assert not said["unexpected_keys"]
  for name, tensor in reference.state_dict().items():
    assert torch.equal(again.state_dict()[name], tensor), name
  loaded, same = models.load(tmp_path / "export")
  assert loaded == model
  jax.tree.map(np.testing.assert_array_equal, params, same)
  written = json.loads((tmp_path / "export" / "config.json").read_text())
  original = json.loads((directory / "config.json").read_text())
  for part in ("text_config", "vision_config"):
    for name, value in written[part].items():
      assert original[part].get(name, value) == value, (part, name)


@pytest.mark.parametrize(
  ("family", "size"),
  [
    ("qwen2_vl", "2b"),
    ("qwen2_vl", "7b"),
    ("qwen2_vl", "72b"),
    ("qwen3_vl", "2b"),
    ("qwen3_vl", "4b"),
    ("qwen3_vl", "8b"),
    ("qwen3_vl", "32b"),
  ],
)
def test_released_sizes_have_as_many_parameters_as_in_transformers(family, size):
  model = models.FAMILIES[family].released(size)
  config_class, model_class = families.TORCH[family]
  with torch.device("meta"):
    reference = model_class(config_class(**model.to_hf()))
  count = sum(parameter.numel() for parameter in reference.parameters())
  shapes = jax.tree.leaves(model.shapes(), is_leaf=lambda node: isinstance(node, tuple))
  assert sum(int(np.prod(shape)) for shape in shapes) == count
  assert models.released(model.released_names[size]) == model
