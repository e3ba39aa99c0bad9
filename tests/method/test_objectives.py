"""Every objective, KL estimator and importance weight against the published code's outputs."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sejax import method
from sejax.method import kl, rollout_correction
from sejax.method.aggregation import token_weights
from sejax.method.objectives import Tokens, covariance
from tests.golden import load
from tests.method.test_golden import assert_close

GOLDEN = load("objectives.json")


class Built(NamedTuple):
  """How a section of the golden file is computed here.

  Attributes:
    objective: of `policy_loss`.
    options: that hold for all its cases, in place of those of the file.
    aggregation: where the file's is a trainer's own.
    counts_empty: whether the published mean over sequences counts those without a token, so that
      the denominator must be given.
    except_for: kinds or numbers of cases that differ, and why.
  """

  objective: str
  options: dict = {}  # noqa: RUF012 (never changed)
  aggregation: str | None = None
  counts_empty: bool = False
  except_for: dict = {}  # noqa: RUF012


UNCLAMPED = {"huge_gap": "log ratios beyond 20 are not clipped in TRL"}
MEAN = "seq-mean-token-mean"

SECTIONS = {
  "gspo": Built("gspo"),
  "cispo": Built("cispo"),
  "sapo": Built("sapo"),
  "dapo": Built("grpo"),
  "dr_grpo": Built("grpo"),
  "geo_mean": Built("gmpo", aggregation=MEAN, counts_empty=True),
  "kl_cov": Built("kl_cov", except_for={10: "equal covariances, of which torch.topk takes others"}),
  "gspo_trl": Built(
    "gspo", aggregation=MEAN, counts_empty=True, except_for={"huge_gap": "no clip in TRL"}
  ),
  "luspo_trl": Built("gspo", aggregation="seq-mean-token-sum", counts_empty=True),
  "cispo_trl": Built("cispo", {"clip_low": 1.0}, "token-mean"),
  "sapo_trl": Built("sapo", aggregation=MEAN, counts_empty=True),
  "dapo_trl": Built("grpo", {"dual_clip": np.inf}, "token-mean", except_for=UNCLAMPED),
  "dr_grpo_trl": Built(
    "grpo",
    {"dual_clip": np.inf},
    "seq-mean-token-sum-norm",
    counts_empty=True,
    except_for=UNCLAMPED,
  ),
  "gmpo_trl": Built(
    "gmpo",
    aggregation=MEAN,
    counts_empty=True,
    except_for={"masked_row": "TRL adds -A for a sequence without a token"},
  ),
  "kl_in_loss_trl": Built("grpo", {"dual_clip": np.inf}, "token-mean", except_for=UNCLAMPED),
}
APART = {  # tested by functions of their own
  "clip_cov": "test_clip_cov",
}
NOT_BUILT = {
  "gspo_token": "advantages are of sequences, not of tokens",
  "dppo_tv": "no objective that was asked for",
  "dppo_kl": "no objective that was asked for",
  "dro": "no objective that was asked for",
  "vespo_trl": "no objective that was asked for",
  "off_policy_mask_trl": "masks by advantage and policy, not by the sampler's mismatch",
}
# Options of a section's cases that are not built.
OPTIONS_NOT_BUILT = {
  "delta": "TRL's two-sided clip: an upper bound of the ratio where A < 0; `dual_clip` bounds it",
  "use_bias_correction_kl": "TRL multiplies k3 by the ratio; here `k3+` has an unbiased gradient",
  "rollout_rs": "verl's rejection shrinks the denominators; masks keep them",
  "rollout_is_batch_normalize": "the mean weight of a batch would couple micro-batches",
}
OTHER_SECTIONS = {
  "kl": "test_kl_estimators",
  "advantages": "tests/method/test_golden_advantages.py",
  "multi_reward_advantages": "tests/method/test_golden_advantages.py",
  "rollout_correction": "test_importance_weights_are_those_of_verl",
  "importance_correction_trl": "test_importance_weights_are_those_of_trl",
  "length_penalty": "tests/method/test_golden_advantages.py",
}
# Options of the file that have another name here; those of None name a form that is built or not.
RENAMED = {
  "kl_cov_ratio": "kl_cov_ratio",
  "ppo_kl_coef": "kl_cov_coef",
  "loss_type": None,
  "importance_sampling_level": None,
  "loss_scale_factor": None,
  "max_completion_length": None,
}
SHAPE = tuple(
  np.max([np.shape(c["logp"]) for cases in GOLDEN["losses"].values() for c in cases], axis=0)
)


def is_built(case):
  """Whether no option of a case is one that is not built."""
  return not any(case["options"].get(name) for name in OPTIONS_NOT_BUILT)


def cases(section):
  """Yields the cases of a section that are built, each with an aggregation of the file."""
  for number, case in enumerate(GOLDEN["losses"][section]):
    if is_built(case) and not {case["kind"], number} & SECTIONS[section].except_for.keys():
      for aggregation in case["expected"]:
        yield pytest.param(section, case, aggregation, id=f"{section}-{number}-{aggregation}")


def padded(values, fill=np.nan):
  """Fills an array up to the size of the largest, so that all cases compile as one."""
  values = np.array(values, np.float32)
  grow = [(0, most - size) for most, size in zip(SHAPE, values.shape, strict=False)]
  return np.pad(values, grow, constant_values=fill)


@functools.partial(
  jax.jit,
  static_argnames="options",
  # Many small programs that run once: optimising their code would take most of the time.
  compiler_options={"xla_backend_optimization_level": 0},
)
def loss_and_grad(logp, rest, denominators, key, *, options):
  def loss(logp):
    return method.policy_loss(logp, *rest, denominators=denominators, key=key, **dict(options))

  return jax.value_and_grad(loss, has_aux=True)(logp)


def compute(case, *, counts_empty=False, max_tokens=None, behaviour_logp=None, **options):
  """Returns loss, metrics and gradient of a case, whose padding is NaN under the mask."""
  logp, old_logp = (padded(case[name]) for name in ("logp", "old_logp"))
  ref_logp = padded(case.get("ref_logp", case["logp"]))
  mask = np.array(case["mask"])
  rest = [old_logp, ref_logp, padded(case["advantage"]), padded(mask, 0) != 0]
  if behaviour_logp is not None:
    rest.append(padded(behaviour_logp))
  counts = method.Denominators(
    tokens=mask.sum(),
    sequences=len(mask) if counts_empty else mask.any(axis=1).sum(),
    max_tokens=max_tokens or mask.shape[1],
  )
  options = {"kl_coef": 0.0} | options
  (loss, metrics), grad = loss_and_grad(
    logp, rest, counts, jax.random.key(0), options=tuple(sorted(options.items()))
  )
  rows, width = mask.shape
  grad = np.asarray(grad)
  np.testing.assert_array_equal(grad[rows:], 0.0)
  np.testing.assert_array_equal(grad[:, width:], 0.0)
  return loss, metrics, grad[:rows, :width]


def test_the_table_is_complete():
  assert {*GOLDEN["losses"]} == {*SECTIONS, *APART}
  assert {built.objective for built in SECTIONS.values()} | {*APART} == {*method.OBJECTIVES}
  rewards = {"self_certainty", "group_rewards"}  # see tests/rewards
  assert {*GOLDEN} == {"about", "losses", *OTHER_SECTIONS, *rewards}
  named = {*GOLDEN["about"]["functions"]} - {"self_certainty"}  # a reward, see the file's about
  assert named == {*SECTIONS, *APART, *NOT_BUILT, *OTHER_SECTIONS}


@pytest.mark.long
@pytest.mark.parametrize(
  ("section", "case", "aggregation"), [x for section in SECTIONS for x in cases(section)]
)
def test_loss_and_gradient(section, case, aggregation):
  built, expected = SECTIONS[section], case["expected"][aggregation]
  given = case["options"]
  options = {RENAMED.get(name, name): float(x) for name, x in given.items() if RENAMED.get(name, 1)}
  options.pop("use_bias_correction_kl", None)
  if section == "cispo_trl":
    options["clip_high"] -= 1.0  # there the bound itself, here its distance from 1
  loss, metrics, grad = compute(
    case,
    counts_empty=built.counts_empty,
    max_tokens=given.get("loss_scale_factor") or given.get("max_completion_length"),
    objective=built.objective,
    aggregation=built.aggregation or aggregation,
    **options | built.options,
  )
  assert_close(loss, expected["loss"], err_msg="loss")
  assert_close(grad, expected["grad"], err_msg="grad")
  for name in metrics.keys() & expected.keys():
    assert_close(metrics[name], expected[name], err_msg=name)


def tokens_of(case, logp=None):
  mask = np.array(case["mask"]) != 0
  logp = np.array(case["logp"], np.float32) if logp is None else logp
  row = np.array(case["advantage"], np.float32)[:, None]
  return Tokens(
    logp=jnp.where(mask, logp, 0.0),
    old_logp=jnp.where(mask, np.array(case["old_logp"], np.float32), 0.0),
    advantage=jnp.where(mask, row, 0.0),
    mask=mask,
    weight=jnp.ones(mask.shape),
  )


@pytest.mark.long
@pytest.mark.parametrize("case", GOLDEN["losses"]["clip_cov"])
def test_clip_cov(case):
  options, expected = case["options"], case["expected"]["token-mean"]
  bounds = {name: float(options[name]) for name in ("clip_low", "clip_high")}
  limits = {"lowest": options["clip_cov_lb"], "highest": options["clip_cov_ub"]}
  among = covariance.candidates(tokens_of(case), **bounds, **limits)
  assert sorted(np.argwhere(among).tolist()) == sorted(expected["candidates"])
  dropped = np.zeros(among.shape, bool)
  for place in expected["selected"]:
    dropped[tuple(place)] = True
  # As many are drawn as were there, out of the same.
  count = covariance.number(tokens_of(case).mask, options["clip_cov_ratio"])
  drawn = covariance.draw(jax.random.key(1), among, count)
  assert drawn.sum() == dropped.sum()
  assert not np.any(drawn & ~among)

  def loss_fn(logp):
    surrogate = covariance.clip_cov(tokens_of(case, logp), dropped, **bounds)
    weights = token_weights(tokens_of(case).mask, "token-mean", None)
    return jnp.sum(weights * surrogate.loss), surrogate

  logp = jnp.array(case["logp"], jnp.float32)
  (loss, surrogate), grad = jax.value_and_grad(loss_fn, has_aux=True)(logp)
  assert_close(loss, expected["loss"], err_msg="loss")
  assert_close(grad, expected["grad"], err_msg="grad")
  count = tokens_of(case).mask.sum()
  assert_close(surrogate.clipped.sum() / count, expected["clipfrac"], err_msg="clipfrac")
  if dropped.sum() == among.sum():  # Any draw is all of them.
    names = ("clip_cov_ratio", "clip_cov_lb", "clip_cov_ub")
    chosen = {name: float(options[name]) for name in names}
    loss, metrics, grad = compute(case, objective="clip_cov", **bounds, **chosen)
    assert_close(loss, expected["loss"], err_msg="policy_loss")
    assert_close(grad, expected["grad"], err_msg="its grad")
    for name in ("clipfrac", "ppo_kl"):
      assert_close(metrics[name], expected[name], err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("case", GOLDEN["losses"]["kl_cov"])
def test_kl_cov_chooses_the_largest_covariances(case):
  expected = case["expected"]["token-mean"]
  tokens = tokens_of(case)
  theirs = np.zeros(tokens.mask.shape, bool)
  for place in expected["selected"]:
    theirs[tuple(place)] = True
  count = covariance.number(tokens.mask, case["options"]["kl_cov_ratio"])
  ours = covariance.largest(tokens, count)
  # Where some are equal, torch.topk may choose others of them.
  covariances = np.asarray(covariance.covariances(tokens))
  np.testing.assert_array_equal(np.sort(covariances[ours]), np.sort(covariances[theirs]))

  def loss_fn(logp):
    surrogate = covariance.kl_cov(
      tokens_of(case, logp), theirs, coef=case["options"]["ppo_kl_coef"]
    )
    return jnp.sum(token_weights(tokens.mask, "token-mean", None) * surrogate.loss)

  loss, grad = jax.value_and_grad(loss_fn)(jnp.array(case["logp"], jnp.float32))
  assert_close(loss, expected["loss"], err_msg="loss")
  assert_close(grad, expected["grad"], err_msg="grad")


def test_a_draw_is_uniform_and_of_its_key():
  among = np.arange(12).reshape(3, 4) % 3 > 0  # 8 of 12
  keys = jax.random.split(jax.random.key(0), 4000)
  drawn = np.asarray(jax.vmap(lambda key: covariance.draw(key, among, 3))(keys))
  assert (drawn.sum(axis=(1, 2)) == 3).all()
  assert not drawn[:, ~among].any()
  np.testing.assert_allclose(drawn.mean(axis=0)[among], 3 / 8, atol=0.03)  # 4 standard errors
  again = covariance.draw(keys[5], among, 3)
  np.testing.assert_array_equal(again, drawn[5])
  np.testing.assert_array_equal(covariance.draw(keys[0], among, 100), among)


@pytest.mark.long
@pytest.mark.parametrize("estimator", kl.ESTIMATORS)
@pytest.mark.parametrize("case", GOLDEN["kl"])
def test_kl_estimators(case, estimator):
  logp, ref_logp = (jnp.array(case[name], jnp.float32) for name in ("logp", "ref_logp"))
  expected = case["expected"][estimator]
  assert_close(kl.estimate(logp, ref_logp, estimator), expected["value"])
  grad = jax.grad(lambda logp: kl.estimate(logp, ref_logp, estimator).sum())(logp)
  assert_close(grad, expected["grad"])


def verl_rule(options):
  """Options of the importance weights, from the text of verl's threshold."""
  low, _, high = str(options["rollout_is_threshold"]).rpartition("_")
  return {
    "rollout_correction": f"{options['rollout_is']}_{'mask' if low else 'truncate'}",
    "correction_min": float(low or 0),
    "correction_max": float(high),
  }


