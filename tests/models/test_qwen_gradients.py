"""Compares the gradients of a GRPO loss with transformers', for every tensor."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import grpo, torch_reference

pytestmark = pytest.mark.long

ROWS = [[7], [2, (10, 18), (4, 4), 2, (8, 6), 5], [(4, 12), 3]]
G, T = 2, 6


def one_pass(params, config, prompt, features, tokens):
  return config.forward(params, prompt, features, tokens)


def two_passes(params, config, prompt, features, tokens):
  prefix, _ = config.prefill(params, prompt, features)
  return prefix.last_hidden, config.extend(params, prefix, tokens)[0]


def jax_gradient(params, config, batch, rollout, run):
  def loss(params, prompt, images, fields):
    rollout = grpo.Rollout(*fields)
    features = config.encode(params, images)
    last, hidden = run(params, config, prompt, features, rollout.tokens)
    logp = config.logp(params, last, hidden, rollout.tokens).logp
    return grpo.loss(jnp, logp, rollout)

  inputs = (batch.prompt(config), batch.images(config), dataclasses.astuple(rollout))
  return jax.jit(jax.value_and_grad(loss))(params, *inputs)


def torch_gradient(model, config, batch, rollout):
  loss = grpo.torch_gradient(model, batch, rollout)
  grads = {name: parameter.grad for name, parameter in model.named_parameters()}
  return loss, torch_reference.to_params(grads, config)


def separate_rows(batch, rollout) -> tuple[torch_reference.Batch, grpo.Rollout]:
  """Gives each trajectory its own row, with its own copy of prompt and images."""
  inputs = (batch.ids, batch.grids, batch.patches)
  rows = ([row for row in field for _ in range(G)] for field in inputs)
  fields = (x.reshape(x.shape[0] * G, 1, *x.shape[2:]) for x in dataclasses.astuple(rollout))
  return torch_reference.Batch(*rows), grpo.Rollout(*fields)


# Together these cover every path: one pass and two, shared and separate prompts, attention and
# log-probs in chunks, each remat policy, both kinds of head.
@pytest.mark.parametrize(
  ("head", "run", "shared", "changes"),
  [
    ("tiny", one_pass, True, {}),
    ("tiny", two_passes, True, {"remat": "dots", "query_chunk": 20}),
    ("tied", one_pass, False, {"remat": "everything", "logits_chunk": 5}),
    ("tied", two_passes, True, {"remat": "gate"}),
  ],
)
def test_gradients(head, run, shared, changes, request):
  pair = request.getfixturevalue(head)
  batch = torch_reference.make_batch(pair.config, ROWS)
  rollout = grpo.make_rollout(pair.torch_model, batch, G, T)
  # transformers always has a row for each trajectory.
  want_loss, want = torch_gradient(pair.torch_model, pair.config, batch, rollout)
  if not shared:
    batch, rollout = separate_rows(batch, rollout)
  config = dataclasses.replace(pair.config, **changes)
  loss, got = jax_gradient(pair.params, config, batch, rollout, run)
  np.testing.assert_allclose(loss, want_loss, rtol=1e-5)
  grpo.assert_same_gradients(got, want)
