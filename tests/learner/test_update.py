"""A whole update against a torch reference of the loss; cut otherwise, and skipped."""

import dataclasses

import jax
import numpy as np
import pytest
import torch

from sejax import config as config_lib
from sejax import method, models
from sejax.learner import optimizer, packing
from sejax.learner.minibatches import Groups
from sejax.learner.update import MicroBatch, Updater, random_key
from sejax.models import qwen2_5_vl as qwen
from sejax.sampling import Filters, Options, Request, Role, Sampler, record_hashes
from tests.models import torch_reference

ROWS = [[5, (4, 4), 3], [7], [2, (8, 4), (4, 6), 4], [6, (4, 8)]]
B, G, R = len(ROWS), 3, 6
WIDTH, PATCHES, BLOCK = 32, 64, 8
TEMPERATURE, BANNED = 0.7, (1, 50, 120, 121, 122, 123)
LOSS = {"clip_low": 0.2, "clip_high": 0.3, "dual_clip": 3.0, "kl_coef": 0.05}
# With an epsilon of the gradients' size, the first update tells their size, not only their sign.
ADAMW = {"learning_rate": 1e-2, "eps": 1e-3, "weight_decay": 0.1, "clip_norm": 0.5}


@dataclasses.dataclass(frozen=True)
class Step:
  """What an update is made from: prompts, and `[B,G,R]` or `[B,G]` numbers on both sides."""

  batch: torch_reference.Batch
  features: np.ndarray | None  # in place of the batch's images
  tokens: np.ndarray
  mask: np.ndarray
  old_logp: np.ndarray
  ref_logp: np.ndarray
  advantage: np.ndarray
  behaviour_logp: np.ndarray | None = None
  key: np.ndarray | None = None

  def groups(self, config: qwen.Qwen25VL) -> Groups:
    """Returns all groups."""
    prompt = self.batch.prompt(config, WIDTH)
    return Groups(
      ids=prompt.ids,
      lengths=prompt.lengths,
      positions=np.moveaxis(np.asarray(prompt.positions), 1, 0),
      images=None if self.features is not None else self.batch.images(config, PATCHES),
      features=self.features,
      tokens=self.tokens,
      mask=self.mask,
      advantage=self.advantage,
      behaviour_logp=self.behaviour_logp,
    )

  def rows(self, together: int) -> list[packing.Rows]:
    """Packs the groups into one row for each micro-batch, of so many full groups each."""
    lengths = np.concatenate([self.batch.lengths[:, None], self.mask.sum(-1)], axis=1)
    capacity = packing.Capacity.of(together, WIDTH + G * R, BLOCK)
    return list(packing.pack(lengths, 1, capacity))

  def micro_batches(self, config: qwen.Qwen25VL, together: int) -> list[MicroBatch]:
    """Returns the micro-batches with their log-probs."""
    return [
      MicroBatch(
        take(self.groups(config), rows),
        rows.packing,
        np.bool_(False),
        take(self.old_logp, rows),
        take(self.ref_logp, rows),
        self.key,
      )
      for rows in self.rows(together)
    ]

  @property
  def counts(self) -> method.Denominators:
    return method.denominators(self.mask, 2 * R)


def take(tree, rows: packing.Rows):
  """Takes the groups of a micro-batch; zeros where there is none."""
  index = rows.groups.reshape(-1)

  def take_array(x):
    return np.where((index < 0).reshape(-1, *[1] * (np.ndim(x) - 1)), 0, np.asarray(x)[index])

  return jax.tree.map(take_array, tree)


@dataclasses.dataclass(frozen=True, eq=False)
class Setting:
  """transformers' torch model, the same weights as sejax's tree, and an update to make of them."""

  config: qwen.Qwen25VL
  torch_model: torch.nn.Module
  params: models.Params
  step: Step


def torch_logp(model, batch, tokens):
  """Log-probs of the distribution that tokens were drawn from, in full precision."""
  logits = model(**batch.torch_inputs(tokens)).logits / TEMPERATURE
  logits[..., list(BANNED)] = -torch.inf
  rows = torch.from_numpy(tokens).long().flatten(0, 1)
  picked = [
    row[n - 1 : n - 1 + R].log_softmax(-1).gather(-1, ids[:, None])[:, 0]
    for row, n, ids in zip(logits, np.repeat(batch.lengths, G), rows, strict=True)
  ]
  return torch.stack(picked).reshape(tokens.shape)


