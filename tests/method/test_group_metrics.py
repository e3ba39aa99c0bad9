"""Figures of a group, by hand-worked groups, and summaries that are never NaN."""

import math

import numpy as np
import pytest

from sejax import method

NAN = math.nan


def measure(answer_ids, scores=None, valid=None, correct=None, **options):
  """Figures of one group, None where undefined."""
  scores = np.full(len(answer_ids), 0.5) if scores is None else scores
  valid = [True] * len(answer_ids) if valid is None else valid
  correct = None if correct is None else [correct]
  measures = method.group_metrics([answer_ids], [scores], [valid], correct, **options)
  return {
    name: float(value[0]) if defined[0] else None for name, (value, defined) in measures.items()
  }


def assert_figures(actual, expected):
  for name, value in expected.items():
    assert actual[name] == (value if value is None else pytest.approx(value, rel=1e-6)), name


def test_a_group_that_agrees_on_a_wrong_answer_shows():
  figures = measure([3] * 7 + [4], correct=[False] * 7 + [True])
  assert_figures(
    figures,
    {
      "majority_share": 7 / 8,
      "answer_entropy": -(7 / 8 * math.log(7 / 8) + 1 / 8 * math.log(1 / 8)),
      "distinct_answers": 2,
      "abstentions": 0,
      "label_share": 1,
      "label_accuracy": 0,
      "pass@1": 1 / 8,
      "pass@G": 1,
      "maj@G": 0,
    },
  )


@pytest.mark.parametrize(
  ("answer_ids", "tie", "label_share", "label_accuracy"),
  [
    ([5, 5, 7, 7], "none", 0, None),
    ([5, 5, 7, 7], "first", 1, 0),
    ([7, 7, 5, 5], "first", 1, 1),
    ([7, 5, 3, -1], "none", 0, None),
    ([7, 5, 3, -1], "first", 1, 1),
    ([-1, 5, -1, 7], "first", 1, 0),
    ([-1] * 4, "first", 0, None),
  ],
)
def test_the_label_of_a_tie(answer_ids, tie, label_share, label_accuracy):
  figures = measure(answer_ids, correct=[answer == 7 for answer in answer_ids], tie=tie)
  assert_figures(figures, {"label_share": label_share, "label_accuracy": label_accuracy})


def test_an_unknown_tie_is_refused():
  with pytest.raises(ValueError, match="tie='lot' must be one of none, first"):
    measure([1, 1], tie="lot")


def test_abstentions_leave_the_entropy_and_stay_in_the_share():
  figures = measure([5, 5, 6, -1, -1, -1, -1, 6])
  assert_figures(
    figures,
    {
      "majority_share": 2 / 8,
      "answer_entropy": math.log(2),
      "distinct_answers": 2,
      "abstentions": 4,
      "label_share": 0,
    },
  )


def test_where_nobody_votes():
  figures = measure([-1] * 4, correct=[False] * 4)
  assert_figures(
    figures,
    {
      "majority_share": 0,
      "answer_entropy": None,
      "distinct_answers": 0,
      "abstentions": 4,
      "agreement": None,
      "label_share": 0,
      "label_accuracy": None,
      "pass@1": 0,
      "pass@G": 0,
      "maj@G": 0,
    },
  )


@pytest.mark.parametrize(
  ("answer_ids", "correct", "maj", "label_accuracy"),
  [
    ([1, 1, 2, 2, 3], [1, 1, 0, 0, 0], 1 / 2, None),  # A tie of two.
    ([1, 2, 3, -1, -1], [0, 0, 1, 0, 0], 1 / 3, None),  # A tie of three.
    ([1, 1, 2, -1, -1], [1, 1, 0, 0, 0], 1, 1),
    ([1, -1, -1, -1, -1], [1, 0, 0, 0, 0], 1, None),  # One vote is an answer, but no label.
  ],
)
def test_majority_accuracy_is_even_over_tied_answers(answer_ids, correct, maj, label_accuracy):
  figures = measure(answer_ids, correct=correct)
  assert_figures(figures, {"maj@G": maj, "label_accuracy": label_accuracy})


