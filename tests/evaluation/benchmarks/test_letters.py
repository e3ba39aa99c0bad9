"""The rule that reads an option letter, by the protocol's consequences."""

import pytest

from sejax.evaluation.benchmarks import mathvision, wemath
from sejax.evaluation.benchmarks.letters import read_letter
from sejax.evaluation.benchmarks.protocol import Problem

OPTIONS = {"A": "red square", "B": "blue circle", "C": "green star", "D": "black dot"}


@pytest.mark.parametrize(
  ("response", "expected"),
  [
    (r"Thus the answer is \boxed{C}", "C"),
    (r"We get \boxed{C}.", "C"),
    ("(B)", "B"),
    (r"\boxed{\text{B}}", "B"),
    (r"\boxed{B: foo}", "B"),
    ("**D**", "D"),
    # The first occurrence counts, and only among the last four tokens.
    ("C one two three", "C"),
    ("C one two three four", None),
    ("C one two three C", None),
    # Two letters: none is chosen, even where the last is the answer; but "answer is" names one.
    ("It is either B or, more likely, C", None),
    ("Not B. The answer is C", "C"),
    ("not b, the ANSWER IS **c** I think", "C"),
    # The article is option A.
    ("It is a blue, round A", "A"),
    ("A circle that is blue, so B", None),
    # Letters count in capitals and as whole tokens.
    ("so c", None),
    ("ABC", None),
    # Beyond D, "answer is" finds nothing; neither does it find what is not an option.
    ("answer is E, not A, B", None),
    # The text of one option, in a response that is not much longer than all of them.
    ("I see a Blue Circle", "B"),
    ("a blue circle or a green star", None),
    ("I see a blue circle" + 30 * " and so on", None),
    ("Z", "Z"),
    ("Cannot determine the answer, B", "Z"),
    ("Failed to obtain answer via API. B", None),
    ("", None),
  ],
)
def test_the_rule(response, expected):
  assert read_letter(response, OPTIONS) == expected


@pytest.mark.parametrize(
  ("response", "toolkit", "strict"),
  [
    ("The answer is about 3 of them, A, B, or more", "A", None),
    ("the answer is Definitely not here: A or B and so on", "D", None),
    ("The answer is **Blue, not A and not B at all", "B", None),
    ("The correct answer is c, not A and not B", "C", "C"),
    ("The answer  is\n**B**, not A", "B", "B"),
    ("The answer isB, not A nor D", None, None),
  ],
)
def test_behind_answer_is_the_toolkit_asks_for_no_word(response, toolkit, strict):
  assert read_letter(response, OPTIONS) == toolkit
  assert read_letter(response, OPTIONS, whole_words=True) == strict
  choice = Problem("1", "", "A", options=OPTIONS)
  for benchmark in (mathvision.BENCHMARK, wemath.BENCHMARK):
    for name, expected in (("toolkit", toolkit), ("strict", strict)):
      extraction = benchmark.protocols[name].model_extraction
      assert extraction.rule(choice, response) == expected
      assert extraction.parse(choice, response) == expected
      assert benchmark.protocols[name].extract(choice, response) == expected


def test_what_answer_is_names_must_be_an_option():
  assert read_letter("The answer is D, not A or B", {"A": "1", "B": "2"}) is None


def test_the_limit_of_the_text_rule_is_twice_all_options():
  options = {"A": "abc", "B": "de"}
  assert read_letter("abc" + 7 * ".", options) == "A"
  assert read_letter("abc" + 8 * ".", options) is None
