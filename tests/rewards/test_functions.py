"""Rewards by the method, by the baselines, and by functions of one's own."""

import functools
import re
import sys
import traceback

import jax.numpy as jnp
import numpy as np
import pytest

from sejax import config as config_lib
from sejax import main, method, rewards, train
from tests.data.problems import Problems
from tests.subprocesses import ROOT

SOURCE = Problems(3)  # of which the answer is the index plus 1


def make_evidence(**changes):
  fields = {
    "index": np.array([0, 2, -1]),
    "questions": ("a", "b", ""),
    "texts": [["x", "y"]] * 3,
    "answers": [["1", "2"], ["3.0", None], [None, None]],
    "answer_ids": np.array([[0, 1], [0, -1], [-1, -1]], np.int32),
    "format_ok": np.array([[True, True], [True, False], [False, False]]),
    "judge_scores": np.array([[0.9, 0.25], [0.5, 0.75], [0.0, 0.0]], np.float32),
    "judge_valid": np.array([[True, True], [False, True], [False, False]]),
  }
  return rewards.Evidence(**fields | changes)


def of_one_third(evidence, source):
  assert source is SOURCE
  return np.full(evidence.answer_ids.shape, 0.25)


def too_large(evidence, source):
  return np.full(evidence.answer_ids.shape, 1.5)


def of_wrong_shape(evidence, source):
  return np.zeros(2)


NO_FUNCTION = 3


def test_without_a_function_the_method_rewards():
  evidence, options = make_evidence(), config_lib.default().method
  group = rewards.reward_groups(evidence, SOURCE, options, rewards.find("", None))
  expected = method.group(
    evidence.answer_ids,
    evidence.format_ok,
    evidence.judge_scores,
    evidence.judge_valid,
    **options,
  )
  for name, value in expected._asdict().items():
    assert np.array_equal(getattr(group, name), value), name


def test_the_baselines(prover):
  evidence = make_evidence()
  assert rewards.supervised(evidence, SOURCE, prover).tolist() == [[1, 0], [1, 0], [0, 0]]
  assert rewards.control(evidence, SOURCE).tolist() == [[1, 1], [1, 1], [1, 1]]
  scores = rewards.judge_only(evidence, SOURCE)
  assert scores.tolist() == [[pytest.approx(0.9), 0.25], [0, 0.75], [0, 0]]


def test_a_function_is_penalized_and_centred_like_the_method():
  function = rewards.find("tests.rewards.test_functions.of_one_third", None)
  options = config_lib.default().method
  group = rewards.reward_groups(make_evidence(), SOURCE, options, function)
  assert np.asarray(group.reward).tolist() == [[0.25, 0.25], [0.25, 0.0], [0.0, 0.0]]
  assert np.asarray(group.advantage).tolist() == [[0, 0], [0.125, -0.125], [0, 0]]
  assert np.asarray(group.factor).tolist() == [[1, 1]] * 3


def two_rewards(evidence, source):
  base = np.full(evidence.answer_ids.shape, 0.5)
  return np.stack([base, evidence.judge_scores])


def test_a_function_may_return_several_rewards():
  function = rewards.find("tests.rewards.test_functions.two_rewards", None)
  options = config_lib.default().method.to_dict() | {"reward_weights": (1.0, 3.0)}
  group = rewards.reward_groups(make_evidence(), SOURCE, options, function)
  # (0.5 + 3 score) / 4; the penalty of a broken format leaves 0 and 0.25 in the second group.
  expected = [[0.8, 0.3125], [0.5, 0.1875], [0.0, 0.0]]
  np.testing.assert_allclose(group.reward, expected, rtol=1e-6)
  lengths = np.array([[4, 4], [4, 4], [0, 0]], np.int32)
  options["advantage"] = "gdpo"
  group = rewards.reward_groups(make_evidence(lengths=lengths), SOURCE, options, function)
  # Standardized, only the judge's scores differ in the first group, by 3 / sqrt(2); in the second
  # both rewards do, by 4 / sqrt(2).
  expected = np.array([[3, -3], [4, -4], [0, 0]]) / np.sqrt(2)
  np.testing.assert_allclose(group.advantage, expected, rtol=1e-4)


