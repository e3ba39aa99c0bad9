"""The loss beyond its golden values: parts that add up, masks that hold, gaps that stay finite."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sejax import method
from sejax.method.aggregation import AGGREGATIONS

EXTREMES = ("ratio_min", "ratio_max")
# Each objective with its own aggregation, and grpo with all of them.
FORMS = [("grpo", name) for name in AGGREGATIONS] + [
  (name, None) for name in method.OBJECTIVES if name != "grpo"
]


def random_batch(seed, shape=(4, 6)):
  rng = np.random.default_rng(seed)
  logp, old_logp, ref_logp, behaviour_logp = -rng.exponential(size=(4, *shape)).astype(np.float32)
  return {
    "logp": logp,
    "old_logp": old_logp,
    "ref_logp": ref_logp,
    "behaviour_logp": behaviour_logp,
    "advantage": rng.normal(size=shape[:-1]).astype(np.float32),
    "mask": rng.random(shape) < 0.7,
    "entropy": rng.exponential(size=shape).astype(np.float32),
  }


@functools.partial(
  jax.jit,
  static_argnames=("objective", "aggregation", "rollout_correction", "entropy_coef"),
  # Many small programs that run once: optimising their code would take most of the time.
  compiler_options={"xla_backend_optimization_level": 0},
)
def loss_and_grads(
  batch,
  denominators=None,
  *,
  objective="grpo",
  aggregation=None,
  rollout_correction="none",
  entropy_coef=0.0,
):
  def loss_fn(arrays):
    return method.policy_loss(
      **arrays,
      mask=batch["mask"],
      denominators=denominators,
      key=jax.random.key(0),
      objective=objective,
      aggregation=aggregation,
      rollout_correction=rollout_correction,
      clip_cov_lb=0.0,
      entropy_coef=entropy_coef,
    )

  arrays = {name: x for name, x in batch.items() if name != "mask"}
  (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(arrays)
  return loss, metrics, grads


def one_sequence(logp, old_logp=None, ref_logp=None, advantage=1.0):
  """Loss, metrics and gradient of a sequence without padding."""
  logp, old_logp, ref_logp = (
    np.array(logp if x is None else x, np.float32) for x in (logp, old_logp, ref_logp)
  )
  loss, metrics, grads = loss_and_grads(
    {
      "logp": logp,
      "old_logp": old_logp,
      "ref_logp": ref_logp,
      "advantage": np.float32(advantage),
      "mask": np.ones(logp.shape, bool),
    }
  )
  return loss, metrics, grads["logp"]


@pytest.mark.long
@pytest.mark.parametrize(
  ("objective", "aggregation"),
  [form for form in FORMS if not method.OBJECTIVES[form[0]].per_micro_batch],
)
@pytest.mark.parametrize("rollout_correction", ["none", "token_truncate", "sequence_mask"])
@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), lengths=st.sampled_from([(1, 100), (1, 0), (60, 7)]))
def test_micro_batches_add_up_to_the_batch(
  objective, aggregation, rollout_correction, seed, lengths
):
  batch = random_batch(seed, (2, 100))
  batch["mask"] = np.arange(100) < np.array(lengths)[:, None]
  counts = method.denominators(batch["mask"], max_tokens=128)
  call = functools.partial(
    loss_and_grads,
    objective=objective,
    aggregation=aggregation,
    rollout_correction=rollout_correction,
    entropy_coef=0.1,
  )
  loss, metrics, grads = call(batch, counts)
  parts = [call(jax.tree.map(lambda x, i=i: x[i : i + 1], batch), counts) for i in range(2)]
  part_losses, part_metrics, part_grads = zip(*parts, strict=True)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  close(sum(part_losses), loss)
  for name in metrics.keys() - set(EXTREMES):
    close(sum(part[name] for part in part_metrics), metrics[name], err_msg=name)
  for name in ("logp", "entropy"):
    close(np.concatenate([part[name] for part in part_grads]), grads[name], err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_batch_of_its_own_needs_no_denominators(aggregation):
  batch = random_batch(0)
  alone, _, _ = loss_and_grads(batch, aggregation=aggregation)
  counted, _, _ = loss_and_grads(
    batch, method.denominators(batch["mask"], max_tokens=6), aggregation=aggregation
  )
  # Alone, this one divides by the width and leaves the number of sequences out.
  factor = 4 if aggregation == "seq-mean-token-sum-norm" else 1
  np.testing.assert_allclose(counted * factor, alone, rtol=1e-5)


def test_denominators_count_what_is_unmasked_and_add_up():
  mask = np.array([[1, 1, 0], [0, 0, 0], [1, 0, 0]])
  whole = method.denominators(mask, max_tokens=3)
  assert whole == (3, 2, 3)
  parts = [method.denominators(mask[i : i + 1], max_tokens=3) for i in range(3)]
  assert sum(part.tokens for part in parts) == 3
  assert sum(part.sequences for part in parts) == 2


@pytest.mark.parametrize(("objective", "aggregation"), FORMS)
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_masked_position_reaches_nothing(objective, aggregation, poison):
  batch = random_batch(1)
  batch["mask"][2] = False  # A sequence without any token: its advantage is masked too.
  batch["mask"][0, 3] = False
  poisoned = {
    name: x if name == "mask" else np.where(_as(batch["mask"], x), x, poison).astype(np.float32)
    for name, x in batch.items()
  }
  options = {"objective": objective, "aggregation": aggregation, "entropy_coef": 0.1}
  level = "sequence" if objective == "gmpo" else "token"
  clean, dirty = (
    loss_and_grads(x, rollout_correction=f"{level}_mask", **options) for x in (batch, poisoned)
  )
  jax.tree.map(np.testing.assert_array_equal, dirty, clean)
  for grad in dirty[2].values():
    np.testing.assert_array_equal(np.where(_as(batch["mask"], grad), 0.0, grad), 0.0)


def _as(mask, x):
  return mask if x.ndim == mask.ndim else mask.any(axis=-1)


@pytest.mark.long
@pytest.mark.parametrize(("objective", "aggregation"), FORMS)
def test_where_everything_is_masked_all_is_zero(objective, aggregation):
  batch = random_batch(2) | {"mask": np.zeros((4, 6), bool)}
  for counts in (None, method.denominators(batch["mask"], max_tokens=6)):
    loss, metrics, grads = loss_and_grads(
      batch, counts, objective=objective, aggregation=aggregation
    )
    assert loss == 0.0
    assert {name: float(x) for name, x in metrics.items()} == {
      name: 1.0 if name in EXTREMES else 0.0 for name in metrics
    }
    jax.tree.map(lambda grad: np.testing.assert_array_equal(grad, 0.0), grads)


gaps = hnp.arrays(np.float32, (4, 6), elements=st.floats(-1e4, 1e4, width=32))


@pytest.mark.long
@pytest.mark.parametrize("objective", method.OBJECTIVES)
@settings(deadline=None, max_examples=100)
@given(old_gap=gaps, ref_gap=gaps, seed=st.integers(0, 1000))
def test_gradients_are_finite_at_any_gap(objective, old_gap, ref_gap, seed):
  batch = random_batch(seed)
  batch["old_logp"], batch["ref_logp"] = batch["logp"] - old_gap, batch["logp"] - ref_gap
  loss, metrics, grads = loss_and_grads(
    batch, objective=objective, rollout_correction="sequence_truncate"
  )
  assert all(np.isfinite(x).all() for x in jax.tree.leaves((loss, metrics, grads)))


@pytest.mark.parametrize("gap", [100.0, -100.0])
@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_gap_of_a_hundred_is_finite_and_bounded(gap, advantage):
  loss, metrics, grad = one_sequence([-1.0], [-1.0 - gap], advantage=advantage)
  # The clip holds the gain at 1.2, the dual clip the pain at 3; below, 0.8 or nearly nothing.
  expected = {(100.0, 1.0): -1.2, (100.0, -1.0): 3.0, (-100.0, 1.0): 0.0, (-100.0, -1.0): 0.8}
  np.testing.assert_allclose(loss, expected[gap, advantage], rtol=1e-6, atol=1e-6)
  np.testing.assert_array_equal(grad, 0.0)
  np.testing.assert_allclose(metrics["ratio_max"], np.exp(np.sign(gap) * 20.0), rtol=1e-5)


def test_before_the_first_update_ratio_and_kl_are_exact():
  loss, metrics, grad = one_sequence([-0.1, -2.0, -30.0, -7.3], advantage=0.5)
  assert metrics["ratio_min"] == metrics["ratio_max"] == 1.0
  assert metrics["kl"] == metrics["ppo_kl"] == metrics["clipfrac"] == 0.0
  assert loss == -0.5
  np.testing.assert_array_equal(grad, -0.5 / 4)  # The plain policy gradient.


@pytest.mark.parametrize("objective", method.OBJECTIVES)
def test_on_policy_every_objective_is_the_plain_policy_gradient(objective):
  batch = random_batch(8)
  batch["old_logp"] = batch["ref_logp"] = batch["logp"]
  batch["mask"][:] = True
  counts = method.denominators(batch["mask"], max_tokens=6)
  # The penalty of kl_cov has no gradient where nothing has changed; clip_cov drops one token.
  _, _, grads = loss_and_grads(batch, counts, objective=objective)
  plain = np.broadcast_to(-batch["advantage"][:, None] / 24, (4, 6))
  dropped = grads["logp"] == 0.0
  assert dropped.sum() == (objective == "clip_cov")
  np.testing.assert_allclose(grads["logp"][~dropped], plain[~dropped], rtol=1e-5)


@pytest.mark.parametrize("border", [4e-4, -3e-4])
def test_all_tokens_of_a_sequence_have_its_one_ratio_under_gspo(border):
  """However close it is to a clip's border, all of them pass, or none."""
  rng = np.random.default_rng(0)
  old_logp = rng.uniform(-5, 0, 200).astype(np.float32)
  logp = old_logp + rng.normal(0, 0.1, 200).astype(np.float32)
  logp += np.float32(np.log1p(border)) - (logp - old_logp).mean()
  batch = {
    "logp": logp,
    "old_logp": old_logp,
    "ref_logp": old_logp,
    "advantage": np.float32(np.sign(border)),
    "mask": np.ones(200, bool),
  }
  _, metrics, grads = loss_and_grads(batch, objective="gspo")
  assert metrics["ratio_min"] == metrics["ratio_max"]
  assert (grads["logp"] == 0).all() or (grads["logp"] != 0).all()


