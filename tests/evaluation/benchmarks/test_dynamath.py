"""DynaMath: short answers by kind, both comparisons, and metrics over seeds."""

import math
import pathlib

import pytest

from sejax.evaluation import grading, rows
from sejax.evaluation.benchmarks import dynamath
from sejax.evaluation.benchmarks.dynamath import CHOICE, FLOAT, TEXT
from sejax.evaluation.benchmarks.protocol import Problem, StoredAnswers
from tests import real_data
from tests.evaluation.benchmarks.graded import graded


def of_kind(kind, gold=""):
  return Problem("1/1", "What?", gold, kind=kind)


@pytest.mark.parametrize(
  ("response", "kind", "expected"),
  [
    ('{"solution": "s", "short answer": "8"}', FLOAT, "8.0"),
    ('I say {"solution": "a\nb", "short answer": "2.5 cm"} so', FLOAT, "2.5"),
    ('{"short answer": "2π"}', FLOAT, repr(2 * math.pi)),
    (r'{"solution": "\frac{1}{2}", "short answer": "0.5"}', FLOAT, "0.5"),
    # A lone pi fails; so does a number in place of a text. Then the whole response is parsed.
    ('{"short answer": "π"}', FLOAT, None),
    ('{"short answer": 8}', FLOAT, None),
    ("12.566 square units", FLOAT, "12.566"),
    ("It is 12.566", FLOAT, None),
    ('{"short answer": "nan"}', FLOAT, None),
    ('{"short answer": "b"}', CHOICE, "B"),
    ('{"short answer": "F"}', CHOICE, "F"),
    ('{"short answer": "D: 5"}', CHOICE, "D"),
    # Exactly one of A to E; an answer for F that is longer fails.
    ('{"short answer": "A or B"}', CHOICE, None),
    ('{"short answer": "(F)"}', CHOICE, None),
    ('{"short answer": "11/02"}', TEXT, "11/02"),
    ("no object", TEXT, "no object"),
    ('{"short answer": ""}', TEXT, ""),
  ],
)
def test_the_toolkits_short_answer(response, kind, expected):
  assert dynamath.extract_by_rule(of_kind(kind), response) == expected


def test_without_a_model_the_last_box_stands_in_and_a_choice_keeps_its_beginning():
  assert dynamath.extract(of_kind(FLOAT), r"so \boxed{2.5}") == "2.5"
  assert dynamath.extract(of_kind(FLOAT), "so 2.5") is None
  assert dynamath.extract(of_kind(CHOICE), " (F) or (G)") == "(F) or (G)"


@pytest.mark.parametrize(
  ("kind", "gold", "answer", "authors", "toolkit", "strict"),
  [
    (FLOAT, "2.0944", "2.0953", True, True, True),
    (FLOAT, "2.0944", "2.0955", False, False, False),
    (FLOAT, "199.4849", "199.4", False, False, False),
    (CHOICE, "B", "B", True, True, True),
    (CHOICE, "B", "(B) 4", True, True, True),
    (CHOICE, "B", "it is B", False, False, False),
    (TEXT, "(2, 4)", "(2, 4)", True, True, True),
    # The authors look for the gold text in the answer, the toolkit the other way round.
    (TEXT, "Sep", "in Sep 2020", True, False, False),
    (TEXT, "Sep", "sep", False, True, True),
    (TEXT, "11/02/2006", "02", False, True, False),
    (TEXT, "Sunday", "", False, True, False),
    (TEXT, "(1.000, 0.000)", "(1, 0)", False, False, True),
    (TEXT, "y = 4", "4 = y", False, False, True),
  ],
)
def test_the_comparisons(kind, gold, answer, authors, toolkit, strict, prover):
  problem = of_kind(kind, gold)
  assert dynamath.authors_is_right(problem, answer, prover) is authors
  assert dynamath.is_right(problem, answer, prover) is toolkit
  assert dynamath.strict_is_right(problem, answer, prover) is strict


@pytest.mark.parametrize("name", ["toolkit", "strict"])
@pytest.mark.parametrize(
  ("response", "reply", "right"),
  [
    # The gold letter B is looked for at the start of the response, never in a useless reply.
    ("B or C, I cannot say", "A or D", True),
    ("b or c", "no idea", True),
    ("(B) or (A)", "C or D", True),
    ("A or B", "B, or perhaps C", False),
    ("either", "Bad question, C", False),
    ("", "B or C", False),
    ("I think {B or C}", "A or D", True),  # what stands in braces counts
    ("either A or B", "B", True),  # a reply that can be read
    ("B or C", "C", False),
  ],
)
def test_a_choice_that_no_model_can_read_is_judged_by_the_responses_start(
  name, response, reply, right, prover
):
  class Model:
    name = "scripted"

    def __call__(self, prompts, temperature):
      return [reply] * len(prompts)

  protocol, problem = dynamath.BENCHMARK.protocols[name], of_kind(CHOICE, "B")
  stored = [(problem, StoredAnswers("1", (response,)))]
  (one,) = grading.grade(protocol, stored, prover, Model())
  assert one.right == (right,)