WEIGHTED = [case for case in GOLDEN["rollout_correction"] if is_built(case)]


@pytest.mark.long
@pytest.mark.parametrize("case", WEIGHTED)
def test_importance_weights_are_those_of_verl(case):
  options, expected = case["options"], case["expected"]
  mask = np.array(case["mask"]) != 0
  logps = [np.where(mask, case[name], np.nan) for name in ("old_logp", "rollout_logp")]
  rule = verl_rule(options)
  weights = rollout_correction.importance_weights(*logps, mask, **rule)
  assert_close(np.where(mask, weights, 0.0), expected["weights"], err_msg="weights")
  parts = np.mean(np.asarray(weights)[mask]), np.mean(np.square(weights)[mask])
  ess = rollout_correction.effective_sample_size(*parts)
  assert_close(ess, expected["metrics"]["rollout_is_eff_sample_size"], err_msg="ess")
  loss, _, grad = compute(
    case,
    behaviour_logp=case["rollout_logp"],
    **{name: float(options[name]) for name in ("clip_low", "clip_high", "dual_clip")},
    **rule,
  )
  assert_close(loss, expected["loss"], err_msg="loss")
  assert_close(grad, expected["grad"], err_msg="grad")


@pytest.mark.long
@pytest.mark.parametrize("case", GOLDEN["rollout_correction"])
def test_the_mismatch_is_that_of_verl(case):
  mask = np.array(case["mask"]) != 0
  old_logp, behaviour_logp = (
    np.where(mask, case[name], np.nan) for name in ("old_logp", "rollout_logp")
  )
  found = rollout_correction.mismatch(
    rollout_correction.mismatch_parts(old_logp, behaviour_logp, mask)
  )
  gaps = np.abs(old_logp - behaviour_logp)[mask]
  assert_close(found["mismatch_mean"], gaps.mean())
  assert_close(found["mismatch_max"], gaps.max())
  # Ours is clipped at each token, which verl's is not.
  x = (old_logp - behaviour_logp)[mask]
  assert_close(found["mismatch_k3_kl"], np.minimum(np.expm1(x) - x, 10.0).mean())
  if np.abs(x).max() < 2.0:
    assert_close(found["mismatch_k3_kl"], case["expected"]["metrics"]["k3_kl"])


