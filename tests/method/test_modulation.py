"""The Judge's factor: its shape, its bounds, and verdicts that cannot be used."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sejax.method import modulation

OPTIONS = {
  "lam_pos": 0.2,
  "lam_neg": 0.2,
  "t_h": 0.95,
  "t_l": 0.40,
  "tau_h": 0.02,
  "tau_l": 0.05,
  "g_min": 0.8,
  "g_max": 1.2,
  "invalid_verdict": "neutral",
}


def factor(scores, valid=None, **options):
  scores = jnp.asarray(scores, jnp.float32)[None]
  valid = jnp.ones_like(scores, bool) if valid is None else jnp.asarray([valid])
  return modulation.modulation_factor(scores, valid, **(OPTIONS | options))[0]


def sigmoid(x):
  return 1 / (1 + math.exp(-x))


def test_worked_scores():
  np.testing.assert_allclose(
    factor([0.0, 0.4, 0.7, 0.95, 1.0]),
    [
      1 - 0.2 * sigmoid(8),
      0.9,
      1 - 0.2 * sigmoid(-6) + 0.2 * sigmoid(-12.5),
      1.1 - 0.2 * sigmoid(-11),
      1 + 0.2 * sigmoid(2.5) - 0.2 * sigmoid(-12),
    ],
    rtol=1e-6,
  )


def test_bounds_bite_where_they_are_tighter_than_the_sigmoids():
  np.testing.assert_allclose(factor([0.0, 1.0], g_min=0.9, g_max=1.1), [0.9, 1.1], rtol=1e-6)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 1e38, 1.001, -0.001])
def test_a_score_that_is_none_is_invalid_whatever_the_mask_says(score):
  scores = [score, 0.5, 1.0]
  neutral = factor(scores)
  assert neutral[0] == 1.0
  np.testing.assert_array_equal(neutral[1:], factor([0.5, 1.0]))
  zero = factor(scores, invalid_verdict="zero")
  np.testing.assert_array_equal(zero, factor([0.0, 0.5, 1.0]))


def test_a_masked_verdict_is_invalid_whatever_its_score():
  valid = [False, True]
  np.testing.assert_array_equal(factor([1.0, 1.0], valid), [1.0, factor([1.0])[0]])
  np.testing.assert_array_equal(
    factor([1.0, 1.0], valid, invalid_verdict="zero"), factor([0.0, 1.0])
  )


@pytest.mark.parametrize("invalid_verdict", modulation.INVALID_VERDICTS)
def test_an_invalid_score_reaches_no_gradient(invalid_verdict):
  scores = jnp.array([math.nan, math.inf, 0.9, 0.5])
  valid = [True, True, False, True]
  grad = jax.grad(lambda s: factor(s, valid, invalid_verdict=invalid_verdict).sum())(scores)
  np.testing.assert_array_equal(grad[:3], 0.0)
  assert np.isfinite(grad[3])
  assert grad[3] > 0.0


@pytest.mark.parametrize(
  ("option", "value", "message"),
  [
    ("invalid_verdict", "drop", "invalid_verdict='drop' must be one of zero, neutral"),
    ("tau_h", 0.0, "tau_h=0.0 must be a number in"),
    ("lam_neg", -0.2, "lam_neg=-0.2"),
    ("g_max", 0.7, r"g_max=0.7 must be a number in \[0.8, 1e\+06\]"),
  ],
)
def test_bad_options_are_named(option, value, message):
  with pytest.raises(ValueError, match=message):
    factor([0.5], **{option: value})
