"""The whole chain from votes and verdicts to advantages, and what it refuses."""

import jax
import numpy as np
import pytest

from sejax import method
from sejax.method import groups

AGREED = [[0] * 7 + [1]]  # r is 1 for seven and 0 for the eighth.


def call(answer_ids, format_ok=None, judge_scores=None, judge_valid=None, **options):
  shape = np.shape(answer_ids)
  return method.group(
    answer_ids,
    np.ones(shape, bool) if format_ok is None else format_ok,
    np.full(shape, 0.7) if judge_scores is None else judge_scores,
    np.ones(shape, bool) if judge_valid is None else judge_valid,
    **options,
  )


@pytest.mark.parametrize("advantage", ["centered", "standardized"])
@pytest.mark.parametrize(
  "answer_ids",
  [
    [[-1] * 8],  # No answer can be read.
    [[0, 1] * 4],  # A tie.
    [[0, 1, 2, 3, 4, 5, 6, 7]],  # All differ.
  ],
)
def test_a_group_without_a_label_teaches_nothing(answer_ids, advantage):
  out = call(answer_ids, self_consistency="majority", advantage=advantage)
  np.testing.assert_array_equal(out.reward, 0.0)
  np.testing.assert_array_equal(out.advantage, 0.0)


def test_a_tie_teaches_where_the_first_seen_is_the_label():
  ids = [[0, 1] * 4, [-1, 2, 3, 3, 2, -1, 4, 4]]
  unjudged = np.zeros((2, 8), bool)
  out = call(ids, judge_valid=unjudged, self_consistency="majority", tie="first")
  np.testing.assert_array_equal(out.self_consistency, [[1, 0] * 4, [0, 1, 0, 0, 1, 0, 0, 0]])
  np.testing.assert_allclose(out.advantage[0], [0.5, -0.5] * 4, atol=1e-5)
  with pytest.raises(ValueError, match="tie='second' must be one of none, first"):
    call(AGREED, tie="second")


def test_a_tie_shares_its_reward_under_the_released_rule():
  out = call([[0, 1] * 4])
  np.testing.assert_array_equal(out.self_consistency, 0.5)
  np.testing.assert_array_equal(out.advantage, 0.0)


def test_one_missing_verdict_leaves_the_others_alone():
  scores = [[0.1, 0.5, 0.6, 0.96, 0.97, 0.98, 1.0, 0.3]]
  valid = [[True] * 6 + [False, True]]
  whole, missing = call(AGREED, judge_scores=scores), call(AGREED, None, scores, valid)
  assert missing.factor[0, 6] == 1.0
  others = np.arange(8) != 6
  np.testing.assert_array_equal(missing.reward[:, others], whole.reward[:, others])
  released = call(AGREED, None, scores, valid, invalid_verdict="zero")
  as_zero = call(AGREED, judge_scores=np.array(scores) * valid)
  np.testing.assert_array_equal(released.advantage, as_zero.advantage)


@pytest.mark.parametrize("score", [np.nan, np.inf, 1e309])
def test_without_any_verdict_the_votes_alone_decide(score):
  out = call(AGREED, judge_scores=np.full((1, 8), score))
  np.testing.assert_array_equal(out.factor, 1.0)
  np.testing.assert_array_equal(out.reward, out.self_consistency)
  np.testing.assert_allclose(out.advantage, [[1 / 8] * 7 + [-7 / 8]], rtol=1e-6)


def test_an_unusable_score_poisons_neither_its_group_nor_its_gradient():
  scores = np.array([[np.nan, np.inf, -np.inf, 0.99, 0.2, 0.5, 0.5, 0.5]], np.float32)
  out = call(AGREED, judge_scores=scores, advantage="standardized")
  assert all(np.isfinite(x).all() for x in out)
  grad = jax.grad(lambda s: call(AGREED, None, s, advantage="standardized").advantage[0, 5])(scores)
  np.testing.assert_array_equal(grad[0, :3], 0.0)
  assert np.isfinite(grad).all()
  assert grad[0, 5] > 0.0


def test_the_format_penalty_lowers_but_never_below_zero():
  format_ok = [[False] + [True] * 6 + [False]]
  out = call(AGREED, format_ok, judge_valid=np.zeros((1, 8), bool))
  np.testing.assert_array_equal(out.reward, [[0.5] + [1.0] * 6 + [0.0]])


def test_groups_do_not_see_each_other():
  rng = np.random.default_rng(0)
  ids, scores = rng.integers(-1, 3, (16, 8)), rng.random((16, 8))
  whole = call(ids, judge_scores=scores)
  for b in range(16):
    alone = call(ids[b : b + 1], judge_scores=scores[b : b + 1])
    # Other shapes are vectorised otherwise, which changes last digits.
    np.testing.assert_allclose(whole.advantage[b], alone.advantage[0], rtol=1e-5, atol=1e-6)


def test_lists_host_arrays_and_device_arrays_are_one_input():
  arrays = ([[0, 0, 1]], [[True, False, True]], [[0.5, 0.9, 0.1]], [[True, True, False]])
  from_lists = method.group(*arrays)
  from_host = method.group(*(np.array(x) for x in arrays))
  from_device = method.group(*(jax.numpy.array(x) for x in arrays))
  for x, y, z in zip(from_lists, from_host, from_device, strict=True):
    assert x.dtype == np.float32
    np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(x, z)


def test_one_compilation_for_each_shape_and_set_of_options():
  ids = np.zeros((3, 5), np.int32)
  call(ids)
  before = groups._group._cache_size()
  call(ids + 1)
  call(ids, threshold=0.85, advantage="centered")  # Named, but the same.
  assert groups._group._cache_size() == before
  call(ids, threshold=0.9)
  call(ids[:2])
  assert groups._group._cache_size() == before + 2


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"judge_scores": np.zeros((1, 7))}, r"judge_scores has shape \(1, 7\) but .* \(1, 8\)"),
    ({"format_ok": np.ones(8, bool)}, r"format_ok has shape \(8,\) but .* \(1, 8\)"),
    ({"answer_ids": [0] * 8}, r"answer_ids has shape \(8,\); it must be \[B, G\]"),
    ({"answer_ids": np.zeros((2, 0), int)}, r"answer_ids has shape \(2, 0\); .* G at least 1"),
    ({"answer_ids": [[0.5] * 8]}, "answer_ids must hold integers, not float64"),
    ({"answer_ids": [[2**32] + [0] * 7]}, "answer_ids holds 4294967296, which is not an int32"),
    ({"format_ok": [[-0.5] * 8]}, "format_ok must hold booleans, not float64"),
    ({"judge_scores": [[None] * 8]}, "judge_scores must hold numbers, not object"),
    ({"self_consistency": "vote"}, "self_consistency='vote' must be one of frequency"),
    ({"threshold": 0.3}, "threshold=0.3 must be a number in"),
    ({"format_penalty": 0.5}, r"format_penalty=0.5 must be a number in \[-1e\+06, 0\]"),
    ({"advantage": "mean"}, "advantage='mean' must be one of log_q, centered"),
  ],
)
def test_bad_input_is_named_in_one_line(arguments, message):
  with pytest.raises(ValueError, match=message) as error:
    call(**({"answer_ids": AGREED, "format_ok": np.ones((1, 8), bool)} | arguments))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("option", [{"advantage": ["centered"]}, {"beta": np.array(1.0)}])
def test_options_that_are_no_plain_values_are_named(option):
  (name,) = option
  with pytest.raises(ValueError, match=f"{name}=.* must be a Python number or string"):
    method.group([[0, 0]], [[True, True]], [[0.5, 0.5]], [[True, True]], **option)
