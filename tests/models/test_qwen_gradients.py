"""Compares the gradients of a GRPO loss with transformers', for every tensor."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests.models import torch_reference

ROWS = [[7], [2, (10, 18), (4, 4), 2, (8, 6), 5], [(4, 12), 3]]
G, T = 2, 6
CLIP, KL = 0.2, 0.1


@dataclasses.dataclass(frozen=True)
class Rollout:
  """Inputs of the loss: `[B,G,T]`, advantages `[B,G]`."""

  tokens: np.ndarray
  mask: np.ndarray
  advantages: np.ndarray
  old_logp: np.ndarray
  ref_logp: np.ndarray


def grpo_loss(xp, logp, rollout):
  """Returns the clipped surrogate with low-variance KL, averaged over tokens.

  Args:
    xp: `jnp` or `torch`.
  """
  advantages = rollout.advantages[..., None]
  ratio = xp.exp(logp - rollout.old_logp)
  clipped = xp.clip(ratio, 1 - CLIP, 1 + CLIP)
  surrogate = xp.maximum(-advantages * ratio, -advantages * clipped)
  gap = rollout.ref_logp - logp
  kl = xp.exp(gap) - gap - 1
  return ((surrogate + KL * kl) * rollout.mask).sum() / rollout.mask.sum()


def torch_logp(model, batch, tokens):
  logits = model(**batch.torch_inputs(tokens)).logits.log_softmax(-1)
  lengths = np.repeat(batch.lengths, tokens.shape[1])
  rows = torch.from_numpy(tokens).long().flatten(0, 1)
  picked = [
    row[n - 1 : n - 1 + T].gather(-1, ids[:, None])[:, 0]
    for row, n, ids in zip(logits, lengths, rows, strict=True)
  ]
  return torch.stack(picked).reshape(tokens.shape)


def make_rollout(model, batch) -> Rollout:
  rng = np.random.default_rng(2)
  shape = (len(batch.ids), G, T)
  tokens = rng.integers(2, torch_reference.TEXT_IDS, shape).astype(np.int32)
  with torch.no_grad():
    logp = torch_logp(model, batch, tokens).numpy()
  lengths = rng.integers(2, T + 1, shape[:2])
  return Rollout(
    tokens=tokens,
    mask=(np.arange(T) < lengths[..., None]).astype(np.float32),
    advantages=rng.standard_normal(shape[:2]).astype(np.float32),
    # Far enough from the current log-probs for some ratios to be clipped and some not.
    old_logp=logp + 0.2 * rng.standard_normal(shape).astype(np.float32),
    ref_logp=logp + 0.5 * rng.standard_normal(shape).astype(np.float32),
  )


def one_pass(params, config, prompt, features, tokens):
  return config.forward(params, prompt, features, tokens)


def two_passes(params, config, prompt, features, tokens):
  prefix, _ = config.prefill(params, prompt, features)
  return prefix.last_hidden, config.extend(params, prefix, tokens)[0]


def jax_gradient(params, config, batch, rollout, run):
  def loss(params, prompt, images, fields):
    rollout = Rollout(*fields)
    features = config.encode(params, images)
    last, hidden = run(params, config, prompt, features, rollout.tokens)
    logp = config.logp(params, last, hidden, rollout.tokens).logp
    return grpo_loss(jnp, logp, rollout)

  inputs = (batch.prompt(config), batch.images(config), dataclasses.astuple(rollout))
  return jax.jit(jax.value_and_grad(loss))(params, *inputs)


def torch_gradient(model, config, batch, rollout):
  fields = {
    field.name: torch.from_numpy(getattr(rollout, field.name))
    for field in dataclasses.fields(rollout)
  }
  model.zero_grad()
  loss = grpo_loss(torch, torch_logp(model, batch, rollout.tokens), Rollout(**fields))
  loss.backward()
  grads = {name: parameter.grad for name, parameter in model.named_parameters()}
  return loss.item(), torch_reference.to_params(grads, config)


def assert_same_gradients(got, want):
  for (path, a), b in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True):
    largest = np.abs(b).max()
    assert largest > 1e-4, jax.tree_util.keystr(path)
    assert np.abs(a - b).max() <= 1e-4 * largest, jax.tree_util.keystr(path)


def separate_rows(batch, rollout) -> tuple[torch_reference.Batch, Rollout]:
  """Gives each trajectory its own row, with its own copy of prompt and images."""
  inputs = (batch.ids, batch.grids, batch.patches)
  rows = ([row for row in field for _ in range(G)] for field in inputs)
  fields = (x.reshape(x.shape[0] * G, 1, *x.shape[2:]) for x in dataclasses.astuple(rollout))
  return torch_reference.Batch(*rows), Rollout(*fields)


# Together these cover every path: one pass and two, shared and separate prompts, attention and
# log-probs in chunks, each remat policy, both kinds of head.
@pytest.mark.parametrize(
  ("head", "run", "shared", "changes"),
  [
    ("tiny", one_pass, True, {}),
    ("tiny", two_passes, True, {"remat": "dots", "query_chunk": 20}),
    ("tied", one_pass, False, {"remat": "everything", "logits_chunk": 5}),
  ],
)
def test_gradients(head, run, shared, changes, request):
  pair = request.getfixturevalue(head)
  batch = torch_reference.make_batch(pair.config, ROWS)
  rollout = make_rollout(pair.torch_model, batch)
  # transformers always has a row for each trajectory.
  want_loss, want = torch_gradient(pair.torch_model, pair.config, batch, rollout)
  if not shared:
    batch, rollout = separate_rows(batch, rollout)
  config = dataclasses.replace(pair.config, **changes)
  loss, got = jax_gradient(pair.params, config, batch, rollout, run)
  np.testing.assert_allclose(loss, want_loss, rtol=1e-5)
  assert_same_gradients(got, want)
