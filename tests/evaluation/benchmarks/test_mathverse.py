"""MathVerse: rows of all versions, answers by rules, and scores by version."""

import pathlib

import pytest

from sejax.evaluation import rows
from sejax.evaluation.benchmarks import mathverse
from sejax.evaluation.benchmarks.protocol import Problem
from tests import real_data
from tests.evaluation.benchmarks.graded import graded

CHOICE = Problem(
  "1", "", "B", kind="multi-choice", options={"A": "40°", "B": "60°", "C": "2400πcm^{2}"}
)


def free(gold):
  return Problem("2", "", gold, kind="free-form")


@pytest.mark.parametrize(
  ("problem", "answer", "expected"),
  [
    (CHOICE, "B", True),
    (CHOICE, "(B)", True),
    (CHOICE, "B: 60°", True),
    (CHOICE, "60°", True),
    (CHOICE, "A: 60°", False),
    (CHOICE, "40°", False),
    (CHOICE, "", False),
    (free("14"), "14", True),
    (free("14"), "14 cm", True),
    (free(r"Area $=9 \pi \mathrm{cm}^{2}$"), r"9\pi", True),
    (free(r"\frac{\sqrt{30}}{2}"), r"\sqrt{7.5}", True),
    (free("(2,-2)"), "(2,2)", False),
    (free("14"), "15", False),
  ],
)
def test_the_comparison(problem, answer, expected, prover):
  assert mathverse.is_right(problem, answer, prover) is expected


def test_the_rules_read_letters_boxes_clauses_and_last_lines():
  assert mathverse.extract(CHOICE, "The answer is B: 60°") == "B"
  assert mathverse.extract(free("14"), r"so \boxed{14} cm") == "14"
  assert mathverse.extract(free("14"), "The answer is 14 cm.\nIt fits.") == "14 cm"
  assert mathverse.extract(free("14"), "We round.\n14") == "14"
  assert mathverse.extract(free("14"), "") is None


def test_a_models_null_is_no_answer():
  assert mathverse.parse_reply(CHOICE, "Extracted answer: Null") is None
  assert mathverse.parse_reply(CHOICE, " Extracted answer: B") == "Extracted answer: B"
  assert mathverse.parse_reply(CHOICE, "Extracted answer: B") == "B"


def test_text_only_counts_in_no_overall_figure():
  def row(number, version, verdict):
    tags = {"version": version, "subject": "Functions", "subfield": "Property"}
    return graded(str(number), (verdict,), cluster="1", tags=tags)

  mixed = [
    row(1, "Vision Only", True),
    row(2, "Text Lite", False),
    row(3, mathverse.TEXT_ONLY, True),
  ]
  scores = mathverse.scores(mixed)
  assert scores.metrics["accuracy"].value == 0.5
  assert scores.counts == {"right": 1.0, "problems": 2}
  assert scores.breakdowns["version"] == {
    "Text Lite": (0.0, 1),
    "Text Only": (1.0, 1),
    "Vision Only": (1.0, 1),
  }
  assert scores.breakdowns["version and subject and subfield"]["Text Lite / Functions / Property"]
  assert mathverse.scores(mixed[2:]).metrics["accuracy"].value == 1.0


@real_data.needed
def test_the_published_rows():
  folder = pathlib.Path(real_data.DATA) / "mathverse_text"
  benchmark, protocol = mathverse.BENCHMARK, mathverse.BENCHMARK.protocols["authors"]
  problems = rows.read_problems([folder / "testmini_text_only.jsonl"], benchmark, protocol)
  kinds = [problem.kind for problem in problems]
  assert (kinds.count("multi-choice"), kinds.count("free-form")) == (436, 352)
  assert problems[0].options == {"A": "40°", "B": "60°", "C": "120°", "D": "140°"}
  assert all(problem.options for problem in problems if problem.kind == "multi-choice")
  subjects = [problem.tags["subject"] for problem in problems]
  assert {name: subjects.count(name) for name in set(subjects)} == {
    "Plane Geometry": 510,
    "Functions": 159,
    "Solid Geometry": 119,
  }
  path = folder / "five_versions_sample.jsonl"
  versions = rows.read_problems([path], benchmark, protocol)
  assert len({problem.tags["version"] for problem in versions}) == 5
  assert {problem.cluster for problem in versions} == {"685"}
  assert versions[-1].question == ""
  assert mathverse.toolkit_prompt(versions[-1]) == versions[-1].extra["direct_prompt"] != ""
  answered = rows.read_answers(path, versions, benchmark)
  assert [stored.responses[0][:14] for _, stored in answered] == ["To find the le"] * 5
