r"""Votes and grades against other people's judgement: public test suites and math-verify.

`tests/golden/answer_pairs.json` holds pairs of answers with the verdicts of public test suites,
`answers_pool.json` answers as public benchmarks write them. What differs is listed here by kind:
a vote is a function of one answer, so it knows no tolerance, no question and no gold answer.
"""

import collections
import itertools

import math_verify
import pytest

from sejax.text.canonical import canonical
from tests import golden

PAIRS = golden.load("answer_pairs.json")["pairs"]
POOL = golden.load("answers_pool.json")["answers"]

# The number of forms of POOL: who joins or parts answers, runs the slow test below.
FORMS = 3680

# Places in PAIRS of answers that are one vote and should be two by the suite's verdict.
FALSELY_EQUAL = {
  "a unit at the end is dropped (that suite drops cm^2, but not cm)": [197],
  "a formula in dollars may run over several lines": [14],
}
# Places of answers that are two votes and should be one.
FALSELY_UNEQUAL = {
  "a comma may separate as well as begin decimals: 1,22": [2, 6],
  "a decimal equals only what it equals exactly": [66, 73, 78, 176, 181, 182, 190, 206, 208, 221]
  + [226, 231],
  "lists and tuples have an order, and sets are not lists": [88, 104, 105, 114, 183, 184],
  "a list whose items have different names is not the bare list": [106, 113, 212],
  "one of several answers is not all of them": [109, 118, 126, 127, 133, 134],
  "an answer is read, not searched for in a solution": [138, 139, 140, 141, 142, 143, 144, 145]
  + [146, 147, 148, 149, 150, 153],
  "equations that must be solved for a name, or that are false": [16, 58, 64, 108],
  "sums are not brought over one denominator, and identities of functions are not used": [69]
  + [200, 225],
  "50% is 50, whatever the question": [180],
  "times of day are not converted": [196],
  "numbers that differ, a letter and a name, a number and any text": [92, 136, 166],
}

# The same of grades, which `sejax.text.equivalence.Prover` gives.
GRADED_FALSELY_EQUAL = FALSELY_EQUAL
GRADED_FALSELY_UNEQUAL = {
  "a comma may separate as well as begin decimals: 1,22": [2],
  "one of several answers is not all of them": [109, 118, 126, 127, 133, 134],
  "dollars inside dollars, and a false equation": [16],
  "decimals inside sums and equations are not rounded": [176, 206],
  "decimals are rounded, not cut off: 125.663 for 125.6637": [182],
  "names may be negative, which is why two powers of them differ": [200],
  "numbers that differ": [92],
  "a letter in front of a name or of a word is not an option": [136, 139],
}