def own_advantages(evidence, source):
  base = np.full(evidence.answer_ids.shape, 0.25)
  return rewards.OwnAdvantages(base, 3 * base - 5)


def test_a_function_may_return_advantages_of_its_own():
  options = config_lib.default().method.to_dict()
  group = rewards.reward_groups(make_evidence(), SOURCE, options, own_advantages)
  assert np.asarray(group.reward).tolist() == [[0.25, 0.25], [0.25, 0.0], [0.0, 0.0]]
  assert np.asarray(group.advantage).tolist() == [[-4.25, -4.25]] * 3
  with pytest.raises(ValueError, match=r"advantage='gdpo' must be another one: .*own_advantages"):
    rewards.reward_groups(make_evidence(), SOURCE, options | {"advantage": "gdpo"}, own_advantages)
  names = "tests.rewards.test_functions.of_one_third, tests.rewards.test_functions.own_advantages"
  with pytest.raises(rewards.CannotReward, match=r"own_advantages has advantages of its own; name"):
    rewards.reward_groups(make_evidence(), SOURCE, options, rewards.find(names, None))


@rewards.unbounded
def far(evidence, source, *, scale=1.0, power):
  return np.full(evidence.answer_ids.shape, -scale * 10.0**power)


def test_unbounded_rewards_and_options():
  name, options = "tests.rewards.test_functions.far", config_lib.default().method.to_dict()
  function = rewards.find(name, None, {"power": 1, "scale": 0.5})
  group = rewards.reward_groups(make_evidence(), SOURCE, options, function)
  # A broken format costs 0.5, and nothing is clipped.
  assert np.asarray(group.reward).tolist() == [[-5, -5], [-5, -5.5], [-5.5, -5.5]]
  too_far = rewards.find(name, None, {"power": 300})
  with pytest.raises(ValueError, match=r"returned -1e\+300 for trajectory 0 .*finite"):
    rewards.reward_groups(make_evidence(), SOURCE, options, too_far)
  assert rewards.options_of(far) == {"scale": 1.0, "power": None}
  for names, known in ((name, "power, scale"), (f"{name},sejax.rewards.control", "power, scale")):
    with pytest.raises(ValueError, match=rf"options has 'size', which no reward .* are: {known}"):
      rewards.find(names, None, {"size": 3})
  with pytest.raises(ValueError, match=r"options has 'size', which no reward .* are: none"):
    rewards.find("", None, {"size": 3})


def test_several_functions_are_several_rewards():
  prefix = "tests.rewards.test_functions"
  function = rewards.find(f"{prefix}.of_one_third, {prefix}.two_rewards", None)
  options = config_lib.default().method.to_dict() | {"reward_weights": (0.0, 0.0, 1.0)}
  group = rewards.reward_groups(make_evidence(), SOURCE, options, function)
  np.testing.assert_allclose(group.reward[0], [0.9, 0.25], rtol=1e-6)
  assert not rewards.is_marked(function, "unbounded")
  assert rewards.is_marked(rewards.find(f"{prefix}.two_rewards,{prefix}.far", None), "unbounded")
  gold = rewards.find("sejax.rewards.control,sejax.rewards.supervised", None)
  assert rewards.is_marked(gold, "needs_gold")
  with pytest.raises(ValueError, match=r"the reward function tests.*too_large returned 1\.5"):
    reward(rewards.find(f"{prefix}.of_one_third,{prefix}.too_large", None))


