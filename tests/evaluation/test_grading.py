"""Grading with rules, with a model in their place, and with what is stored."""

import dataclasses

import pytest

from sejax.evaluation import grading
from sejax.evaluation.benchmarks import dynamath, logicvista, mathverse, mathvision, wemath
from sejax.evaluation.benchmarks.protocol import Problem, StoredAnswers


@dataclasses.dataclass
class Scripted:
  """A model that replies what it is told, and remembers what it was asked."""

  replies: list[list[str]]
  name: str = "scripted"
  asked: list[tuple[list[str], float]] = dataclasses.field(default_factory=list)

  def __call__(self, prompts, temperature):
    self.asked.append((prompts, temperature))
    return self.replies[len(self.asked) - 1]


CHOICE = Problem("1", "Which fits?", "B", options={"A": "red", "B": "blue"})
FREE = Problem("2", "How many?", "60")
TOOLKIT = mathvision.BENCHMARK.protocols["toolkit"]


def test_a_model_is_asked_only_where_the_rules_find_nothing(prover):
  answered = [
    (CHOICE, StoredAnswers("1", ("It is A", "either A or B"))),
    (FREE, StoredAnswers("2", ("sixty", "60"))),
  ]
  model = Scripted([["B", "60.0000001"]])
  choice, free = grading.grade(TOOLKIT, answered, prover, model)
  assert choice.extractions == ("A", "B")
  assert choice.extractors == ("rules", "scripted")
  assert choice.right == (False, True)  # a letter that rules find is final
  assert free.extractors == ("scripted", "rules")
  assert free.right == (True, True)
  ((prompts, temperature),) = model.asked
  assert temperature == 0
  assert "Which fits?" in prompts[0]
  assert "either A or B" in prompts[0]
  assert "sixty" in prompts[1]


@pytest.mark.parametrize(
  ("protocol", "tries"),
  [
    (TOOLKIT, 5),
    (mathverse.BENCHMARK.protocols["authors"], 5),
    (logicvista.BENCHMARK.protocols["toolkit"], 5),
    (wemath.BENCHMARK.protocols["toolkit"], 3),
    (dynamath.BENCHMARK.protocols["toolkit"], 1),
  ],
)
def test_a_useless_reply_is_asked_for_again_hotter_and_then_wrong(protocol, tries, prover):
  problem = dataclasses.replace(
    FREE, kind="float", options={"A": "red", "B": "blue"}, extra={"full_question": "w"}
  )
  model = Scripted([["null"]] * tries)
  (one,) = grading.grade(protocol, [(problem, StoredAnswers("2", ("neither",)))], prover, model)
  assert one.extractions == (None,)
  assert one.right == (False,)
  assert [temperature for _, temperature in model.asked] == [0.5 * n for n in range(tries)]


def test_of_mathverse_a_model_judges_what_is_not_the_gold_answer_word_for_word(prover):
  problem = dataclasses.replace(FREE, extra={"full_question": "How long is it?"})
  replies = ["60", "60 cm", "61", "59"]
  stored = StoredAnswers("2", ("a", "b", "c", "d"))
  model = Scripted([replies, ["1", "0", "perhaps"], ["?"], ["1"]])
  protocol = mathverse.BENCHMARK.protocols["toolkit"]
  (one,) = grading.grade(protocol, [(problem, stored)], prover, model)
  assert one.right == (True, True, False, True)
  assert [len(prompts) for prompts, _ in model.asked] == [4, 3, 1, 1]
  assert "60 cm" in model.asked[1][0][0]


def test_the_authors_of_mathverse_show_the_model_the_last_thirty_words():
  response = " ".join(f"w{n}" for n in range(40))
  problem = dataclasses.replace(FREE, extra={"full_question": "How long?"})
  ends = [
    mathverse.BENCHMARK.protocols[name].model_extraction.prompt(problem, response)
    for name in ("authors", "toolkit")
  ]
  assert "w10 " in ends[0]
  assert "w9 " not in ends[0]
  assert "w0 " in ends[1]


def test_wemaths_authors_ask_no_model_and_use_no_letter_rule(prover):
  answered = [
    (CHOICE, StoredAnswers("1", (r"so it is \boxed{B}", "Answer: A, B or C, by their sizes")))
  ]
  protocols = wemath.BENCHMARK.protocols
  (authors,) = grading.grade(protocols["authors"], answered, prover, Scripted([]))
  (alone,) = grading.grade(protocols["toolkit"], answered, prover)
  (helped,) = grading.grade(protocols["toolkit"], answered, prover, Scripted([["B"]]))
  assert authors.extractions == (None, "A")
  assert alone.extractions == ("B", "A")
  assert helped.extractions == ("B", "B")


def test_stored_extractions_and_verdicts_are_taken_as_they_are(prover):
  answered = [
    (Problem("1", "", "A, C"), StoredAnswers("1", ("the first",), extractions=("c, a",))),
    (Problem("2", "", "B"), StoredAnswers("2", verdicts=(True,))),
    (Problem("3", "", "B"), StoredAnswers("3", ("B",))),
  ]
  protocol = logicvista.BENCHMARK.protocols["authors"]
  graded = grading.grade(protocol, answered, prover, Scripted([["A"]]))
  assert [one.right for one in graded] == [(True,), (True,), (False,)]
  assert [one.extractors for one in graded] == [
    (grading.STORED,),
    (grading.VERDICT,),
    ("scripted",),
  ]