# Answers that math-verify finds different, each group with one form. Every one was read.
NAMES_ARE_DROPPED = [
  [r"$p=1 / 3$", "$x = 1/3$", r"$x = 5+5+1 = 1/3 \approx 11$", r"$x=1/3\approx1.3$"],
  ["$$A:B=1$$", "$k=1$", "$x=1$"],
  [r"$k \in {1,2,3}$", r"x \in {1,2,3}"],
  [r"$x=-\frac{1}{4}$", r"y = -\frac{1}{4}"],
  ["$h=4$.", "$x=4$", "b=4"],
  ["$x=-1$ or $x=1$", "$y=1$ and $y=-1$"],
  ["$N=10$", "$k=10$"],
  ["$E(X)=2$", r"$\log \left(e^{\ln (100)}\right)=2$", "$x=2$", "$z = 1 + 1 = 2$"]
  + ["$z = 3+3 = 2$"],
  ["$N=5$", r"$\ln \left(e^{5}\right)=5$", r"$\log _{2}(32)=5$", r"$\mathrm{r}=5$", "x=5"],
  [r"$\log _{13}(\sqrt{13})=\frac{1}{2}$", r"$x=\frac{1}{2}$"],
  [r"$\frac{40}{3} \approx 13.33$ minutes", r"$\frac{40}{3}=a$", r"\frac{40}{3}"],
  [r"$\ln \left(\frac{1}{\sqrt{e}}\right)=-\frac{1}{2}$", r"$x=-\frac{1}{2}$"],
  [r"$\log _{2}\left(3^{-\log _{3}(2)}\right)=-1$", "$x=-1$"]
  + [r"$i^{26}=\left(i^{4}\right)^{6} \cdot i^{2}=1 \cdot(-1)=-1$"]
  + [r"$i^{6}=i^{4} \cdot i^{2}=1 \cdot(-1)=-1$"],
  [r"$\log _{4}(8)=\frac{3}{2}$", r"$x=\frac{3}{2}$", r"x = \frac{3}{2}"],
  [r"$\log _{6}\left(\frac{1}{36}\right)=-2$", "$x=-2$"],
  # The only answers of different value, if x is the same: like AB = 5 and CD = 5.
  [r"\cos(x)=\frac{42}{59}", r"\sin(x)=\frac{42}{59}"],
]
UNITS_ARE_DROPPED = [
  ["$10$", "10", r"10 \text{cm}", "10 cm^2", "10 square units", "10 weeks", "10%", "10m"]
  + [r"10\text{ cm}^2", r"10\text{ cm}^{2}", r"10^\circ", r"\$ 10", "$N=10$", "$k=10$"],
  [r"$\frac{1}{20}$", "0.05", r"0.05\%", r"\frac{1}{20}"],
]
LETTERS_AND_WORDS = [  # math-verify takes words for products of their letters
  ["$A$", "(A) Cecile", "A", r"\textbf{A}", r"\text{(A)}", r"\text{A}", "a"],
  ["(D) Alina", "D", "D. it can't be A or B", r"\text{(D)}", r"\text{D}"],
  ["B。 不是 A", r"\text{B}"],
  ["No", "No."],
  ["Yes.", "yes"],
]
NOT_READ_BY_MATH_VERIFY = [  # -3./2 as -3, 1 1/2 as 1
  ["$-3 / 2$", "-3./2", r"-\frac32", r"-\frac{3}{2}"],
  ["1 1/2", r"1 \frac{1}{2}", "1.5", r"1\frac12", r"\frac32", r"\tfrac{3}{2}"]
  + [r"$x=\frac{3}{2}$", r"x = \frac{3}{2}", r"$\log _{4}(8)=\frac{3}{2}$"],
]
READ_BY_A_PERSON = (
  NAMES_ARE_DROPPED + UNITS_ARE_DROPPED + LETTERS_AND_WORDS + NOT_READ_BY_MATH_VERIFY
)


def test_verdicts_of_public_suites():
  wrong = {True: [], False: []}
  for place, pair in enumerate(PAIRS):
    is_equal = canonical(pair["answer"]) == canonical(pair["gold"])
    if is_equal != pair["equal"]:
      wrong[is_equal].append(place)
  assert wrong[True] == sorted(itertools.chain(*FALSELY_EQUAL.values()))
  assert wrong[False] == sorted(itertools.chain(*FALSELY_UNEQUAL.values()))


def test_grades_of_public_suites(prover):
  wrong = {True: [], False: []}
  for place, pair in enumerate(PAIRS):
    is_equal = prover.equal(pair["answer"], pair["gold"])
    assert is_equal is not None
    if is_equal != pair["equal"]:
      wrong[is_equal].append(place)
  assert wrong[True] == sorted(itertools.chain(*GRADED_FALSELY_EQUAL.values()))
  assert wrong[False] == sorted(itertools.chain(*GRADED_FALSELY_UNEQUAL.values()))


def test_exceptions_of_the_pool():
  for answers in READ_BY_A_PERSON:
    assert set(answers) <= set(POOL)
    assert len(set(map(canonical, answers))) == 1


def test_answers_of_the_pool_that_share_a_form():
  assert len(set(map(canonical, POOL))) == FORMS


@pytest.mark.slow
def test_math_verify_finds_no_other_difference_between_answers_of_one_form():
  votes = collections.defaultdict(list)
  for answer in POOL:
    votes[canonical(answer)].append(answer)
  known = [set(answers) for answers in READ_BY_A_PERSON]
  values = {
    answer: math_verify.parse(answer if "$" in answer else f"${answer}$")
    for answers in votes.values()
    if len(answers) > 1
    for answer in answers
  }
  different = [
    (first, second)
    for answers in votes.values()
    for first, second in itertools.combinations(answers, 2)
    if values[first] and values[second]
    if not any({first, second} <= answers for answers in known)
    if not math_verify.verify(values[first], values[second])
    if not math_verify.verify(values[second], values[first])
  ]
  assert different == []
  # What math-verify cannot read are amounts of money, which are what they are without the sign.
  assert all(answer.lstrip("-").startswith(r"\$") for answer, value in values.items() if not value)
