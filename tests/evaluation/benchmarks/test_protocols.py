"""What holds of every protocol of every benchmark."""

import time

import hypothesis
import pytest
from hypothesis import strategies

from sejax.evaluation.benchmarks import BENCHMARKS, names
from sejax.evaluation.benchmarks.protocol import Problem
from tests.evaluation.benchmarks.graded import graded

ALL = [
  pytest.param(protocol, id=f"{benchmark.name} {name}")
  for benchmark in BENCHMARKS.values()
  for name, protocol in benchmark.protocols.items()
]
TAGS = {"version": "Vision Only", "subject": "s", "level": "1", "skill": "k"}
CHOICE = Problem(
  "1",
  "Which one?",
  "B",
  kind="multiple choice",
  options={"A": "red", "B": "blue"},
  tags=TAGS,
  extra={"full_question": "Which one?", "direct_prompt": "", "hint": "", "requirement": ""},
)
PARTS = (
  "oxed{",
  "\\",
  "{",
  "}",
  "(A)",
  " B.",
  "answer is ",
  "Answer",
  "is ",
  "=",
  "π",
  "\n",
  "1/2",
)
TEXTS = strategies.lists(
  strategies.sampled_from(PARTS) | strategies.text("abeA1. ", max_size=4), max_size=12
)


@pytest.mark.long
@pytest.mark.parametrize("protocol", ALL)
@hypothesis.given(TEXTS.map("".join))
@hypothesis.settings(max_examples=60, deadline=None)
def test_rules_read_an_answer_or_none_from_any_text(protocol, response):
  found = protocol.extract(CHOICE, response)
  assert found is None or isinstance(found, str)
  if protocol.model_extraction:
    for answer in (
      protocol.model_extraction.rule(CHOICE, response),
      protocol.model_extraction.parse(CHOICE, response),
    ):
      assert answer is None or isinstance(answer, str)
    assert isinstance(protocol.model_extraction.prompt(CHOICE, response), str)


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize(
  "hostile",
  [part * 40_000 for part in ("oxed{", "{", "}", " ", "\n", "answer is ", "\\boxed{", "[")],
)
def test_rules_take_linear_time(protocol, hostile):
  begin = time.process_time()
  protocol.extract(CHOICE, hostile)
  # Tens of milliseconds; what is quadratic takes minutes.
  assert time.process_time() - begin < 2


@pytest.mark.parametrize("protocol", ALL)
def test_the_prompt_asks_the_question_and_the_headline_is_reported(protocol):
  assert CHOICE.question in protocol.prompt(CHOICE)
  rows = [
    graded(step, (True,), cluster="1", tags=TAGS | {"step": step, "concept": "c"})
    for step in ("2steps_1", "2steps_2", "2steps_multi")
  ]
  assert protocol.scores(rows).metrics[protocol.headline].value == 1.0


def test_names_of_a_command_line_are_split():
  assert names(("mathvision, wemath", "dynamath")) == ["mathvision", "wemath", "dynamath"]
  assert names(()) == []