@pytest.fixture(scope="module")
def setting() -> Setting:
  config = torch_reference.tiny_config()
  model = torch_reference.torch_model(config)
  params = torch_reference.to_params(dict(model.named_parameters()), config)
  batch = torch_reference.make_batch(config, ROWS)
  rng = np.random.default_rng(3)
  allowed = np.setdiff1d(np.arange(2, torch_reference.TEXT_IDS), BANNED)
  tokens = rng.choice(allowed, (B, G, R)).astype(np.int32)
  lengths = rng.integers(1, R + 1, (B, G))
  lengths[0, 0], lengths[3] = R, [0, 2, 0]  # Some trajectories count for nothing.
  mask = np.arange(R) < lengths[..., None]
  with torch.no_grad():
    logp = torch_logp(model, batch, tokens).numpy()
  # Far enough for either clip of the ratio, a few beyond the dual clip; others stay between.
  gap = 0.3 * rng.standard_normal(tokens.shape) + 1.5 * (rng.random(tokens.shape) < 0.15)
  ref_gap = 0.5 * rng.standard_normal(tokens.shape)
  old_logp, ref_logp = ((logp + x).astype(np.float32) for x in (-gap, ref_gap))
  advantage = rng.standard_normal((B, G)).astype(np.float32)
  tokens[~mask] = BANNED[0]  # Padding is a token that cannot be drawn.
  step = Step(batch, None, tokens, mask, old_logp, ref_logp, advantage)
  return Setting(config, model, params, step)


@dataclasses.dataclass(frozen=True, eq=False)
class Frozen:
  """Eight prompts with features given and what the sampler drew for them; no vision in updates."""

  setting: Setting
  sampled_logp: np.ndarray
  updater: Updater


@pytest.fixture(scope="module")
def frozen(setting) -> Frozen:
  config, rng = setting.config, np.random.default_rng(4)
  batch = torch_reference.make_batch(config, 2 * ROWS, seed=1)
  features = rng.standard_normal(
    (2 * B, PATCHES // config.vision.merge_unit, config.text.hidden_size)
  ).astype(np.float32)
  filters = Filters(TEMPERATURE, top_p=0.95, banned=BANNED)
  sampler = Sampler(config, Options(G, R, filters, tuple(range(2, 10)), decode_steps=R, pack=False))
  request = Request(
    batch.prompt(config, WIDTH), record_hashes("frozen", [str(i) for i in range(2 * B)]), features
  )
  result = sampler(setting.params, request, seed=1, step=2, role=Role.ACTOR)
  gap = 0.3 * rng.standard_normal((2, *result.logp.shape))
  old_logp, ref_logp = (result.logp + gap).astype(np.float32)
  advantage = rng.standard_normal((2 * B, G)).astype(np.float32)
  step = Step(batch, features, result.tokens, result.mask, old_logp, ref_logp, advantage)
  setting = dataclasses.replace(setting, step=step)
  return Frozen(setting, result.logp, make_updater(setting, frozen=("^vision/",), kl_coef=0.0))


def make_updater(setting, *, frozen=(), adamw=None, **loss):
  options = config_lib.default().optimizer.to_dict() | ADAMW | (adamw or {})
  return Updater(
    setting.config,
    optimizer.make(options, 10, frozen),
    LOSS | loss,
    temperature=TEMPERATURE,
    banned_ids=BANNED,
    block=BLOCK,
  )


def to_numpy(tree):
  return jax.tree.map(np.array, tree)


def take_step(setting, updater, together=2, **changes):
  """Returns the change of the parameters by one update of the setting's, and its metrics."""
  step = dataclasses.replace(setting.step, **changes)
  micro_batches = step.micro_batches(setting.config, together)
  state, metrics = updater.update(updater.init(setting.params), None, micro_batches, step.counts)
  change = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), state.params, setting.params)
  return change, to_numpy(metrics)


