"""Geometry3K: both forms of its rows, and answers in boxes."""

import concurrent.futures
import pathlib

import pytest

from sejax.evaluation import grading, rows
from sejax.evaluation.benchmarks import geometry3k
from sejax.evaluation.benchmarks.protocol import StoredAnswers
from sejax.text.equivalence import Prover
from tests import real_data

BENCHMARK = geometry3k.BENCHMARK
NAME, PROTOCOL = BENCHMARK.protocol("toolkit")


def test_it_has_one_protocol_whatever_is_asked_for():
  assert NAME == "boxed"


@pytest.mark.parametrize(
  ("response", "gold", "expected"),
  [
    (r"<think>t</think>\boxed{8.94}", r"4 \sqrt { 5 }", True),
    (r"\boxed{4\sqrt5}", r"4 \sqrt { 5 }", True),
    (r"\boxed{8.9}", r"4 \sqrt { 5 }", True),
    (r"\boxed{8.8}", r"4 \sqrt { 5 }", False),
    (r"\boxed{1} then \boxed{\frac{17\sqrt3}{2}}", r"\frac { 17 } { 2 } \sqrt { 3 }", True),
    (r"\boxed{840} and again \boxed{840}", "840", True),
    (r"\boxed{004}, \boxed{004}", "4", True),
    (r"\boxed{4", "4", False),
    ("8.94", "8.94", False),
  ],
)
def test_the_last_box_is_compared_by_value(response, gold, expected):
  problem = geometry3k.read_problem({"row": "test/0", "problem": "<image>Find x.", "answer": gold})
  with Prover(workers=1) as prover:
    (graded,) = grading.grade(PROTOCOL, [(problem, StoredAnswers("test/0", (response,)))], prover)
  assert graded.right == (expected,)


@real_data.needed
def test_test_rows_in_both_forms():
  folder = pathlib.Path(real_data.DATA) / "geometry3k"
  problems = rows.read_problems(rows.find_files(str(folder.parent), BENCHMARK), BENCHMARK, PROTOCOL)
  assert len(problems) == 220
  assert sum("\\" in problem.gold for problem in problems) > 10
  (path,) = (folder / "hub_form" / "data").glob("test-*.parquet")
  hub = rows.read_problems(rows.find_files(str(path), BENCHMARK), BENCHMARK, PROTOCOL)
  assert [problem.id for problem in hub[:2]] == ["test/0", "test/1"]
  assert len(hub) == 40
  assert all(problem.images[0]["bytes"][:4] == b"\x89PNG" for problem in hub)


@pytest.mark.long
@real_data.needed
def test_choices_against_the_solver_of_another_set():
  """The right choices have the values of the closed forms, the wrong ones never the right one's."""
  path = pathlib.Path(real_data.DATA) / "geometry3k" / "problems.jsonl"
  tests = [row for row in rows.read(path) if row["split"] == "test"]
  right = [(row["closed_form"], row["answer_text"]) for row in tests]
  wrong = [
    (choice, row["answer_text"])
    for row in tests
    for choice in row["choices"]
    if choice != row["answer_text"]
  ]
  with Prover(workers=2) as prover, concurrent.futures.ThreadPoolExecutor(2) as threads:
    found = list(threads.map(lambda pair: prover.equal(*pair), right + wrong))
  missed = [row["id"] for row, equal in zip(tests, found, strict=False) if not equal]
  # Seven closed forms have trigonometric functions that no LaTeX has, and one choice is cut off
  # (16 pi is said to be 50.2).
  assert missed == [2451, 2460, 2504, 2646, 2774, 2803, 2811, 2820]
  assert len(wrong) == 659
  assert True not in found[len(right) :]
