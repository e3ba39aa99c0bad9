"""Estimates over problems, against brute force and worked examples."""

import itertools
import math

import numpy as np
import pytest

from sejax.evaluation import metrics
from sejax.evaluation.metrics import Estimate


def test_an_estimate_is_a_mean_with_the_error_of_the_mean():
  estimate = Estimate.of(np.array([0.0, 1.0, 1.0, 0.0]))
  assert estimate.value == 0.5
  assert estimate.error == pytest.approx(math.sqrt(1 / 3) / 2)
  assert str(estimate) == " 50.0 +- 28.9"
  assert Estimate.of(np.array([0.25])).error == math.inf
  with pytest.raises(ValueError, match="0 problems"):
    Estimate.of(np.zeros(0))


def test_pass_at_1_is_the_share_of_right_samples_per_problem():
  correct = np.array([[True, True, False, False], [False, False, False, True]])
  assert metrics.pass_at_1(correct).tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
  ("ids", "correct", "expected"),
  [
    ([0, 0, 1, 2], [1, 1, 0, 0], 1.0),
    ([0, 1, 1, 2], [1, 0, 0, 0], 0.0),
    ([0, 0, 1, 1], [1, 1, 0, 0], 0.5),
    ([0, 1, 2, 3], [0, 0, 0, 1], 0.25),
    ([-1, -1, -1, 0], [0, 0, 0, 1], 1.0),
    ([-1, -1, -1, -1], [0, 0, 0, 0], 0.0),
  ],
)
def test_the_majority_is_right_as_often_as_its_lot_falls(ids, correct, expected):
  value = metrics.maj_at_n(np.array([ids]), np.array([correct], bool))
  assert value.tolist() == [expected]


def test_auc_counts_pairs_in_which_the_right_answer_has_the_higher_score():
  rng = np.random.default_rng(0)
  scores, right = rng.integers(0, 4, 40) / 4.0, rng.integers(0, 2, 40).astype(bool)
  pairs = list(itertools.product(scores[right], scores[~right]))
  expected = np.mean([(good > bad) + 0.5 * (good == bad) for good, bad in pairs])
  assert metrics.auc(scores, right) == pytest.approx(expected, abs=1e-12)
  assert math.isnan(metrics.auc(scores, np.ones(40, bool)))


def test_the_error_of_auc_is_about_that_of_repeated_experiments():
  rng = np.random.default_rng(1)

  def experiment():
    right = rng.integers(0, 2, (200, 2)).astype(bool)
    return rng.normal(size=(200, 2)) + right, right

  areas = [metrics.auc(s.ravel(), r.ravel()) for s, r in (experiment() for _ in range(300))]
  scores, right = experiment()
  error = metrics.auc_error(scores, right, np.ones_like(right))
  assert error == pytest.approx(np.std(areas), rel=0.3)


def test_unusable_scores_do_not_count():
  scores, right = np.array([[0.9, 0.1], [0.0, 0.2]]), np.array([[True, False], [True, False]])
  assert metrics.auc_error(scores, right, np.array([[True, True], [False, False]])) == 0.0
