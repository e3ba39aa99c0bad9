"""Rewards by the method, by the baselines, and by functions of one's own."""

import numpy as np
import pytest

from sejax import config as config_lib
from sejax import method, rewards
from tests.data.problems import Problems

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
  group = rewards.reward_groups(evidence, SOURCE, options, rewards.find(""))
  expected = method.group(*evidence[4:], **options)
  for name, value in expected._asdict().items():
    assert np.array_equal(getattr(group, name), value), name


def test_the_baselines():
  evidence = make_evidence()
  assert rewards.supervised(evidence, SOURCE).tolist() == [[1, 0], [1, 0], [0, 0]]
  assert rewards.control(evidence, SOURCE).tolist() == [[1, 1], [1, 1], [1, 1]]
  scores = rewards.judge_only(evidence, SOURCE)
  assert scores.tolist() == [[pytest.approx(0.9), 0.25], [0, 0.75], [0, 0]]


def test_a_function_is_penalized_and_centred_like_the_method():
  function = rewards.find("tests.test_rewards.of_one_third")
  options = config_lib.default().method
  group = rewards.reward_groups(make_evidence(), SOURCE, options, function)
  assert np.asarray(group.reward).tolist() == [[0.25, 0.25], [0.25, 0.0], [0.0, 0.0]]
  assert np.asarray(group.advantage).tolist() == [[0, 0], [0.125, -0.125], [0, 0]]
  assert np.asarray(group.factor).tolist() == [[1, 1]] * 3


def test_supervision_needs_gold_answers():
  class Unlabelled(Problems):
    def gold(self, index):
      return None

  with pytest.raises(ValueError, match="record 0 of problems has no gold answer"):
    rewards.supervised(make_evidence(), Unlabelled(3))


@pytest.mark.parametrize("name", ["nothing", "no.such.module", "tests.test_rewards.absent"])
def test_a_name_without_a_function_is_refused(name):
  with pytest.raises(ValueError, match="is no function"):
    rewards.find(name)
  with pytest.raises(ValueError, match="is no function"):
    rewards.find("tests.test_rewards.NO_FUNCTION")


@pytest.mark.parametrize("function", [too_large, of_wrong_shape])
def test_rewards_of_another_shape_or_range_are_refused(function):
  with pytest.raises(ValueError, match=r"must be of shape \(3, 2\), in \[0, 1\]"):
    rewards.reward_groups(make_evidence(), SOURCE, config_lib.default().method, function)