def test_a_small_kl_keeps_its_digits():
  d = 3 * 2.0**-12
  _, metrics, _ = one_sequence([-1.0], [-1.0], [-1.0 + d])
  # exp(d) - d - 1 in float32 would be off by a tenth.
  np.testing.assert_allclose(metrics["kl"], math.expm1(d) - d, rtol=1e-3)


def test_leading_axes_are_free():
  batch = random_batch(3, (2, 2, 6))
  flat = {name: x.reshape(-1, *x.shape[2:]) for name, x in batch.items()}
  loss, flat_loss = (loss_and_grads(x, aggregation="seq-mean-token-mean")[0] for x in (batch, flat))
  np.testing.assert_allclose(loss, flat_loss, rtol=1e-5)


def test_entropy_is_rewarded_and_logged_as_a_token_mean():
  batch = random_batch(4)
  plain, _, _ = loss_and_grads(batch)
  loss, metrics, grads = loss_and_grads(batch, entropy_coef=0.5)
  mean = batch["entropy"][batch["mask"]].mean()
  np.testing.assert_allclose(metrics["entropy"], mean, rtol=1e-5)
  np.testing.assert_allclose(loss, plain - 0.5 * mean, rtol=1e-5)
  np.testing.assert_allclose(grads["entropy"], -0.5 * batch["mask"] / batch["mask"].sum())


