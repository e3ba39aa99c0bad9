"""Rewards of the recipes against the published code's outputs, and where they differ on purpose."""

import math

import ml_collections
import numpy as np
import pytest

from sejax import config as config_lib
from sejax import rewards
from sejax.config import presets
from sejax.rewards import recipes
from sejax.rewards.recipes import (
  co_teacher,
  co_view,
  cocov,
  empo,
  evolmm,
  multi,
  self_certainty,
  ttrv,
  votes,
)
from tests.golden import load

GOLDEN = load("objectives.json")["group_rewards"]
NAMES = [name for name in recipes.RECIPES if name not in ("supervised", "log_q", "released")]


def ids_of(answers):
  """Returns the ids `[1,G]` of a group of texts, of which the empty one is no answer."""
  numbers = {answer: number for number, answer in enumerate(dict.fromkeys(answers))}
  return np.array([[-1 if answer == "" else numbers[answer] for answer in answers]], np.int32)


def evidence_of(answer_ids, **changes):
  ids = np.asarray(answer_ids, np.int32)
  fields = {
    "index": np.arange(len(ids)),
    "questions": [""] * len(ids),
    "texts": [[""] * ids.shape[1]] * len(ids),
    "answers": [[None if i < 0 else str(i) for i in row] for row in ids.tolist()],
    "answer_ids": ids,
    "format_ok": ids >= 0,
    "judge_scores": np.zeros(ids.shape, np.float32),
    "judge_valid": np.zeros(ids.shape, bool),
    "lengths": np.ones(ids.shape, np.int32),
    "self_certainty": np.ones(ids.shape, np.float32),
    "view_ids": ids,
    "teacher_ids": ids,
  }
  return rewards.Evidence(**fields | changes)


@pytest.mark.parametrize("case", GOLDEN["answers"])
def test_empo(case):
  ids, expected = ids_of(case["answers"]), case["expected"]["empo"]
  abstains, n = ids < 0, ids.shape[1]
  share = np.where(abstains, 0, expected["verl"])  # There an abstention earns 1/n.
  np.testing.assert_allclose(empo.reward(evidence_of(ids), None), share, rtol=1e-6)
  found = empo.reward(evidence_of(ids), None, high=math.log(n))
  np.testing.assert_allclose(found, [expected["trl_math"]], rtol=1e-6)


def test_empo_outside_of_its_band_rewards_nothing():
  evidence = evidence_of([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1], [0, 1, -1, -1]])
  found = empo.reward(evidence, None, low=0.1, high=0.69)
  # Entropies of 0, 0.56, 0.69 and, as abstentions are alone, 1.39 nats.
  assert found.tolist() == [[0] * 4, [0.75, 0.75, 0.75, 0.25], [0] * 4, [0] * 4]
  with pytest.raises(rewards.CannotReward, match=r"options\.low=1\.0 must be below high=0\.5"):
    empo.reward(evidence, None, low=1.0, high=0.5)


