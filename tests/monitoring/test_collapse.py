"""The collapse score, and the step from which labels are wrong more often."""

import math

import numpy as np
import pytest

from sejax.monitoring.collapse import collapse_score, falls_from


def test_the_score_is_its_formula():
  metrics = {"majority_share": 0.8, "sampled_entropy": 0.5, "agreement": 0.6, "judge_mean": 0.3}
  assert collapse_score(metrics) == pytest.approx(0.8 * math.exp(-0.5) * (1 - 0.45))
  del metrics["judge_mean"]  # No verdict is valid.
  assert collapse_score(metrics) == pytest.approx(0.8 * math.exp(-0.5))


def test_its_ends():
  one_opinion = {"majority_share": 1.0, "sampled_entropy": 0.0}
  assert collapse_score(one_opinion) == 1
  assert collapse_score(one_opinion | {"agreement": 0.0, "judge_mean": 0.0}) == 1
  assert collapse_score(one_opinion | {"agreement": 1.0, "judge_mean": 1.0}) == 0
  assert collapse_score({"majority_share": 0.1, "sampled_entropy": 3.0}) < 0.01


def test_where_labels_begin_to_be_wrong():
  rises = [0.5 + 0.01 * n for n in range(10)]
  falls = [0.6 - 0.02 * n for n in range(10)]
  many, few = [10_000] * 20, [10] * 20
  assert falls_from(range(10), rises, many[:10]) is None
  assert falls_from(range(20), rises + falls, many) == 10
  assert falls_from(range(20), rises + falls, few) is None  # It may be chance.
  assert falls_from(range(0, 40, 2), rises + falls, many) == 20
  assert falls_from(range(10), falls, many[:10]) == 2
  assert falls_from(range(4), falls[:4], many[:4]) is None
  assert falls_from([], [], []) is None
  rounded_up = [1 + 1e-7] * 6 + [0.0] * 6
  assert falls_from(range(12), rounded_up, many[:12]) == 3


def test_a_fall_after_level_accuracy_begins_at_its_end():
  """By chance the highest window is anywhere before."""
  level = np.concatenate([np.full(60, 0.8), np.full(60, 0.4)])
  found = []
  for seed in range(20):
    right = np.random.default_rng(seed).binomial(40, level) / 40
    found.append(falls_from(range(120), right, [40] * 120))
  assert min(found) >= 45
  assert max(found) <= 62


@pytest.mark.parametrize(("steps", "labels"), [(18, 32), (60, 32), (60, 512), (300, 512)])
def test_chance_is_no_fall(steps, labels):
  rng = np.random.default_rng(0)
  curves = [np.full(steps, 0.6), np.linspace(0.5, 0.6, steps)] * 50
  found = [
    falls_from(range(steps), rng.binomial(labels, p) / labels, [labels] * steps) for p in curves
  ]
  assert sum(step is not None for step in found) <= 2