@pytest.mark.parametrize(
  ("response", "kind", "expected"),
  [
    ("It is {B}, as said", CHOICE, "B"),
    (r"\{C\}", CHOICE, "C"),
    ("so {2.5}", FLOAT, None),
    ("the {Sep}", TEXT, "{Sep}"),
  ],
)
def test_what_stands_in_braces_is_the_response(response, kind, expected):
  assert dynamath.extract_by_rule(of_kind(kind), response) == expected


@pytest.mark.parametrize(
  ("response", "kind", "expected"),
  [
    ('{"solution": "s", "short answer": "Sep"}', TEXT, "Sep"),
    ("So it is\n Sep ", TEXT, "Sep"),
    ("So\n2.5 cm", FLOAT, "2.5"),
    ("So\nabout two", FLOAT, None),
    ("", CHOICE, ""),
  ],
)
def test_the_authors_take_the_last_line_where_there_is_no_object(response, kind, expected):
  assert dynamath.authors_extract(of_kind(kind), response) == expected


def seed(number, *verdicts, subject="algebra"):
  """Returns a seed's variants, each with its verdicts."""
  tags = {"subject": subject, "level": "high school"}
  return [
    graded(f"{number}/{n}", verdict, cluster=str(number), tags=tags)
    for n, verdict in enumerate(verdicts, 1)
  ]


def test_average_worst_case_and_robustness():
  whole = seed(1, (True,), (True,))
  half = seed(2, (True,), (False,), subject="arithmetic")
  scores = dynamath.scores(whole + half)
  assert {name: figure.value for name, figure in scores.metrics.items()} == {
    "accuracy": 0.75,
    "worst case": 0.5,
    "robustness": pytest.approx(2 / 3),
  }
  assert scores.breakdowns["subject"] == {"algebra": (2.0, 2), "arithmetic": (1.0, 2)}
  assert scores.breakdowns["worst case by subject"] == {
    "algebra": (1.0, 1),
    "arithmetic": (0.0, 1),
  }
  # Two seeds: a quarter of the draws holds either one twice, so the interval spans both.
  assert scores.metrics["worst case"][1:] == (0.0, 1.0)
  assert scores.metrics["accuracy"][1:] == (0.5, 1.0)


def test_the_worst_case_of_several_samples_is_the_mean_of_each_samples():
  scores = dynamath.scores(seed(1, (True, False), (True, True)))
  assert scores.metrics["worst case"].value == 0.5
  assert scores.metrics["accuracy"].value == 0.75


def test_rows_of_all_forms_are_one_problem():
  row = {"question": "q", "answer_type": FLOAT, "subject": "s"}
  forms = (
    {"qid": 7, "varid": 3, "answer": "1", "level": "l"},
    {"id": "7", "ground_truth": "1", "knowledge_level": "l", "file": "sample_variant3-0.parquet"},
    {"index": "2007", "qid": "7", "varid": "3", "answer": "1", "knowledge_level": "l"},
  )
  first, *others = (dynamath.read_problem(row | form) for form in forms)
  assert first.id == "7/3"
  assert first.cluster == "7"
  assert others == [first, first]
  with pytest.raises(ValueError, match="seed 7 names no variant"):
    dynamath.problem_id({"qid": 7})


@pytest.mark.long
@real_data.needed
@pytest.mark.parametrize(
  ("run", "right", "all_right", "accuracy", "worst"),
  [("gpt4o", 3173, 174, "63.33", "34.73"), ("qwen2_vl_7b", 2111, 69, "42.14", "13.77")],
)
def test_the_published_totals(run, right, all_right, accuracy, worst, prover):
  folder = pathlib.Path(real_data.DATA) / "dynamath"
  benchmark, protocol = dynamath.BENCHMARK, dynamath.BENCHMARK.protocols["authors"]
  problems = rows.read_problems([folder / "all_text_only.jsonl"], benchmark, protocol)
  path = folder / "official_scored" / f"{run}.jsonl"
  graded_rows = grading.grade(protocol, rows.read_answers(path, problems, benchmark), prover)
  scores = protocol.scores(graded_rows)
  assert scores.counts == {
    "right": right,
    "problems": 5010,
    "seeds all right": all_right,
    "seeds": 501,
  }
  assert f"{100 * scores.metrics['accuracy'].value:.2f}" == accuracy
  assert f"{100 * scores.metrics['worst case'].value:.2f}" == worst
  sizes = {level: total for level, (_, total) in scores.breakdowns["worst case by level"].items()}
  assert sizes == {"elementary school": 63, "high school": 277, "undergraduate": 161}