def test_a_function_is_tried_on_an_empty_row():
  seen = []

  def keep(evidence, source):
    seen.append(evidence)
    return evidence.self_certainty

  options = config_lib.default().method.to_dict()
  evidence = rewards.of_padding(4, 2, teacher=True)
  rewards.reward_groups(evidence, SOURCE, options, keep, max_tokens=8)
  (row,) = seen
  assert row.answer_ids.tolist() == [[-1] * 4]
  assert row.verdicts.shape == (1, 4, 2)
  assert row.teacher_ids.tolist() == [[-1] * 4]
  assert row.view_ids is None
  with pytest.raises(rewards.RewardFunctionError, match="fails raised ValueError"):
    rewards.reward_groups(evidence, SOURCE, options, fails, max_tokens=8)


def test_overlong_trajectories_are_punished():
  options = config_lib.default().method.to_dict() | {"overlong_buffer": 4, "overlong_factor": 0.5}
  evidence = make_evidence(lengths=np.array([[4, 7], [8, 6], [0, 0]], np.int32))
  group = rewards.reward_groups(evidence, SOURCE, options, of_one_third, max_tokens=8)
  # 0.25, or 0 where the format is broken, less half of (n - 4) / 4.
  expected = [[0.25, 0.25 - 0.375], [0.25 - 0.5, -0.25], [0.0, 0.0]]
  np.testing.assert_allclose(group.reward, expected, rtol=1e-6)
  with pytest.raises(ValueError, match="overlong_buffer=4 must be 0 where the trajectories' leng"):
    rewards.reward_groups(make_evidence(), SOURCE, options, of_one_third)


def test_supervision_grades_as_metrics_do_by_the_runs_prover(prover):
  evidence = make_evidence(answers=[[r"\cos(0)", "2"], ["3", r"\log_2 8"], [None, None]])
  supervised = rewards.find("sejax.rewards.supervised", prover)
  assert supervised(evidence, SOURCE).tolist() == [[1, 0], [1, 1], [0, 0]]
  options = config_lib.default().method
  group = rewards.reward_groups(evidence, SOURCE, options, supervised)
  assert np.asarray(group.reward).tolist() == [[1, 0], [1, 0.5], [0, 0]]


def test_supervision_needs_gold_answers():
  class Unlabelled(Problems):
    def gold(self, index):
      return None

  with pytest.raises(ValueError, match="record 0 of problems has no gold answer"):
    rewards.supervised(make_evidence(), Unlabelled(3), None)


@pytest.mark.parametrize(
  "name",
  [
    "nothing",
    "no.such.module",
    "tests.rewards.test_functions.absent",
    "tests.rewards.test_functions.too_large.absent",
    ".absent.function",
    "tests..function",
    "tests/rewards/test_functions.py",
    "tests.rewards.test_functions.",
  ],
)
def test_a_name_without_a_function_is_refused(name):
  with pytest.raises(ValueError, match="is not a function"):
    rewards.find(name, None)
  with pytest.raises(ValueError, match="is not a function"):
    rewards.find("tests.rewards.test_functions.NO_FUNCTION", None)


def reward(function):
  return rewards.reward_groups(make_evidence(), SOURCE, config_lib.default().method, function)


@pytest.mark.parametrize(
  ("function", "said"),
  [
    (of_wrong_shape, r"; it must be of shape \(3, 2\) or \(K, 3, 2\)$"),
    (too_large, r"; it must be in \[0, 1\], unless the function is rewards\.unbounded$"),
  ],
)
def test_rewards_of_another_shape_or_range_are_refused(function, said):
  with pytest.raises(ValueError, match=said):
    reward(function)


@pytest.mark.parametrize(
  ("returned", "said"),
  [
    (None, "returned None"),
    (0.5, "returned 0.5"),
    ([0.5] * 3, r"returned an array of shape \(3,\)"),
    ([[0.5], [0.5, 0.5], [0.5]], "returned list, which is not an array"),
    (np.zeros((0, 2)), r"returned an array of shape \(0, 2\)"),
    (np.zeros((2, 3)), r"returned an array of shape \(2, 3\)"),
    ([["a", "b"]] * 3, "returned an array of type <U1"),
    ([[0.5, None]] * 3, "returned an array of type object"),
    (np.zeros((3, 2), complex), "returned an array of type complex128"),
    ([[1, 0.5], [0, np.nan], [1, 1]], "returned nan for trajectory 1 of group 1"),
    ([[1, 0.5], [0, 0.5], [np.inf, 1]], "returned inf for trajectory 0 of group 2"),
    ([[1, -1e-9], [0, 0], [0, 0]], "returned -1e-09 for trajectory 1 of group 0"),
    ({"rewards": 1}, "returned {'rewards': 1}"),
  ],
)
def test_what_may_not_be_returned(returned, said):
  def give(evidence, source):
    return returned

  with pytest.raises(
    ValueError, match=f"^the reward function tests.rewards.test_functions.*give {said}"
  ) as it:
    reward(give)
  assert len(str(it.value)) <= 300
  assert "\n" not in str(it.value)


