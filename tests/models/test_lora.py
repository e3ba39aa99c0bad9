"""Compares adapters with PEFT's on transformers' model: log-probs, gradients, merged weights."""

import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import torch

from sejax.errors import ConfigError
from sejax.models import lora
from tests.models import torch_reference

RANK, ALPHA, TARGETS = 4, 10.0, ("q", "v", "o", "down")
OPTIONS = lora.Options(RANK, ALPHA, TARGETS)
B, G, T = 2, 2, 5
_MODULES = {"q": "q_proj", "v": "v_proj", "o": "o_proj", "down": "down_proj"}


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def setting(request):
  """Returns config, torch model with adapters, frozen tree and the same adapters."""
  config = torch_reference.tiny_config(tie_word_embeddings=request.param)
  model = torch_reference.torch_model(config)
  params = torch_reference.to_params(dict(model.named_parameters()), config)
  names = "|".join(_MODULES.values())
  options = peft.LoraConfig(
    r=RANK, lora_alpha=ALPHA, target_modules=rf".*language_model.*\.({names})"
  )
  adapted = peft.get_peft_model(model, options).eval()
  generator = torch.Generator().manual_seed(1)
  with torch.no_grad():
    for name, x in adapted.named_parameters():
      if "lora_" in name:
        x.copy_(torch.randn(x.shape, generator=generator) * 0.2)
  return config, adapted, params, to_adapters(config, adapted, lambda x: x)


def to_adapters(config, model, get):
  """Returns a tree of `get(parameter)` for the parameters of PEFT's adapters."""
  named = dict(model.named_parameters())
  layers = {}
  for target in TARGETS:
    layers[target] = {}
    for part in ("A", "B"):
      found = [
        next(
          x
          for name, x in named.items()
          if f"layers.{i}." in name and f"{_MODULES[target]}.lora_{part}" in name
        )
        for i in range(config.text.num_hidden_layers)
      ]
      stacked = np.stack([get(x).detach().numpy().T for x in found])
      layers[target][f"lora_{part.lower()}"] = jnp.asarray(stacked)
  return {"decoder": {"layers": layers}}


def token_logprobs(params, config, prompt, images, tokens):
  features = config.encode(params, images)
  last, hidden = config.forward(params, prompt, features, tokens)
  return config.logp(params, last, hidden, tokens).logp


@pytest.fixture(scope="module")
def inputs(setting):
  config = setting[0]
  batch = torch_reference.make_batch(config, [[5, (4, 4), 3], [2, (8, 4), (4, 6), 4]])
  rng = np.random.default_rng(0)
  tokens = rng.integers(2, torch_reference.TEXT_IDS, (B, G, T)).astype(np.int32)
  weights = rng.standard_normal(tokens.shape).astype(np.float32)
  return batch, tokens, weights


def test_log_probs_and_gradients_are_those_of_peft(setting, inputs):
  config, model, params, adapters = setting
  batch, tokens, weights = inputs
  prompt, images = batch.prompt(config), batch.images(config)
  logits = model(**batch.torch_inputs(tokens)).logits
  rows = torch.from_numpy(tokens).long().flatten(0, 1)
  want = torch.stack(
    [
      row[n - 1 : n - 1 + T].log_softmax(-1).gather(-1, ids[:, None])[:, 0]
      for row, n, ids in zip(logits, np.repeat(batch.lengths, G), rows, strict=True)
    ]
  ).reshape(tokens.shape)
  model.zero_grad()
  (want * torch.from_numpy(weights)).sum().backward()

  @jax.jit
  def found(adapters):
    def weighted(adapters):
      logprobs = token_logprobs(
        lora.attach(params, adapters, OPTIONS), config, prompt, images, tokens
      )
      return (weights * logprobs).sum(), logprobs

    return jax.grad(weighted, has_aux=True)(adapters)

  grads, logprobs = found(adapters)
  plain = jax.jit(token_logprobs, static_argnums=1)(params, config, prompt, images, tokens)
  assert np.abs(np.asarray(logprobs) - plain).max() > 0.1  # The adapters have an effect.
  np.testing.assert_allclose(logprobs, want.detach().numpy(), atol=2e-5)
  want_grads = to_adapters(config, model, lambda x: x.grad)
  for (path, got), wanted in zip(
    jax.tree.leaves_with_path(grads), jax.tree.leaves(want_grads), strict=True
  ):
    where = jax.tree_util.keystr(path)
    assert np.abs(wanted).max() > 1e-3, where
    assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max(), where


def test_merged_weights_are_those_of_peft(setting):
  config, model, params, adapters = setting
  merged = lora.merge(lora.attach(params, adapters, OPTIONS), np.float32)
  with torch.no_grad():
    model.merge_adapter()
    plain = {
      name.removeprefix("base_model.model.").replace(".base_layer", ""): x.clone()
      for name, x in model.named_parameters()
      if "lora_" not in name
    }
    model.unmerge_adapter()
  want = torch_reference.to_params(plain, config)
  assert jax.tree.structure(merged) == jax.tree.structure(want)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), merged, want)


@pytest.mark.long
def test_attaching_shares_the_frozen_arrays_and_new_adapters_change_nothing(setting, inputs):
  config, _, params, _ = setting
  batch, tokens, _ = inputs
  adapters = lora.init(jax.random.key(0), config, OPTIONS)
  attached = lora.attach(params, adapters, OPTIONS)
  assert attached["decoder"]["layers"]["q"]["kernel"] is params["decoder"]["layers"]["q"]["kernel"]
  assert "lora_a" not in params["decoder"]["layers"]["q"]
  run = jax.jit(token_logprobs, static_argnums=1)
  given = (config, batch.prompt(config), batch.images(config), tokens)
  same = [run(tree, *given) for tree in (attached, params)]
  np.testing.assert_allclose(*same, atol=1e-6)
  for layer in adapters["decoder"]["layers"].values():
    bound = layer["lora_a"].shape[1] ** -0.5  # PEFT's kaiming_uniform(a=sqrt(5))
    assert 0.9 * bound < np.abs(layer["lora_a"]).max() <= bound
    assert not np.any(layer["lora_b"])


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"rank": -1}, "config.lora.rank=-1 must be at least 1, or 0"),
    ({"alpha": 0.0}, "config.lora.alpha=0.0 must be above 0"),
    ({"targets": ("q", "qkv")}, "config.lora.targets has 'qkv'; choose from q, k, v"),
    ({"targets": ()}, "config.lora.targets is empty; choose from q, k, v"),
  ],
)
def test_invalid_options_are_refused(changes, message):
  with pytest.raises(ConfigError, match=message):
    lora.Options.of({"rank": 4, "alpha": 8.0, "targets": ("q",)} | changes)
  assert lora.Options.of({"rank": 0, "alpha": 0, "targets": ()}) is None
  given = {"rank": 1, "alpha": 1.0, "targets": ("q,v",)}  # as parsed from the command line
  assert lora.Options.of(given).targets == ("q", "v")