def torch_loss(logp, step):
  """The GRPO loss over the tokens that count, as one token mean."""
  old, ref, mask = map(torch.from_numpy, (step.old_logp, step.ref_logp, step.mask))
  advantage = torch.from_numpy(step.advantage)[..., None].expand(mask.shape)[mask]
  logp, old, ref = logp[mask], old[mask], ref[mask]
  ratio = (logp - old).clamp(-20, 20).exp()
  clipped = ratio.clamp(1 - LOSS["clip_low"], 1 + LOSS["clip_high"])
  surrogate = torch.maximum(-advantage * ratio, -advantage * clipped)
  bound = -advantage * LOSS["dual_clip"]
  policy = torch.where(advantage < 0, torch.minimum(surrogate, bound), surrogate)
  d = (ref - logp).clamp(-20, 20)
  kl = (d.exp() - d - 1).clamp(-10, 10)
  metrics = {
    "policy_loss": policy.mean(),
    "kl": kl.mean(),
    "clipfrac": (-advantage * clipped > -advantage * ratio).float().mean(),
    "clipfrac_lower": ((advantage < 0) & (surrogate > bound)).float().mean(),
    "ppo_kl": (old - logp).mean(),
    "ratio_min": ratio.min(),
    "ratio_max": ratio.max(),
  }
  return policy.mean() + LOSS["kl_coef"] * kl.mean(), metrics


def test_an_update_is_that_of_torch(setting):
  model, step = setting.torch_model, setting.step
  loss, wanted = torch_loss(torch_logp(model, step.batch, step.tokens), step)
  model.zero_grad()
  loss.backward()
  named = dict(model.named_parameters())
  before = {name: p.detach().clone() for name, p in named.items()}
  want_grads = torch_reference.to_params(
    {name: p.grad.clone() for name, p in named.items()}, setting.config
  )
  adamw = torch.optim.AdamW(
    model.parameters(), ADAMW["learning_rate"], (0.9, 0.999), ADAMW["eps"], ADAMW["weight_decay"]
  )
  norm = torch.nn.utils.clip_grad_norm_(model.parameters(), ADAMW["clip_norm"]).item()
  adamw.step()
  changes = {name: p.detach() - before[name] for name, p in named.items()}
  want_change = torch_reference.to_params(changes, setting.config)
  with torch.no_grad():
    for name, p in named.items():
      p.copy_(before[name])

  updater = make_updater(setting)
  grads = updater.zero_gradient(setting.params)
  micro_batches = step.micro_batches(setting.config, 2)
  assert len(micro_batches) > 1
  for micro in micro_batches:
    grads, _ = updater.add_gradient(grads, setting.params, None, micro, step.counts)
  change, metrics = take_step(setting, updater)

  assert norm > 2 * ADAMW["clip_norm"]
  assert wanted["clipfrac"] > 0.1
  assert wanted["clipfrac_lower"] > 0
  # Terms of about 1 and of both signs cancel, so that their rounding is that of the sum.
  np.testing.assert_allclose(metrics["loss"], loss.item(), rtol=1e-5, atol=5e-7)
  np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-4)
  for name, value in wanted.items():
    np.testing.assert_allclose(metrics[name], value.item(), rtol=1e-4, atol=1e-6, err_msg=name)
  trees = (grads, want_grads, change, want_change)
  for (path, grad), *others in zip(
    jax.tree.leaves_with_path(trees[0]), *map(jax.tree.leaves, trees[1:]), strict=True
  ):
    want_grad, moved, want_moved = map(np.asarray, others)
    where, largest = jax.tree_util.keystr(path), np.abs(want_grad).max()
    assert np.abs(grad - want_grad).max() <= 1e-4 * largest, where
    told = np.abs(want_grad) > 1e-3 * largest
    assert largest > 1e-4, where
    assert np.abs(moved - want_moved)[told].max() <= 0.01 * ADAMW["learning_rate"], where


def test_scores_are_those_of_the_sampler(frozen):
  step, params = frozen.setting.step, frozen.setting.params
  assert 0 < step.mask.mean() < 1
  found = np.full(step.mask.shape, np.nan, np.float32)
  for rows in step.rows(1):
    groups = take(step.groups(frozen.setting.config), rows)
    part = frozen.updater.token_logprobs(params, groups, rows.packing)
    index = rows.groups.reshape(-1)
    found[index[index >= 0]] = np.asarray(part)[index >= 0]
  np.testing.assert_allclose(found, frozen.sampled_logp, atol=1e-4)
  assert not np.any(found[~step.mask])
  _, metrics = take_step(frozen.setting, frozen.updater, 1, old_logp=found)
  # The ratio is 1 up to the order of sums, in which two programs may differ.
  np.testing.assert_allclose([metrics["ratio_min"], metrics["ratio_max"]], 1, atol=1e-5)