@pytest.mark.parametrize(
  "returned", [[[1, 0]] * 3, [[True, False]] * 3, jnp.array([[1, 0]] * 3, jnp.bfloat16)]
)
def test_numbers_of_any_type_are_rewards(returned):
  group = reward(lambda evidence, source: returned)
  assert np.asarray(group.reward).tolist() == [[1, 0], [1, 0], [0.5, 0]]


def test_the_page_on_rewards_lists_all_that_is_known():
  text = (ROOT / "experiments" / "recipes" / "README.md").read_text(encoding="utf-8")
  table = text.partition("### Evidence\n")[2].partition("\n## ")[0]
  names = [row.split("|")[1] for row in table.strip().splitlines()[2:]]
  assert re.findall(r"`(\w+)`", " ".join(names)) == [*rewards.Evidence._fields]


class Counting:
  """A function that is an object."""

  def __call__(self, evidence, source):
    return int("seven")


def fails(evidence, source):
  return int("seven")


def line_of(function):
  """Returns the line of the first statement of a function of one statement."""
  return function.__code__.co_firstlineno + 1


@pytest.mark.parametrize(
  ("function", "name", "line"),
  [
    (fails, "fails", line_of(fails)),
    (functools.partial(fails), "fails", line_of(fails)),
    (Counting(), "Counting", line_of(Counting.__call__)),
  ],
)
def test_what_a_function_raises_keeps_its_traceback(function, name, line):
  with pytest.raises(rewards.RewardFunctionError) as raised:
    reward(function)
  assert str(raised.value) == (
    f"the reward function tests.rewards.test_functions.{name} raised ValueError: invalid literal"
    f" for int() with base 10: 'seven' (test_functions.py, line {line})"
  )
  assert 'return int("seven")' in "".join(traceback.format_exception(raised.value))


def test_the_command_shows_the_traceback(monkeypatch, capfd, tmp_path):
  """A ValueError in a function is not a mistake in the configuration."""
  monkeypatch.setattr(train, "run", lambda *_: reward(fails))
  config = ROOT / "configs" / "tiny.py"
  monkeypatch.setattr(sys, "argv", ["sejax", f"--config={config}", f"--workdir={tmp_path / 'out'}"])
  with pytest.raises(SystemExit) as left:
    main.command()
  assert left.value.code == 1
  error = capfd.readouterr().err
  assert 'return int("seven")' in error
  assert "the reward function tests.rewards.test_functions.fails raised ValueError" in error


def test_a_function_may_end_a_run_in_one_line():
  def refuse(evidence, source):
    raise rewards.CannotReward("no ruler in the picture")

  with pytest.raises(rewards.CannotReward, match=r"^no ruler in the picture$"):
    reward(refuse)


@pytest.mark.parametrize(
  "line", ["1 / 0", "raise ValueError('no key')", "import no_such_package", "def f(:"]
)
def test_a_module_with_a_fault_keeps_its_traceback(line, tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(str(tmp_path))
  name = f"mine_{abs(hash(line))}"
  (tmp_path / f"{name}.py").write_text(f"{line}\n")
  with pytest.raises(rewards.RewardFunctionError, match=f"the module {name} raised") as raised:
    rewards.find(f"{name}.function", None)
  assert line in "".join(traceback.format_exception(raised.value))
