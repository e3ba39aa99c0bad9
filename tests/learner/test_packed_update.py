"""The gradient of a packed mini-batch is that of the padded one, whatever the loss and the cut."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sejax import config as config_lib
from sejax import method
from sejax.learner import optimizer, packing
from sejax.learner.minibatches import Groups
from sejax.learner.update import MicroBatch, Updater
from sejax.method.aggregation import AGGREGATIONS
from sejax.method.kl import ESTIMATORS
from sejax.method.rollout_correction import CORRECTIONS
from tests.models import torch_reference

pytestmark = pytest.mark.long

# These programs run once, so compiling them takes the time.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
PROMPTS = [[5, (4, 4), 3], [7], [2, (8, 4), (4, 6), 4], [6, (4, 8)], [3], [9, (4, 4)]]
B, G, R, WIDTH, PATCHES, BANNED = len(PROMPTS), 3, 19, 32, 64, (1, 120)


def draw_setting(seed: int) -> dict:
  """Returns a random loss, and a random cut."""
  rng = np.random.default_rng(seed)
  names = list(method.OBJECTIVES)
  objective = names[seed % len(names)]
  own = method.OBJECTIVES[objective]
  loss = {
    "objective": objective,
    "aggregation": own.aggregation if own.fixed else str(rng.choice(AGGREGATIONS)),
    "kl_coef": float(rng.choice([0.0, 0.05])),
    "kl_estimator": str(rng.choice(ESTIMATORS)),
    "entropy_coef": float(rng.choice([0.0, 0.02])),
    "rollout_correction": str(rng.choice(CORRECTIONS)),
  }
  if objective == "gmpo" and loss["rollout_correction"] == "token_mask":
    loss["rollout_correction"] = "sequence_mask"
  # Where tokens are chosen within a micro-batch, there is one.
  whole = own.per_micro_batch
  return {
    "family": str(rng.choice(["qwen2_5_vl", "qwen3_vl", "qwen2_vl"])),
    "loss": loss,
    "block": int(rng.choice([1, 4, 16])),
    "together": B if whole else int(rng.integers(1, 4)),
    "query_chunk": int(rng.choice([8, 1024])),
    "first": bool(rng.integers(2)) and objective not in ("clip_cov", "kl_cov"),
    "temperature": float(rng.choice([0.7, 1.0])),
    "frozen": bool(rng.integers(2)),
  }


SEEDS = [seed if seed < 3 else pytest.param(seed, marks=pytest.mark.slow) for seed in range(20)]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_gradient_is_that_of_padded_sequences(seed):
  setting = draw_setting(seed)
  config = dataclasses.replace(
    torch_reference.tiny_family(setting["family"]), query_chunk=setting["query_chunk"]
  )
  params, rng = config.init(jax.random.key(seed)), np.random.default_rng(seed)
  batch = torch_reference.make_batch(config, PROMPTS, seed=seed)
  prompt, images = batch.prompt(config, WIDTH), batch.images(config, PATCHES)
  features = jax.jit(config.encode)(params, images) if setting["frozen"] else None
  tokens = rng.integers(2, torch_reference.TEXT_IDS, (B, G, R)).astype(np.int32)
  lengths = rng.integers(1, R + 1, (B, G))
  lengths[1, 0], lengths[4] = 0, 0
  mask = np.arange(R) < lengths[..., None]
  banned = np.zeros(config.vocab_size, bool)
  banned[list(BANNED)] = True
  tokens[~mask] = BANNED[0]

  def padded_logp(params):
    seen = features if setting["frozen"] else config.encode(params, images)
    last, hidden = config.forward(params, prompt, seen, tokens)
    return config.logp(params, last, hidden, tokens, setting["temperature"], banned)

  logp = jnp.where(mask, jit(padded_logp)(params).logp, 0)
  old, ref, behaviour = (
    np.asarray(logp + scale * rng.standard_normal(logp.shape), np.float32)
    for scale in (0.2, 0.5, 0.1)
  )
  if setting["first"]:
    old = np.asarray(logp)
  ref = ref if setting["loss"]["kl_coef"] else None
  advantage = rng.standard_normal((B, G)).astype(np.float32)
  counts = method.denominators(mask, 2 * R)
  key = np.array([3, seed], np.uint32)

  def padded_loss(params):
    found = padded_logp(params)
    return method.policy_loss(
      found.logp,
      old,
      ref,
      advantage,
      mask,
      behaviour_logp=behaviour,
      entropy=found.entropy,
      denominators=counts,
      key=jax.random.wrap_key_data(key, impl="threefry2x32"),
      **setting["loss"],
    )

  (want_loss, want), want_grad = jit(jax.value_and_grad(padded_loss, has_aux=True))(params)

  groups = Groups(
    ids=prompt.ids,
    lengths=prompt.lengths,
    positions=np.moveaxis(np.asarray(prompt.positions), 1, 0),
    images=None if setting["frozen"] else images,
    features=features,
    tokens=tokens,
    mask=mask,
    advantage=advantage,
    behaviour_logp=behaviour,
  )
  updater = Updater(
    config,
    optimizer.make(config_lib.default().optimizer.to_dict(), 10),
    setting["loss"],
    temperature=setting["temperature"],
    banned_ids=BANNED,
    block=setting["block"],
  )
  capacity = packing.Capacity.of(setting["together"], WIDTH + G * R, setting["block"])
  sequences = np.concatenate([np.asarray(prompt.lengths)[:, None], lengths], axis=1)
  add_gradient = jit(updater.compute_gradient)
  total, metrics = updater.zero_gradient(params), None
  for rows in packing.pack(sequences, 1, capacity):
    index = rows.groups.reshape(-1)

    def take(x, index=index):
      return np.where((index < 0).reshape(-1, *[1] * (np.ndim(x) - 1)), 0, np.asarray(x)[index])

    micro = MicroBatch(
      jax.tree.map(take, groups),
      rows.packing,
      np.bool_(setting["first"]),
      np.full_like(take(old), 3.0) if setting["first"] else take(old),
      None if ref is None else take(ref),
      key,
    )
    total, part = add_gradient(total, params, None, micro, counts)
    metrics = part if metrics is None else updater.combine_metrics(metrics, part)

  np.testing.assert_allclose(metrics["loss"], want_loss, rtol=1e-4, atol=1e-6)
  for name, value in want.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
  for (path, x), y in zip(
    jax.tree.leaves_with_path(total), jax.tree.leaves(want_grad), strict=True
  ):
    scale = np.abs(y).max()
    assert np.abs(x - y).max() <= 2e-4 * scale + 1e-9, jax.tree_util.keystr(path)
