"""Every group and loss of the golden files, against the outputs of the paper's PyTorch code."""

import collections
import functools

import jax
import numpy as np
import pytest

from sejax import method
from sejax.method import advantages, consistency
from sejax.method.aggregation import AGGREGATIONS
from tests.golden import FILES, load

LOADED = [load(name) for name in FILES]

# Options that a golden group may set, by the name it uses and the name they have here.
OPTION_NAMES = {
  "beta": "beta",
  "threshold": "threshold",
  "clip_adv": "clip_adv",
  "t_h": "t_h",
  "t_l": "t_l",
  "lam_pos": "lam_pos",
  "lam_neg": "lam_neg",
  "tau_h": "tau_h",
  "tau_l": "tau_l",
  "clamp_min": "g_min",
  "clamp_max": "g_max",
}


def batches():
  """Golden groups that have size and options in common, as one batch each."""
  found = collections.defaultdict(list)
  for file in LOADED:
    for group in file["groups"]:
      options = tuple((ours, group[name]) for name, ours in OPTION_NAMES.items() if name in group)
      found[len(group["answers"]), options].append(group)
  return [(dict(options), groups) for (_, options), groups in found.items()]


BATCHES = batches()
LOSSES = [loss for file in LOADED for loss in file["losses"]]
SHAPE = tuple(np.max([np.shape(loss["logp"]) for loss in LOSSES], axis=0))


def column(groups, name):
  return np.array([group[name] for group in groups])


def answer_ids(groups):
  # The released code lets trajectories without an answer vote together, as the string "None".
  return [[group["answers"].index(answer) for answer in group["answers"]] for group in groups]


def is_constant(group):
  return group.get("constant_after_clip", len(set(group["reward"])) == 1)


def assert_close(actual, expected, tolerance=1e-5, err_msg=""):
  actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
  error = np.abs(actual - expected) / np.maximum(1.0, np.abs(expected))
  # Written so that NaN is a miss.
  assert np.all(error <= tolerance), f"{err_msg}: off by {np.max(error)}"


def assert_advantages(groups, actual, name, tolerance):
  for group, row in zip(groups, np.asarray(actual), strict=True):
    if is_constant(group):
      # What the golden file holds here is rounding, of order one where the std divides it.
      np.testing.assert_array_equal(row, 0.0)
    else:
      assert_close(row, group[name], tolerance, name)


def test_the_golden_files_are_complete():
  assert sum(len(groups) for _, groups in BATCHES) == 120 + 74
  assert len(LOSSES) == 4 + 24
  assert sum(is_constant(group) for _, groups in BATCHES for group in groups) == 15


@pytest.mark.parametrize(("options", "groups"), BATCHES)
def test_group(options, groups):
  ids, format_ok = answer_ids(groups), column(groups, "format_penalty") == 0
  valid = np.ones_like(format_ok)
  out, standardized, majority, dirichlet = every_rule(
    ids, format_ok, column(groups, "judge_score"), valid, **options
  )
  assert_close(out.self_consistency, column(groups, "prior"), err_msg="prior")
  assert_close(out.factor, column(groups, "factor"), err_msg="factor")
  assert_close(out.reward, column(groups, "reward"), err_msg="reward")
  assert_close(out.log_q, column(groups, "group_log_prob"), err_msg="group_log_prob")
  assert_advantages(groups, out.advantage, "advantage", 1e-5)
  # A std of float32 rewards that differ in their last digits alone carries their rounding.
  assert_advantages(groups, standardized, "advantage_std_normalised", 2e-4)
  assert_close(majority, column(groups, "majority_vote"), err_msg="majority_vote")
  assert_close(dirichlet, column(groups, "dirichlet"), err_msg="dirichlet")


def test_group_as_users_compile_it():
  options, groups = max(BATCHES, key=lambda batch: len(batch[1]))
  format_ok = column(groups, "format_penalty") == 0
  scores, valid = column(groups, "judge_score"), np.ones_like(format_ok)
  out = method.group(answer_ids(groups), format_ok, scores, valid, **options)
  assert_close(out.reward, column(groups, "reward"), err_msg="reward")
  assert_advantages(groups, out.advantage, "advantage", 1e-5)


def every_rule(ids, format_ok, scores, valid, **options):
  """The released run's group, and what the other rules make of it, compiled as one."""

  # Fifty sizes and sets of options, a few groups each: optimising code would take most of the time.
  @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
  def kernels(ids, *others):
    out = method.group(ids, *others, **options)
    _, standardized = advantages.log_q_and_advantage(
      out.reward,
      beta=options["beta"],
      clip_adv=options.get("clip_adv"),
      advantage="standardized",
    )
    vote = {"threshold": 0.85, "alpha": 1.0, "dirichlet_beta": 22.0, "margin": 0.06}
    majority = consistency.self_consistency(ids, rule="majority", **vote)
    dirichlet = consistency.self_consistency(ids, rule="dirichlet", **vote)
    return out, standardized, majority, dirichlet

  return kernels(np.array(ids), format_ok, scores, valid)


def padded(values):
  """A golden array in the shape of the largest, so that all losses share their compiled pieces."""
  values = np.array(values, np.float32)
  return np.pad(
    values,
    [(0, most - size) for most, size in zip(SHAPE, values.shape, strict=False)],
    constant_values=np.nan,
  )


@pytest.mark.long
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("golden", LOSSES)
def test_loss(golden, aggregation):
  old_logp, ref_logp, advantage = (
    padded(golden[name]) for name in ("old_logp", "ref_logp", "advantage")
  )
  mask = np.nan_to_num(padded(golden["mask"]))
  options = {name: golden[name] for name in ("clip_low", "clip_high", "dual_clip", "kl_coef")}

  def loss_fn(logp):
    return method.policy_loss(
      logp, old_logp, ref_logp, advantage, mask, aggregation=aggregation, **options
    )

  (loss, metrics), grad = jax.value_and_grad(loss_fn, has_aux=True)(padded(golden["logp"]))
  expected = golden["expected"][aggregation]
  rows, width = np.shape(golden["logp"])
  # Standing alone, this aggregation divides by the width; the padding's share is undone.
  scale = SHAPE[1] / width if aggregation == "seq-mean-token-sum-norm" else 1.0
  assert_close(loss * scale, expected["loss"], err_msg="loss")
  assert_close(grad[:rows, :width] * scale, expected["grad"], err_msg="grad")
  total = metrics["policy_loss"] + options["kl_coef"] * metrics["kl"]
  assert_close(total * scale, expected["loss"], err_msg="policy_loss + kl_coef kl")
  for name in expected.keys() - {"loss", "grad"}:
    assert_close(metrics[name] * (scale if name == "kl" else 1.0), expected[name], err_msg=name)