@pytest.mark.long
def test_one_micro_batch_gives_the_update_of_several(frozen):
  """Their tokens and trajectories that count are not equally many, so means of means would fail."""
  tokens = frozen.setting.step.mask.reshape(8, -1).sum(-1)
  assert tokens.min() < tokens.max()
  assert len(frozen.setting.step.rows(8)) == 1
  assert len(frozen.setting.step.rows(1)) > 4
  whole, metrics = take_step(frozen.setting, frozen.updater, 8)
  parts, parts_metrics = take_step(frozen.setting, frozen.updater, 1)
  for name, value in metrics.items():
    np.testing.assert_allclose(parts_metrics[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
  # A gradient differs by rounding, which is least against epsilon; a step is the learning rate.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3 * ADAMW["learning_rate"]), parts, whole
  )


@pytest.mark.long
def test_the_mismatch_is_that_of_the_whole_minibatch(frozen):
  step, rng = frozen.setting.step, np.random.default_rng(5)
  x = np.where(step.mask, 0.2 * rng.standard_normal(step.mask.shape), np.nan).astype(np.float32)
  _, metrics = take_step(frozen.setting, frozen.updater, 1, behaviour_logp=step.old_logp - x)
  x = (step.old_logp - (step.old_logp - x))[step.mask].astype(np.float64)
  wanted = {
    "mismatch_mean": np.abs(x).mean(),
    "mismatch_max": np.abs(x).max(),
    "mismatch_k3_kl": (np.expm1(x) - x).mean(),
    "mismatch_ess": np.exp(x).mean() ** 2 / np.exp(2 * x).mean(),
  }
  for name, value in wanted.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-4, err_msg=name)
  assert 0.9 < metrics["mismatch_ess"] < 1


@pytest.mark.long
def test_a_step_draws_what_its_numbers_decide(frozen):
  """The tokens that `clip_cov` drops, and with them the update, are those of its key."""
  updater = make_updater(
    frozen.setting,
    frozen=("^vision/",),
    objective="clip_cov",
    clip_cov_ratio=0.2,
    clip_cov_lb=0.0,
  )
  keys = [random_key(0, step, 0, 1) for step in (3, 3, 4)]
  others = [random_key(1, 3, 0, 1), random_key(0, 3, 1, 1), random_key(0, 3, 0, 0)]
  assert len(np.unique([*keys, *others], axis=0)) == 5
  changes = [take_step(frozen.setting, updater, key=key)[0]["lm_head"] for key in keys]
  first, again, other = (jax.tree.leaves(change)[0] for change in changes)
  np.testing.assert_array_equal(first, again)
  assert np.any(first != other)


def test_a_frozen_vision_tower_keeps_its_bits_and_has_no_moments(frozen):
  change, _ = take_step(frozen.setting, frozen.updater, 1)
  assert not any(np.any(x) for x in jax.tree.leaves(change["vision"]))
  assert all(np.any(x) for x in jax.tree.leaves(change["decoder"]))
  state = frozen.updater.init(frozen.setting.params)
  assert not any(
    "vision" in jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(state[1])
  )


def test_without_advantages_weight_decay_alone_acts(frozen):
  zeros = np.zeros_like(frozen.setting.step.advantage)
  change, metrics = take_step(frozen.setting, frozen.updater, 1, advantage=zeros)
  assert metrics["loss"] == 0
  assert metrics["grad_norm"] == 0
  decay = -ADAMW["learning_rate"] * ADAMW["weight_decay"]
  for part in ("decoder", "lm_head"):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, decay * b, atol=1e-6),
      change[part],
      frozen.setting.params[part],
    )


def test_a_gradient_that_is_not_finite_is_skipped(frozen):
  step, updater = frozen.setting.step, frozen.updater
  bad = step.old_logp.copy()
  bad[3, 1, 0] = np.nan
  change, metrics = take_step(frozen.setting, updater, 1, old_logp=bad)
  assert metrics["finite"] == 0
  assert not any(np.any(x) for x in jax.tree.leaves(change))
  # What stands at masked places reaches nothing.
  padded = np.where(step.mask, step.old_logp, np.nan)
  _, metrics = take_step(frozen.setting, updater, 1, old_logp=padded)
  assert metrics["finite"] == 1


def test_the_state_before_the_first_update_is_a_copy(frozen):
  params = frozen.setting.params
  take_step(frozen.setting, frozen.updater, 1)
  assert not any(x.is_deleted() for x in jax.tree.leaves(params))
