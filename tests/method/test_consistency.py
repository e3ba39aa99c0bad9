"""Votes and the four self-consistency rules, by hand-worked groups and by what must not matter."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sejax.method import consistency

OPTIONS = {"threshold": 0.85, "alpha": 1.0, "dirichlet_beta": 22.0, "margin": 0.06}
# What the dirichlet rule gives to the top answer before its confidence; others get about 0.
UNBEATEN = 1 / (1 + math.exp(-22.0 * 0.06))


@functools.partial(jax.jit, static_argnames=("rule", "tie"))
def compiled(answer_ids, rule, tie="none"):
  return consistency.self_consistency(answer_ids, rule=rule, tie=tie, **OPTIONS)


def by_rule(answer_ids, rule):
  return compiled(np.array([answer_ids], np.int32), rule)[0]


@jax.jit
def by_every_rule(answer_ids):
  return jnp.stack(
    [consistency.self_consistency(answer_ids, rule=rule, **OPTIONS) for rule in consistency.RULES]
  )


@pytest.mark.parametrize(
  ("rule", "answer_ids", "expected"),
  [
    ("frequency", [5, 5, 7, -1], [0.5, 0.5, 0.25, 0.0]),
    ("threshold", [5, 5, 7, -1], [0.5, 0.5, 0.25, 0.0]),
    ("threshold", [3] * 7 + [4], [1.0] * 7 + [0.0]),
    ("threshold", [3] * 7 + [-1], [1.0] * 7 + [0.0]),
    ("threshold", [3] * 6 + [-1, -1], [0.75] * 6 + [0.0, 0.0]),
    ("majority", [5, 5, 7, -1], [1.0, 1.0, 0.0, 0.0]),
    ("majority", [5, 5, 7, 7], [0.0] * 4),
    ("majority", [1, 2, 3, 4], [0.0] * 4),
    ("majority", [5, -1, -1, -1], [0.0] * 4),
    ("dirichlet", [5, 5, 5, -1], [UNBEATEN] * 3 + [0.0]),
    ("dirichlet", [5, 5, 7, 7], [0.0] * 4),
    # pi = 6/10 and 2/10, which abstentions keep from adding up to 1.
    (
      "dirichlet",
      [5] * 5 + [7] + [-1] * 2,
      [(1 + (0.6 * math.log(0.6) + 0.2 * math.log(0.2)) / math.log(2)) * UNBEATEN] * 5 + [0.0] * 3,
    ),
    # pi = 3/6 and 2/6 have an entropy above log 2: the confidence stops at 0.
    ("dirichlet", [5, 5, 7, -1], [0.0] * 4),
  ],
)
def test_worked_groups(rule, answer_ids, expected):
  np.testing.assert_allclose(by_rule(answer_ids, rule), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rule", consistency.RULES)
def test_a_group_where_all_abstain_gets_nothing(rule):
  np.testing.assert_array_equal(by_rule([-1] * 8, rule), 0.0)


def test_ids_other_than_minus_one_are_labels():
  np.testing.assert_array_equal(by_rule([-2, -2, 2**31 - 1, -1], "frequency"), [0.5, 0.5, 0.25, 0])


@pytest.mark.parametrize("size", [20, 40, 60])
def test_the_threshold_is_strict_at_every_size(size):
  at = size * 17 // 20  # Exactly 0.85 of the group.
  r = by_rule([0] * at + [1] * (size - at), "threshold")
  np.testing.assert_allclose(r, [at / size] * at + [1 - at / size] * (size - at), rtol=1e-6)
  above = at + 1
  r = by_rule([0] * above + [1] * (size - above), "threshold")
  np.testing.assert_array_equal(r, [1.0] * above + [0.0] * (size - above))


def first_takes_ties(answer_ids, rule="majority"):
  return compiled(np.array([answer_ids], np.int32), rule, tie="first")[0].tolist()


@pytest.mark.parametrize(
  ("answer_ids", "expected"),
  [
    ([5, 5, 7, -1], [1, 1, 0, 0]),  # no tie
    ([5, 5, 7, 7], [1, 1, 0, 0]),
    ([7, 5, 5, 7], [1, 0, 0, 1]),
    ([9, 7, 5, 5, 7], [0, 1, 0, 0, 1]),  # the first seen of the most frequent, not of all
    ([7, 5, 5, 7, 5], [0, 1, 1, 0, 1]),
    ([1, 2, 3, 4], [1, 0, 0, 0]),
    ([4, 3, 2, 1], [1, 0, 0, 0]),
    ([-1, -1, -1, 5], [0, 0, 0, 1]),  # who abstains does not vote
    ([-1, 6, -1, 5], [0, 1, 0, 0]),
    ([-1] * 4, [0] * 4),
    ([2], [1]),
  ],
)
def test_a_tie_goes_to_the_answer_seen_first(answer_ids, expected):
  assert first_takes_ties(answer_ids) == expected


@pytest.mark.parametrize("rule", ["frequency", "threshold", "dirichlet"])
@pytest.mark.parametrize("answer_ids", [[5, 5, 7, 7], [1, 2, 3, 4], [3] * 4, [-1, -1, 5, 7]])
def test_ties_are_a_matter_of_the_majority_alone(rule, answer_ids):
  assert first_takes_ties(answer_ids, rule) == by_rule(answer_ids, rule).tolist()


def test_a_tie_at_the_threshold_is_no_majority():
  options = OPTIONS | {"threshold": 0.5}
  r = consistency.self_consistency(np.array([[5, 5, 7, 7]]), rule="threshold", **options)
  assert r.tolist() == [[0.5] * 4]


@settings(deadline=None, max_examples=100)
@given(
  ids=hnp.arrays(np.int32, 8, elements=st.integers(-1, 4)),
  order=st.permutations(range(8)),
)
def test_only_ties_depend_on_the_order_of_a_group(ids, order):
  with_ties = np.array(first_takes_ties(ids))
  alone = np.asarray(by_rule(ids, "majority"))
  permuted = np.array(first_takes_ties(ids[order]))
  if alone.any():
    assert with_ties.tolist() == alone.tolist()
    assert permuted.tolist() == with_ties[order].tolist()
  # Whichever way it falls, one answer with the most votes gets 1.
  assert len({*ids[with_ties == 1].tolist()}) == (1 if (ids >= 0).any() else 0)
  assert permuted.sum() == with_ties.sum()


@settings(deadline=None, max_examples=100)
@given(
  ids=hnp.arrays(np.int32, (1, 8), elements=st.integers(-1, 4)),
  order=st.permutations(range(8)),
)
def test_permuting_a_group_permutes_its_result(ids, order):
  # The entropy of `dirichlet` is a sum whose order changes its last digits.
  np.testing.assert_allclose(
    by_every_rule(ids[:, order]), by_every_rule(ids)[..., order], rtol=1e-6, atol=1e-6
  )


@settings(deadline=None, max_examples=100)
@given(
  ids=hnp.arrays(np.int32, (1, 8), elements=st.integers(-1, 4)),
  labels=st.lists(st.integers(0, 2**31 - 1), min_size=5, max_size=5, unique=True),
)
def test_renaming_labels_changes_nothing(ids, labels):
  renamed = np.where(ids == -1, -1, np.array(labels, np.int32)[ids])
  np.testing.assert_array_equal(by_every_rule(renamed), by_every_rule(ids))


@pytest.mark.parametrize(
  ("option", "value", "message"),
  [
    ("rule", "plurality", "frequency, threshold, majority, dirichlet"),
    ("tie", "last", "tie='last' must be one of none, first"),
    ("threshold", 0.49, r"threshold=0.49 must be a number in \[0.5, 1\]"),
    ("threshold", float("nan"), "threshold=nan"),
    ("threshold", "0.9", "threshold='0.9'"),
    ("alpha", 0.0, "alpha=0.0 must be a number in"),
    ("margin", float("inf"), "margin=inf must be a number in"),
  ],
)
def test_bad_options_are_named(option, value, message):
  with pytest.raises(ValueError, match=message) as error:
    consistency.self_consistency(
      np.zeros((1, 2), np.int32), **({"rule": "threshold"} | OPTIONS | {option: value})
    )
  assert "\n" not in str(error.value)
