"""LogicVista: letters as sets, the rule that stands in for the model, and the published runs."""

import pathlib

import pytest

from sejax.evaluation import grading, rows
from sejax.evaluation.benchmarks import logicvista
from sejax.evaluation.benchmarks.protocol import Problem
from sejax.text.equivalence import Prover
from tests import real_data


@pytest.mark.parametrize(
  ("answer", "gold", "authors", "toolkit"),
  [
    ("A", "A", True, True),
    ("CA", "A, C", True, True),
    ("c, a", "A, C", True, True),
    ("A", "A, C", False, False),
    ("ABC", "A, C", False, False),
    ("AA", "A", False, False),
    ("3", "3", True, False),
    ("Z", "A", False, False),
    ("A", "", False, False),
  ],
)
def test_the_letters_must_be_the_gold_ones(answer, gold, authors, toolkit):
  problem = Problem("1", "", gold)
  assert logicvista.is_right(problem, answer, None) is authors
  assert logicvista.toolkit_is_right(problem, answer, None) is toolkit


@pytest.mark.parametrize(
  ("response", "expected"),
  [
    (r"Not B, so \boxed{A, C}. D", "AC"),
    ("The answer is B.\nIt fits best", "B"),
    ("The answers are A and C, as E is not", "ACE"),
    ("First A, then\nthus D", "D"),
    ("I think so", "I"),
    ("no letter", None),
    ("", None),
  ],
)
def test_the_rule_that_stands_in(response, expected):
  assert logicvista.extract(None, response) == expected


def test_a_models_reply_is_letters_alone_or_a_list():
  assert logicvista.read_letters(None, " AC\n") == "AC"
  for reply in ("A, C", "ac", "It is A", ""):
    assert logicvista.read_letters(None, reply) is None
  assert logicvista.read_list(None, "['a', 'c']") == "ac"


@real_data.needed
@pytest.mark.parametrize(("run", "total"), [("llava7b", 131), ("minigpt13b", 67)])
def test_the_published_runs(run, total):
  """The letters that a model extracted were published; every verdict on them is the same."""
  path = pathlib.Path(real_data.DATA) / "logicvista" / "official_scored" / f"{run}.jsonl"
  benchmark = logicvista.BENCHMARK
  protocol = benchmark.protocols["authors"]
  problems = rows.read_problems([path], benchmark, protocol)
  with Prover(workers=1) as prover:
    graded = grading.grade(protocol, rows.read_answers(path, problems, benchmark), prover)
  assert {one.extractors for one in graded} == {(grading.STORED,)}
  published = {row["id"]: bool(row["match"]) for row in rows.read(path)}
  assert {one.problem.id: one.right[0] for one in graded} == published
  scores = protocol.scores(graded)
  assert scores.counts == {"right": total, "problems": 448}
  assert {skill: share.total for skill, share in scores.breakdowns["skill"].items()} == {
    "deductive": 93,
    "inductive": 107,
    "mechanical": 74,
    "numerical": 95,
    "spatial": 79,
  }
  kept = rows.read_problems([path], benchmark, benchmark.protocols["toolkit"])
  assert len(kept) == 447


@real_data.needed
def test_problems_with_pictures():
  folder = pathlib.Path(real_data.DATA) / "logicvista"
  protocol = logicvista.BENCHMARK.protocols["authors"]
  problems = rows.read_problems([folder / "problems.jsonl"], logicvista.BENCHMARK, protocol)
  assert len(problems) == 161
  assert all((folder / problem.images[0]).is_file() for problem in problems)
