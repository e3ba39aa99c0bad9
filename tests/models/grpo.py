"""A GRPO loss on jax and torch alike, for comparing its gradients."""

import dataclasses

import jax
import numpy as np
import torch

from tests.models import torch_reference

CLIP, KL = 0.2, 0.1


@dataclasses.dataclass(frozen=True)
class Rollout:
  """Inputs of the loss: `[B,G,T]`, advantages `[B,G]`."""

  tokens: np.ndarray
  mask: np.ndarray
  advantages: np.ndarray
  old_logp: np.ndarray
  ref_logp: np.ndarray


def loss(xp, logp, rollout):
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
  """Returns the log-probs of continuations `[B,G,T]` by transformers' model."""
  count = tokens.shape[2]
  logits = model(**batch.torch_inputs(tokens)).logits.log_softmax(-1)
  lengths = np.repeat(batch.lengths, tokens.shape[1])
  rows = torch.from_numpy(tokens).long().flatten(0, 1)
  picked = [
    row[n - 1 : n - 1 + count].gather(-1, ids[:, None])[:, 0]
    for row, n, ids in zip(logits, lengths, rows, strict=True)
  ]
  return torch.stack(picked).reshape(tokens.shape)


def make_rollout(model, batch, members: int, count: int) -> Rollout:
  """Draws G continuations of up to T tokens for each prompt."""
  rng = np.random.default_rng(2)
  shape = (len(batch.ids), members, count)
  tokens = rng.integers(2, torch_reference.TEXT_IDS, shape).astype(np.int32)
  with torch.no_grad():
    logp = torch_logp(model, batch, tokens).numpy()
  lengths = rng.integers(2, count + 1, shape[:2])
  return Rollout(
    tokens=tokens,
    mask=(np.arange(count) < lengths[..., None]).astype(np.float32),
    advantages=rng.standard_normal(shape[:2]).astype(np.float32),
    # Far enough from the current log-probs for some ratios to be clipped and some not.
    old_logp=logp + 0.2 * rng.standard_normal(shape).astype(np.float32),
    ref_logp=logp + 0.5 * rng.standard_normal(shape).astype(np.float32),
  )


def torch_gradient(model, batch, rollout) -> float:
  """Returns the loss of transformers' model, and leaves the gradients in its parameters."""
  fields = {
    field.name: torch.from_numpy(getattr(rollout, field.name))
    for field in dataclasses.fields(rollout)
  }
  model.zero_grad()
  value = loss(torch, torch_logp(model, batch, rollout.tokens), Rollout(**fields))
  value.backward()
  return value.item()


def assert_same_gradients(got, want):
  """Checks that each gradient is within 1e-4 of the tensor's largest."""
  for (path, a), b in zip(jax.tree.leaves_with_path(got), jax.tree.leaves(want), strict=True):
    largest = np.abs(b).max()
    assert largest > 1e-4, jax.tree_util.keystr(path)
    assert np.abs(a - b).max() <= 1e-4 * largest, jax.tree_util.keystr(path)