@pytest.mark.parametrize("case", GOLDEN["answers"])
def test_ttrv(case):
  ids, expected = ids_of(case["answers"]), np.array(case["expected"]["ttrv"]["reward"])
  # There all abstentions are one answer, and have its share.
  expected = expected - np.where(ids < 0, (ids < 0).mean(), 0)
  np.testing.assert_allclose(ttrv.reward(evidence_of(ids), None), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", GOLDEN["answers"])
def test_evolmm(case):
  ids, options = ids_of(case["answers"]), case["evolmm_options"]
  found = evolmm.of_counts(
    votes.counts(ids),
    np.array([case["words_before_answer"]]),
    power=options["gamma"],
    length_weight=options["length_weight"],
    target_words=options["target_words"],
  )
  expected = np.where(ids < 0, 0, case["expected"]["evolmm"]["solver_reward"])
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_evolmm_counts_the_words_before_the_last_box():
  texts = [[r"<think>a b</think> so \boxed{1} or \boxed{2 3} ends", "no box here", ""]]
  ids = np.array([[0, -1, 0]])
  found = evolmm.reward(evidence_of(ids, texts=texts), None, power=1.0, target_words=3)
  # Five words, two more than three, cost two thirds of a tenth.
  np.testing.assert_allclose(found, [[2 / 3 * (1 - 0.1 * 2 / 3), 0, 2 / 3]])
  for option, value in {"power": 0.0, "length_weight": 1.5, "target_words": 0}.items():
    with pytest.raises(rewards.CannotReward, match=f"options.{option}={value} must be"):
      evolmm.reward(evidence_of(ids, texts=texts), None, **{option: value})


@pytest.mark.parametrize("case", GOLDEN["co_rewarding"])
def test_co_rewarding(case):
  answers, others, expected = case["answers"], case["other_answers"], case["expected"]
  both = ids_of([*answers, *others])
  ids, other_ids = both[:, : len(answers)], both[:, len(answers) :]
  own = co_view.reward(evidence_of(ids, view_ids=other_ids), None)
  np.testing.assert_array_equal(own, [expected["I_original"]])
  other = co_view.reward(evidence_of(other_ids, view_ids=ids), None)
  np.testing.assert_array_equal(other, [expected["I_rephrased"]])
  taught = co_teacher.reward(evidence_of(ids, teacher_ids=other_ids), None)
  labels = expected["II_policy"]
  if labels == "error: division by zero":  # There, where the teacher has no answer.
    labels = [0] * len(answers)
  np.testing.assert_array_equal(taught, [labels])


@pytest.mark.parametrize("case", GOLDEN["cocov"])
def test_cocov(case):
  options, expected = case["options"], case["expected"]
  correct, lengths = np.array([case["correct"]], bool), np.array([case["lengths"]])
  plain = cocov.pass_at_k(correct[0], options["k"])
  np.testing.assert_allclose(plain, expected["pass_at_k"], rtol=1e-6, atol=1e-9)
  found = cocov.diverse_pass_at_k(
    correct,
    lengths,
    np.array([expected["consistency"] > options["div_sc_threshold"]]),
    k=options["k"],
    diversity=options["lam_div"],
    most_unusual=options["c_max"],
  )
  np.testing.assert_allclose(found, [expected["pass_at_k_diverse"]], rtol=1e-5, atol=1e-6)

  # Here the verdicts on an answer are those on all that have it: all on the first one of them.
  answers = case["answers"]
  ids = ids_of(answers)
  accepted, asked = np.zeros_like(ids), np.zeros_like(ids)
  for (answer, _), verdicts in zip(expected["candidates"], case["verdicts"], strict=True):
    first = answers.index(answer)
    accepted[0, first], asked[0, first] = verdicts.count("true"), len(verdicts)
  (label,) = cocov.choose_labels(
    ids, accepted, asked, low=options["low"], max_candidates=options["max_candidates"]
  )
  assert expected["label"] != "", "an abstention is a label; this case is to be left out"
  assert label == ids[0, answers.index(expected["label"])]


def test_cocov_by_the_judge():
  """Verdicts on all trajectories with an answer count; unreadable ones accept nothing."""
  nan = np.nan
  ids = [[0, 0, 1, 1, 2, -1, 3, 4], [0, 0, 0, 0, 0, 0, 1, 1], [-1] * 8]
  scores = np.array([[0.2, 0.9, 0.8, 0.7, 1.0, 1.0, nan, 0.4], [0.0] * 8, [nan] * 8])
  evidence = evidence_of(ids, verdicts=scores[..., None], lengths=np.arange(24).reshape(3, 8))
  found = cocov.reward(evidence, None)
  # Of 0 one of two is accepted, which is not more than half, of 1 both, and of 2 the only one.
  assert found.rewards.tolist() == [[0, 0, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0, 0], [0] * 8]
  right, wrong = found.advantages[0, 2], found.advantages[0, 0]
  fails = math.comb(6, 4) / math.comb(8, 4)
  sd = math.sqrt(fails * (1 - fails))
  assert right == pytest.approx(fails / sd)
  assert wrong == pytest.approx((fails - math.comb(5, 3) / math.comb(7, 3)) / sd)
  assert (found.advantages[1, :6] >= cocov.pass_at_k(np.arange(8) < 6, 4)[0]).all()
  assert not found.advantages[2].any()
  with pytest.raises(rewards.CannotReward, match="cocov needs the Judge"):
    cocov.reward(evidence._replace(verdicts=None), None)
  with pytest.raises(rewards.CannotReward, match=r"options\.k=9 must be in \[1, group_size=8\]"):
    cocov.reward(evidence, None, k=9)


SELF_CERTAINTY = [
  case for case in load("objectives.json")["self_certainty"] if "advantage" in case["expected"]
]


@pytest.mark.parametrize("case", SELF_CERTAINTY)
def test_self_certainty_with_the_advantage_of_grpo(case):
  expected = case["expected"]
  groups, sequence = np.array(case["groups"]), np.array(expected["sequence_verl"])
  for group in set(case["groups"]):
    row = sequence[groups == group][None].astype(np.float32)
    options = config_lib.default().method.to_dict() | {"advantage": "standardized"}
    evidence = evidence_of(np.zeros(row.shape), self_certainty=row)
    found = rewards.reward_groups(evidence, None, options, self_certainty.reward)
    wanted = np.array(expected["advantage"])[groups == group]
    np.testing.assert_allclose(found.advantage[0], wanted, rtol=2e-4, atol=2e-4)


def test_multi_standardizes_each_reward():
  evidence = evidence_of(
    [[0, 0, 1, -1]],
    verdicts=np.zeros((1, 4, 1)),
    self_certainty=np.array([[10.0, 12, 14, 16]], np.float32),
    judge_scores=np.array([[1.0, 0.5, 0, 0]], np.float32),
    judge_valid=np.array([[True, True, False, False]]),
  )
  share = np.array([2, 2, 1, 0]) / 4
  parts = [
    (share - share.mean()) / share.std(ddof=1),
    np.array([-3, -1, 1, 3]) / np.std([10, 12, 14, 16], ddof=1),
    np.array([0.25, -0.25, 0, 0]) / np.std([1, 0.5], ddof=1),
  ]
  np.testing.assert_allclose(multi.reward(evidence, None)[0], np.mean(parts, axis=0))
  found = multi.reward(evidence, None, frequency=2.0, self_certainty=0.0, judge=1.0)
  np.testing.assert_allclose(found[0], (2 * parts[0] + parts[2]) / 3)
  # What is equal in a group decides nothing, whatever rounding makes of it.
  equal = evidence._replace(
    answer_ids=np.zeros((1, 4), np.int32),
    self_certainty=np.float32([[1e4, np.nextafter(np.float32(1e4), np.float32(2e4)), 1e4, 1e4]]),
  )
  np.testing.assert_allclose(multi.reward(equal, None)[0], parts[2] / 3)
  with pytest.raises(rewards.CannotReward, match="needs the Judge"):
    multi.reward(evidence._replace(verdicts=None), None)
  for weights in ({"judge": -1.0}, {"frequency": 0.0, "self_certainty": 0.0, "judge": 0.0}):
    with pytest.raises(rewards.CannotReward, match="none may be below 0, and one must be above"):
      multi.reward(evidence, None, **weights)


def configured(name):
  config = config_lib.default()
  presets.apply(config, name)
  return config


def reward_of(name, evidence):
  config = configured(name)
  function = rewards.find(config.rewards.function, None, config.rewards.options.to_dict())
  return rewards.reward_groups(
    evidence, None, config.method.to_dict(), function, judged=config.judge.use, max_tokens=8
  )


@pytest.mark.parametrize("name", NAMES)
def test_abstentions_ties_and_constant_groups(name):
  """Rewards are finite, and a group in which nothing differs has no advantage."""
  rng = np.random.default_rng(0)
  ids = np.array([[-1] * 8, [0] * 8, [0, 1] * 4, range(8), [0, 0, 0, 1, 1, -1, 2, -1]])
  scores = rng.random(ids.shape).astype(np.float32)
  evidence = evidence_of(
    ids,
    judge_scores=scores,
    judge_valid=np.ones(ids.shape, bool),
    verdicts=scores[..., None],
    lengths=rng.integers(1, 8, ids.shape).astype(np.int32),
    self_certainty=rng.random(ids.shape).astype(np.float32),
  )
  found = reward_of(name, evidence)
  assert np.isfinite(found.reward).all()
  assert np.isfinite(found.advantage).all()
  constant = evidence._replace(
    judge_scores=np.full(ids.shape, 0.7, np.float32),
    verdicts=np.full((*ids.shape, 1), 0.7, np.float32),
    lengths=np.ones(ids.shape, np.int32),
    self_certainty=np.full(ids.shape, 3.7, np.float32),
  )
  assert not np.asarray(reward_of(name, constant).advantage)[:2].any()


@pytest.mark.parametrize("name", NAMES)
def test_permuting_a_group_permutes_its_advantages(name):
  rng = np.random.default_rng(1)
  ids = np.array([[-1] * 8, [0] * 8, [0, 0, 0, 1, 1, -1, 2, -1]])  # ties have a first answer
  order = rng.permutation(8)
  scores = rng.random(ids.shape).astype(np.float32)
  arrays = {
    "format_ok": rng.random(ids.shape) < 0.5,
    "judge_scores": scores,
    "judge_valid": rng.random(ids.shape) < 0.7,
    "verdicts": scores[..., None],
    "lengths": rng.integers(1, 8, ids.shape).astype(np.int32),
    "self_certainty": rng.random(ids.shape).astype(np.float32),
    "view_ids": np.where(ids == 0, 1, ids),
    "teacher_ids": np.where(ids == 0, 1, ids),
  }
  evidence = evidence_of(ids, **arrays)
  arrays["answer_ids"] = evidence.answer_ids
  moved = evidence._replace(**{field: value[:, order] for field, value in arrays.items()})
  found, again = (np.asarray(reward_of(name, x).advantage) for x in (evidence, moved))
  np.testing.assert_allclose(again, found[:, order], atol=1e-6)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_options_are_in_the_configuration(name):
  config = configured(name)
  function = rewards.find(config.rewards.function, None, config.rewards.options.to_dict())
  if name in ("majority", "frequency", "log_q", "released", "judge_expected"):
    assert function is None
  elif name in ("judge_only", "supervised", "control"):  # as saved by runs of earlier versions
    assert config.rewards.function == f"sejax.rewards.{name}"
  else:
    options = rewards.options_of(recipes.RECIPES[name].reward)
    assert config.rewards.options.to_dict() == options
  assert isinstance(config.rewards.options, ml_collections.ConfigDict)


def test_an_unknown_recipe_is_named():
  with pytest.raises(ValueError, match="there is no recipe 'majorty'; choose majority, frequency"):
    presets.apply(config_lib.default(), "majorty")
