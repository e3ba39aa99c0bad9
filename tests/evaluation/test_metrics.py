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


def test_pass_at_k_is_the_share_of_sets_of_k_samples_that_hold_a_right_one():
  rng = np.random.default_rng(0)
  correct = rng.integers(0, 2, (20, 6)).astype(bool)
  for k in range(1, 7):
    sets = list(itertools.combinations(range(6), k))
    expected = [np.mean([row[list(chosen)].any() for chosen in sets]) for row in correct]
    np.testing.assert_allclose(metrics.pass_at_k(correct, k), expected, atol=1e-15)
  for k in (0, 7):
    with pytest.raises(ValueError, match=f"pass@{k} cannot be estimated from 6 samples"):
      metrics.pass_at_k(correct, k)


def test_an_interval_is_that_of_all_draws():
  """Of three units there are 27 ordered draws; its ends are quantiles of their means."""
  values = np.array([0.0, 0.0, 1.0])
  draws = [np.mean(values[list(draw)]) for draw in itertools.product(range(3), repeat=3)]
  found = metrics.bootstrap(lambda w: metrics.mean(w, values), 3, draws=20_000, level=0.6)
  assert found.value == pytest.approx(1 / 3)
  # 8/27 of the draws are 0 and 7/27 are at least 2/3, so the quantiles are at no edge.
  assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.2, 0.8])))


def test_an_interval_of_many_units_is_about_twice_the_standard_error():
  values = np.random.default_rng(3).normal(size=400)
  found = metrics.bootstrap(lambda w: metrics.mean(w, values), 400)
  assert found.value == pytest.approx(values.mean())
  # 2,000 draws place the ends to about 3% of the width.
  width = 2 * 1.96 * Estimate.of(values).error
  assert found.high - found.low == pytest.approx(width, rel=0.1)


def test_units_of_several_values_are_drawn_whole_and_a_ratio_may_be_undefined():
  sums, sizes = np.array([2.0, 0.0]), np.array([2, 1])
  found = metrics.bootstrap(lambda w: metrics.mean(w, sums, sizes), 2)
  assert found == (pytest.approx(2 / 3), 0.0, 1.0)
  nothing = metrics.bootstrap(lambda w: metrics.mean(w, sums, np.zeros(2)), 2)
  assert all(math.isinf(x) or math.isnan(x) for x in nothing)
  with pytest.raises(ValueError, match="0 problems"):
    metrics.bootstrap(lambda w: metrics.mean(w, sums), 0)