@pytest.mark.parametrize(
  ("answer_ids", "scores", "valid", "agreement"),
  [
    ([1, 1, 2, 3], [0.9, 0.1, 0.2, 0.3], [1, 1, 1, 1], 1),
    ([1, 1, 2, 3], [0.1, 0.1, 0.9, 0.3], [1, 1, 1, 1], 0),
    ([1, 1, 2, 3], [0.9, 0.1, 0.9, 0.9], [1, 1, 1, 1], 1 / 3),  # The favourites tie.
    ([1, 1, 2, 2], [0.1, 0.1, 0.9, 0.3], [1, 1, 1, 1], 1),  # The answers tie: either will do.
    ([1, 1, 2, 3], [0.2, 0.1, 0.9, 0.1], [1, 1, 0, 1], 1),  # The highest verdict is invalid.
    ([1, 1, 2, 3], [0.2, 0.1, NAN, 0.1], [1, 1, 1, 1], 1),
    ([1, 1, 2, -1], [0.1, 0.1, 0.2, 0.9], [1, 1, 1, 1], 0),  # The favourite has no answer.
    ([1, 1, 2, 3], [0.0, 0.0, 0.0, 0.0], [0, 0, 1, 0], 0),  # A score of 0 is a verdict.
    ([1, 1, 2, 3], [0.9, 0.1, 0.2, 0.3], [0, 0, 0, 0], None),
  ],
)
def test_agreement_of_judge_and_votes(answer_ids, scores, valid, agreement):
  assert_figures(measure(answer_ids, scores, valid), {"agreement": agreement})


def test_verdicts_are_counted_and_averaged_where_valid():
  figures = measure([1, 1, 2, 3], [0.25, 0.75, NAN, 0.9], [True, True, True, False])
  assert_figures(figures, {"invalid_verdicts": 2, "judge_mean": 0.5})
  assert_figures(measure([1, 1], [NAN, NAN]), {"invalid_verdicts": 2, "judge_mean": None})


def test_without_gold_there_are_no_accuracies():
  names = measure([1, 1]).keys()
  assert not names & {"pass@1", "pass@G", "maj@G", "label_accuracy"}
  assert "label_share" in names


def test_a_summary_averages_over_the_groups_that_define_a_figure():
  measures = method.group_metrics(
    [[1, 1], [-1, -1], [1, 2]],
    [[0.2, 0.4], [NAN, NAN], [1.0, 0.0]],
    np.ones((3, 2), bool),
    [[True, True], [False, False], [False, True]],
  )
  summary = {name: float(value) for name, value in method.summarize(measures).items()}
  expected = {
    "majority_share": ((1 + 0 + 0.5) / 3, 3),
    "answer_entropy": (math.log(2) / 2, 2),
    "judge_mean": ((0.3 + 0.5) / 2, 2),
    "agreement": (1.0, 2),
    "label_share": (1 / 3, 3),
    "label_accuracy": (1.0, 1),
    "maj@G": ((1 + 0 + 0.5) / 3, 3),
  }
  for name, (mean, count) in expected.items():
    assert summary[name] == pytest.approx(mean, rel=1e-6), name
    assert summary[f"{name}_count"] == count, name


@pytest.mark.parametrize("groups", [0, 3])
def test_what_no_group_defines_is_zero_with_count_zero(groups):
  shape = (groups, 4)
  measures = method.group_metrics(
    np.full(shape, -1), np.full(shape, NAN), np.ones(shape, bool), np.zeros(shape, bool)
  )
  summary = method.summarize(measures)
  assert all(np.isfinite(value) for value in summary.values())
  for name in ("answer_entropy", "agreement", "judge_mean", "label_accuracy"):
    assert summary[name] == 0.0
    assert summary[f"{name}_count"] == 0


def test_bad_input_is_named():
  with pytest.raises(ValueError, match=r"correct has shape \(1, 3\) but answer_ids has \(1, 2\)"):
    method.group_metrics([[1, 1]], [[0.5, 0.5]], [[True, True]], [[True] * 3])
