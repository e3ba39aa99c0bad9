"""WeMath: the four outcomes by the protocol's worked example, extraction, steps and domains."""

import json

import pytest

from sejax.evaluation import rows
from sejax.evaluation.benchmarks import wemath
from tests.evaluation.benchmarks.graded import graded


def composite(name, whole, *parts):
  """Returns the graded rows of a composite problem; each argument has a verdict per sample."""
  steps = [(f"{len(parts)}steps_{n}", part) for n, part in enumerate(parts, 1)]
  steps.append((f"{len(parts)}steps_multi", whole))
  return [
    graded(f"{name}/{step}", verdicts, cluster=name, tags={"step": step, "concept": concept})
    for (step, verdicts) in steps
    for concept in [f"{step[-1]}" if not step.endswith("multi") else ""]
  ]


def scored(*problems):
  return wemath.scores([row for problem in problems for row in problem])


YES, NO = (True,), (False,)
# (m, s1, s2) = (1,1,1), (1,1,0), (0,1,1), (0,0,1)
EXAMPLE = (
  composite("2steps_1", YES, YES, YES),
  composite("2steps_2", YES, YES, NO),
  composite("2steps_3", NO, YES, YES),
  composite("2steps_4", NO, NO, YES),
)


def test_the_worked_example():
  scores = scored(*EXAMPLE)
  value = {name: interval.value for name, interval in scores.metrics.items()}
  assert value["score strict"] == 0.375
  assert value["RM strict"] == 0.5
  assert value["score loose"] == 0.625
  assert value["RM loose"] == 0.0
  assert (value["IK strict"], value["IG strict"], value["CM strict"]) == (0.25, 0.25, 0.25)
  assert (value["IK loose"], value["IG loose"], value["CM loose"]) == (0.25, 0.25, 0.5)
  assert scores.counts == {
    "composite problems": 4,
    **{f"{name} strict": 1.0 for name in ("IK", "IG", "CM", "RM")},
    "IK loose": 1.0,
    "IG loose": 1.0,
    "CM loose": 2.0,
    "RM loose": 0.0,
  }
  assert scores.breakdowns["steps"] == {"S1": (6.0, 8), "S2": (2.0, 4)}


def test_of_three_parts_mastery_needs_all_or_loosely_one():
  problems = (composite("3steps_1", YES, NO, NO, YES), composite("3steps_2", YES, NO, NO, NO))
  counts = scored(*problems).counts
  assert (counts["CM strict"], counts["RM strict"]) == (0.0, 2.0)
  assert (counts["CM loose"], counts["RM loose"]) == (1.0, 1.0)
  assert scored(*problems).breakdowns["steps"] == {"S1": (1.0, 6), "S3": (2.0, 2)}


def test_the_rate_of_rote_memorization_is_undefined_where_no_composite_is_right():
  figure = scored(composite("2steps_1", NO, YES, YES)).metrics["RM strict"]
  assert figure.value != figure.value  # NaN


def test_absent_problems_do_not_count_as_mastered():
  """Neither does one that lacks a part: it falls in no outcome and in no denominator."""
  scores = scored(EXAMPLE[3], EXAMPLE[0][1:])
  assert scores.counts["composite problems"] == 1
  assert scores.metrics["score strict"].value == 0.0
  with pytest.raises(ValueError, match="no composite problem"):
    scored(EXAMPLE[0][1:])


def test_outcomes_of_several_samples_are_means():
  both = composite("2steps_1", (True, False), (True, False), (True, True))
  counts = scored(both).counts
  assert (counts["CM strict"], counts["IK strict"]) == (0.5, 0.5)


@pytest.mark.parametrize(
  ("response", "expected"),
  [
    ("<Thought process>: <<so it is B>> <Answer>: <<C>>", "C"),
    ("Answer: A. Answer: D.", "D"),
    ("Answer: the first", None),
    ("Answer: I", None),
    ("Answer", None),
    ("H", "H"),
    ("so C", None),
    ("", None),
  ],
)
def test_the_letter_behind_the_last_answer(response, expected):
  assert wemath.extract(None, response) == expected


ROW = {
  "ID": "2steps_17",
  "key": "2steps_1",
  "question": "How long?",
  "option": "A. 1 m; 2 m;B. 3 m; C. No correct answer",
  "answer": "B",
  "knowledge concept": "Length",
  "image_path": "images/17.png",
}


def test_rows_in_the_authors_form_and_in_the_toolkits_table():
  options = {"A": "1 m; 2 m", "B": "3 m", "C": "No correct answer"}
  table = {name: value for name, value in ROW.items() if name != "option"} | options
  for row in (ROW, table | {"D": float("nan")}):
    problem = wemath.read_problem(row)
    assert problem.id == "2steps_17/2steps_1"
    assert problem.options == options
    assert problem.tags == {"step": "2steps_1", "concept": "Length"}
    assert (
      wemath.prompt(problem)
      == wemath.toolkit_prompt(problem)
      == ("Question: How long?\nOptions:\nA. 1 m; 2 m\nB. 3 m\nC. No correct answer")
    )
  asked = wemath.read_problem(ROW | {"hint": "h", "requirement": "r"})
  assert wemath.prompt(asked) == f"Hint: h\n{wemath.toolkit_prompt(problem)}\nr"


def test_each_concept_of_a_domain_weighs_the_same(tmp_path):
  nodes = [
    {"full node": "root_Measures_Length", "root2": "Measures"},
    {"full node": "root_Measures_Weight", "root2": "Measures"},
  ]
  (tmp_path / wemath.DOMAINS).write_text(json.dumps(nodes))
  concepts = ["Length", "Length", "Length", "Weight", "Unheard"]
  lines = [ROW | {"ID": f"2steps_{n}", "knowledge concept": c} for n, c in enumerate(concepts)]
  (tmp_path / "testmini.json").write_text(json.dumps(lines))
  benchmark = wemath.BENCHMARK
  problems = rows.read_problems(
    [tmp_path / "testmini.json"], benchmark, benchmark.protocols["authors"]
  )
  verdicts = [YES, YES, NO, NO, YES]
  marked = [
    graded(p.id, verdict, cluster=p.cluster, tags=p.tags)
    for p, verdict in zip(problems, verdicts, strict=True)
  ]
  domains = wemath.scores([*marked, *EXAMPLE[0]]).breakdowns["domain"]
  right, total = domains["Measures"]
  assert (right, total) == (pytest.approx(2 / 3), 2)
  assert list(domains) == ["Measures"]