TRL_WEIGHTED = [
  case
  for case in GOLDEN["importance_correction_trl"]
  # The sampler gives every token a log-prob; log ratios beyond 20 are not clipped in TRL.
  if case["kind"] not in ("unknown_sampling_logp", "huge_gap")
]


@pytest.mark.long
@pytest.mark.parametrize("case", TRL_WEIGHTED)
def test_importance_weights_are_those_of_trl(case):
  options, expected = case["options"], case["expected"]
  mask = np.array(case["mask"]) != 0
  rule = {
    "rollout_correction": options["mode"],
    "correction_min": float(options["ratio_min"] or 0),
    "correction_max": float(options["ratio_max"] or np.inf),
  }
  old_logp, rollout_logp = (np.array(case[name]) for name in ("old_logp", "rollout_logp"))
  weights = rollout_correction.importance_weights(old_logp, rollout_logp, mask, **rule)
  ratio = np.broadcast_to(expected["ratio"], mask.shape)
  assert_close(np.asarray(weights)[mask], ratio[mask], err_msg="ratio")
  loss, _, grad = compute(
    case,
    behaviour_logp=case["rollout_logp"],
    dual_clip=np.inf,
    **{name: float(options[name]) for name in ("clip_low", "clip_high")},
    **rule,
  )
  assert_close(loss, expected["loss"], err_msg="loss")
  assert_close(grad, expected["grad"], err_msg="grad")


def test_without_tokens_nothing_mismatches():
  nan = np.full((2, 3), np.nan)
  found = rollout_correction.mismatch(rollout_correction.mismatch_parts(nan, nan, np.zeros((2, 3))))
  assert {name: float(x) for name, x in found.items()} == {
    "mismatch_mean": 0.0,
    "mismatch_max": 0.0,
    "mismatch_k3_kl": 0.0,
    "mismatch_ess": 1.0,
  }