@pytest.mark.long
@pytest.mark.parametrize("objective", method.OBJECTIVES)
def test_only_the_current_policy_gets_a_gradient(objective):
  _, _, grads = loss_and_grads(
    random_batch(5), objective=objective, rollout_correction="token_truncate"
  )
  for name in ("old_logp", "ref_logp", "behaviour_logp", "advantage"):
    np.testing.assert_array_equal(grads[name], 0.0)
  assert np.abs(grads["logp"]).max() > 0.0


def test_half_precision_input_is_computed_in_float32():
  batch = random_batch(6)
  half = {
    name: jnp.asarray(x, jnp.bfloat16) if x.dtype == np.float32 else x for name, x in batch.items()
  }
  widened = {name: np.asarray(x, np.float32) if name != "mask" else x for name, x in half.items()}
  loss, _, _ = loss_and_grads(half)
  assert loss.dtype == np.float32
  np.testing.assert_array_equal(loss, loss_and_grads(widened)[0])


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"aggregation": "mean"}, "aggregation='mean' must be one of token-mean, seq-mean"),
    ({"dual_clip": 0.5}, r"dual_clip=0.5 must be a number in \[1, inf\]"),
    ({"clip_low": 1.5}, r"clip_low=1.5 must be a number in \[0, 1\]"),
    ({"kl_coef": -0.01}, "kl_coef=-0.01"),
    ({"objective": "ppo"}, "objective='ppo' must be one of grpo, gspo, cispo, sapo, gmpo, clip"),
    ({"kl_estimator": "k4"}, "kl_estimator='k4' must be one of k1, k2, k3"),
    (
      {"objective": "sapo", "aggregation": "token-mean"},
      "aggregation='token-mean' must be seq-mean-token-mean, by which objective sapo is defined",
    ),
    ({"tau_pos": 0.0}, "tau_pos=0.0 must be a number in"),
    ({"clip_cov_ub": math.nan}, "clip_cov_ub=nan must be a number in"),
    ({"clip_cov_ub": "5"}, "clip_cov_ub='5' must be a number in"),
    ({"clip_cov_lb": 6.0}, "clip_cov_lb=6.0 must be at most clip_cov_ub=5.0"),
    ({"objective": "clip_cov"}, "objective='clip_cov' draws tokens at random and needs key"),
    ({"rollout_correction": "tis"}, "rollout_correction='tis' must be one of none, token_trunc"),
    ({"correction_min": 3.0}, r"correction_min=3.0 must be a number in \[0, 1\]"),
    ({"correction_max": 0.5}, r"correction_max=0.5 must be a number in \[1, inf\]"),
    (
      {"objective": "kl_cov", "clip_high": 0.3},
      "clip_high=0.3 must be None with objective kl_cov, which clips no ratio",
    ),
    (
      {"objective": "gmpo", "rollout_correction": "token_mask"},
      "rollout_correction='token_mask' must be another one, such as sequence_mask, with objective",
    ),
    (
      {"rollout_correction": "token_mask", "behaviour_logp": None},
      "rollout_correction='token_mask' needs behaviour_logp, which is None",
    ),
    ({"entropy": None, "entropy_coef": 0.1}, "entropy_coef=0.1 needs entropy, which is None"),
    ({"mask": np.ones((4, 5))}, r"mask has shape \(4, 5\) but logp has \(4, 6\)"),
    ({"advantage": np.ones((4, 6))}, r"advantage has shape \(4, 6\) .* per sequence is \(4,\)"),
  ],
)
def test_bad_input_is_named_in_one_line(arguments, message):
  with pytest.raises(ValueError, match=message) as error:
    method.policy_loss(**(random_batch(7) | arguments))
  assert "\n" not in str(error.value)
