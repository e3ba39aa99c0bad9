"""Canonical forms: what is one answer, what is not, and that nothing hostile hurts."""

import itertools
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sejax.text.answers import vote_ids
from sejax.text.canonical import canonical
from sejax.text.rounding import equal_up_to_rounding

EQUAL = [
  [
    r"2/3",
    r"\frac{2}{3}",
    r"\frac23",
    r"\dfrac{2}{3}",
    r"\tfrac{2}3",
    r"\frac{4}{6}",
    "⅔",
    "２/３",
  ],
  ["0.5", "1/2", ".5", "½", r"\frac12", "0.50", "50/100", r"\frac{1}{2}", r"\frac{-1}{-2}"],
  ["2 1/2", "2.5", r"2\frac{1}{2}", r"2\frac12", "2½", "5/2", "2 1/2 cm"],
  ["-2 1/2", "-2.5", r"-2\frac12", "-5/2"],
  ["1,000", "1000", "1 000", "1{,}000", r"1\,000", "1000.0", "10^3", "1e3", "1,000.00"],
  [
    "60^\\circ",
    "60°",
    "60",
    r"60^{\circ}",
    "60 degrees",
    r"60\degree",
    "060",
    "60.",
    "+60",
    "６０",
  ],
  [r"\sqrt{336}", r"4\sqrt{21}", "4√21", r"\sqrt{16}\sqrt{21}", r"4\cdot\sqrt{21}", r"336^{1/2}"],
  [r"4 \sqrt { 2 }", r"4\sqrt2", r"\sqrt{32}", r"8/\sqrt{2}", "4*sqrt(2)", r"2^{5/2}", "2^{2.5}"],
  [r"\frac{\sqrt{2}}{2}", r"1/\sqrt2", r"0.5\sqrt{2}", r"\sqrt{\frac{1}{2}}", r"2^{-1/2}"],
  [r"\frac{1}{1+\sqrt{2}}", r"\sqrt{2}-1", r"-1+\sqrt2"],
  [r"\sqrt[3]{16}", r"2\sqrt[3]{2}", r"2 \cdot 2^{1/3}"],
  [r"10 \pi", r"10\pi", "10π", "10 pi", r"\pi 10", r"10\cdot\pi", r"10\pi \text{ cm}"],
  [r"\frac{3\pi}{4}", r"3\pi/4", r"0.75\pi", r"\frac{3}{4}\pi"],
  [r"\text{A}", "A.", "(A)", "A: foo", "a", "A", r"\textbf{A}", "A)", "(A) foo", "**A**", "Ａ"],
  [r"\text{E}", "E", "E: foo", "E. foo"],
  ["A, C", "A and C", "(A), (C)", r"\text{A, C}"],
  ["x = 5", "5", r"x \approx 5", "AB = 5", r"\angle ABC = 5^\circ", "f(x)=5", r"\text{Area} = 5"],
  [r"5 \text{ cm}", "5 cm", "5cm", r"5\,\mathrm{cm}", r"5 \text{ cm}^2", "5 m", "5 square units"],
  ["5 km/h", "5", r"\$5", "$5$", "5 dollars", r"\boxed{5}", "(5)", "{5}", "5 units"],
  [r"50\%", "50", "50%", "50 percent"],
  ["004", "4", "4.0", "4."],
  ["-0", "0", "0.0", "+0", "0/5"],
  ["12,345.67", "12345.67"],
  [r"\{1,2\}", r"\{2,1\}", r"\left\{1,2\right\}", r"\{1,2,2\}"],
  ["(1,2)", "(1, 2)", r"\left(1,2\right)", "(1.0,2)", "P(1,2)"],
  [r"(-\infty,3) \cup (5,\infty)", r"(5,\infty)\cup(-\infty,3)", "(5, +\\infty) ∪ (-∞, 3)"],
  ["x > 5", "5 < x", "2x > 10"],
  ["x^2-1", "(x-1)(x+1)", "-1+x^2", "x²−1"],
  ["y = 2x + 1", "2x+1", "1+2x"],
  ["3x=2y", "2y=3x", "3x-2y=0"],
  ["x=1, y=2", "y=2, x=1"],
  ["x=3, y=(2,3)", "y=(2,3), x=3", "x = 3 and y = (2, 3)"],
  ["3:2", "3 : 2", "３：２"],
  ["7:30", "07:30"],
  ["Yes", "yes", r"\text{Yes}", "YES."],
  [r"\text{right triangle}", "Right triangle.", "a right triangle"],
  [r"0.\overline{3}", "1/3"],
  [r"1.5\times 10^3", "1500"],
  [r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix} 1.0 \\ 2 \end{bmatrix}"],
  [r"\binom{5}{2}", "10"],
  ["|-3|", "3"],
  ["5!", "120"],
  ["Option B", "B", "Answer: B", "the correct answer is B", r"\(B\)"],
  ["x \\le 7", "x<=7", "x ≤ 7", "7>=x"],
  ["1/8+1/8 = 1/4", "1/4", "0.25"],
  ["{3,4}", r"\{4,3\}"],
  ["seven", "7", "Seven.", r"\text{seven}"],
  ["75^o", "75", "75^{o}", r"75^{\text{o}}"],
  [r"\frac{2+\sqrt{2}}{2}", r"1+\frac{\sqrt{2}}{2}", r"1+1/\sqrt{2}"],
  [r"\frac{\sqrt{3}}{4} s^2", r"\frac{\sqrt{3}}{4}s^2"],
  ["6s^2", "6 s^2"],
  ["A, B, and C", "A, B, C", "(A), (B), (C)"],
  [r"\sin 30\cos 60", r"\cos 60\sin 30"],
  [r"\tan^{-1}(3/4)", r"\arctan(3/4)"],
  [
    r"(A) \frac{1}{2}",
    "A",
    r"\textbf{(A)}\ \frac{1}{2}",
    r"A. \sqrt{2}",
    "(A) -3",
    "(A) (1,2)",
    "A: 5",
    "A: 15",
    "A: " + "long text " * 20,
  ],
  [
    r"x = \frac{10}{2} = 5",
    "5",
    "x = 2 + 3 = 5",
    "AB = CD = 5",
    "f(2)=5",
    "P(X=3)=5",
    r"m\angle 1 = 5^\circ",
    "about 5",
    "5 CM",
    "5 sq. cm",
    "5 (cm)",
    "5 cm2",
    r"5 \text{m}/\text{s}",
    "$5/hour",
    "answer:5",
    "5˚",
    r"\underline{5}",
    r"\boldsymbol{5}",
  ],
  [r"x = 4\sqrt{5} \approx 8.94", r"4\sqrt{5}", r"4\sqrt5 \approx 8.94"],
  [r"\mathbf{\frac{1}{2}}", "1/2", r"\text{$\frac12$}"],
  ["x=5 or x=-5", "x=-5 or x=5"],
  ["answer:B", "B", "the correct answer is option B", r"\textup{B}"],
  [r"\overline{AB}", "AB"],
  [r"(\sin x)^2", r"\sin^2 x"],
]

DIFFERENT = [
  ["2 2/3", "2", "4/3"],
  ["1/2^{99}", "1/2^{98}"],
  ["(1,2)", "(2,1)", "[1,2]", "[1,2)", r"\{1,2\}", "1,2"],
  ["3:2", "3/2"],
  [r"50\%", "0.5"],
  ["0.333", "1/3", "0.33"],
  ["12:30", "2:5", "12/30"],
  ["y = 2m", "2"],
  ["A:B", "A:C", "A"],
  ["A, C", "C, A"],
  ["(a) 3 (b) 5", "(a) 3 (b) 6", "A"],
  ["x>5", "x<5", r"x\ge 5", "5"],
  ["5 red, 3 blue", "5 blue, 3 red"],
  ["3 out of 5", "3 out of 6", "3"],
  ["3 hours 20 minutes", "3 hours"],
  ["9^{9^{9^9}}", "9^{9^9}", "9^{9^{8}}"],
  [r"\sqrt{2}", r"\sqrt{3}", "1.414", "2"],
  [r"\sin 30", r"\sin 60"],
  ["-5", "5"],
  ["10% increase", "10% decrease", "10"],
  ["5 m left", "5 m right", "5 m"],
  ["1+1=2", "2+2=4"],
  ["6 am", "6 pm", "6"],
  ["1 2 3", "123", "12 3"],
  ["1 7/4", "17/4"],
  ["3 4/3", "34/3"],
  ["3 0.5", "15.5"],
  [r"30^\circ 15'", "3015"],
  ["6 s^2", "6 s^3", "6"],
  [r"180^\circ - 2 A", "178"],
  ["6 t - 4", "2"],
  ["2 l + 2 w", "2+2w"],
  ["100 t + 50", "150"],
  ["x = 3 t", "3"],
  ["$2 s^{2}+1-4 s$", "-1"],
  ["2 dozen", "2"],
  ["3 squared", "3"],
  ["2 fifths", "2"],
  ["3 plus x", "3 plus y", "3"],
  ["5 mod x", "5"],
  [r"2\angle ABC", r"2\angle DEF", "2"],
  ["1 square", "1 hexagon", "1 triangle", "1"],
  [r"AB \parallel CD", r"AC \parallel BD"],
  [r"A \setminus B", r"B \setminus A"],
  [r"3 \mid 6", r"6 \mid 3", r"2 \mid 9"],
  [r"7 \bmod 3", r"3 \bmod 7"],
  [r"A\to B\to C", r"C\to B\to A"],
  [r"\angle{ABC}", r"\angle{BAC}"],
  [r"\overrightarrow{AB}", r"\overrightarrow{BA}"],
  [r"\angle ABC, \angle BCA", r"\angle ACB, \angle BCA"],
  [r"\angle CAB=\angle ABC", r"\angle BAC=\angle CBA"],
  ["f(x+2)=-g(x)", "g(-x)=-f(-x-2)"],
  ["(A, B)", "(B, A)"],
  ["(C,A,B)", "A, B, C"],
  ["5-4-3-2-1", "5-2-3-4-1", "-5"],
  ["10-15", "-5"],
  [r"\sin 30^\circ \cdot 2", r"\sin 60^\circ"],
  [r"\sin 60^\circ / 2", r"\sin 30"],
  [r"\tan^{-1}(3/4)", r"1/\tan(3/4)"],
  [r"\frac12?", r"\frac32?"],
  ["a) 3, b) 5", "a) 4, b) 6", "A"],
  ["a: 12, b: 15", "a: 13, b: 16"],
  ["A: 12, B:15", "A: 13, B:16"],
  ["I. only", "I. and II. only", "I"],
  ["(b)h/2", "B"],
  ["A'", "A''", "A"],
  ["x'", "x"],
  ["0.333...", "0.333"],
  ["1,2,3,...", "1,2,3"],
  [r"\angle 1 = \angle 2", "2"],
  [r"\begin{pmatrix}1&2\end{pmatrix}", "[1,2]", r"\begin{vmatrix}1&2\end{vmatrix}"],
  ["A(1,2), B(3,4)", "B(1,2), A(3,4)"],
  ["(1,000)", "(1,0)"],
  ["A: 5", "A:5"],
]

HOSTILE = {
  "tower of powers": "2^" * 50_000 + "2",
  "short tower": "9^" * 40 + "9",
  "open braces": "{" * 100_000,
  "open brackets": "(" * 100_000,
  "short brackets": "(" * 100,
  "fractions": r"\frac{" * 20_000,
  "digits": "9" * 100_000,
  "signs": "-" * 100 + "5",
  "roots": r"\sqrt" * 20 + "2",
  "expansion": "(x+1)^8(y+1)^8",
  "huge literals": "1e400*1e400*1e400",
  "vulgar fractions": "½" * 120,
  "text commands": r"\text{" * 30 + "a" + "}" * 30,
  "surrogates": "\ud800\x00",
  "conjugates": r"1/(1+\sqrt2+\sqrt3+\sqrt5+\sqrt7)",
  "factorials": "50!!!!",
  "division by zero": "1/(x-x)",
  "zero to the zero": "0^0",
  "broken argument": r"\frac1.5",
  "product of huge numbers": "*".join(["1e400"] * 12),
  "four roots": r"1/(i+\sqrt2+\sqrt3+\sqrt5)",
  "commas and a point": "1,01.3",
  "groups of digits": "1,000" * 2_000,
  "blanks and groups": "1 000 " * 2_000,
  "marked groups": r"1,\!000" * 1_500,
  "applications": "P(" * 5_000,
  "short applications": "x(" * 23,
  "short points": "A(" * 23,
  "marks of arc": "1°1'" * 2_500,
  "signs of two values": r"\pm 1," * 1_700,
  "short signs of two values": r"\pm 1," * 15,
  "options": "A、" * 5_000,
  "Chinese words": "和厘米" * 3_000,
  "stars": "*" * 10_000,
  "rows": r"\begin{cases}" + r"1&2\\" * 1_500,
  "colours": r"\textcolor{red}{" * 600,
  "primes": r"^{\prime\prime" * 700,
  "large radicand": r"\sqrt{99999999999999999989}",
}


@pytest.mark.parametrize("answers", EQUAL, ids=lambda answers: answers[0])
def test_equal_answers_are_one_vote(answers):
  assert vote_ids([answers])[0].tolist() == [0] * len(answers)


@pytest.mark.parametrize("answers", DIFFERENT, ids=lambda answers: answers[0])
def test_different_answers_are_different_votes(answers):
  assert vote_ids([answers])[0].tolist() == list(range(len(answers)))


def test_no_two_listed_values_are_merged():
  """The classes of EQUAL are themselves distinct, but for the values that are listed twice."""
  forms = [canonical(answers[0]) for answers in EQUAL]
  repeated = {form for form in forms if forms.count(form) > 1}
  assert repeated == {"5", "1/2", "A", "B"}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_answers_end_quickly(kind):
  start = time.perf_counter()
  canonical(HOSTILE[kind])
  # Far above what any of them takes; it only tells linear time from a hang.
  assert time.perf_counter() - start < 2.0


_PIECES = st.sampled_from(
  list("0123456789abxyABC+-*/^_(){}[]|,.:;=<>!% $\\")
  + [r"\frac", r"\sqrt", r"\pi", r"\text{ cm}", r"\{", r"\}", r"\le", " and ", "cm", "½", "²", "°"]
)
_ANSWERS = st.lists(_PIECES, max_size=30).map("".join) | st.text(max_size=60)


@given(_ANSWERS)
@settings(max_examples=400, deadline=None)
@example(r"\frac")
@example(r"\begin{pmatrix}")
@example("1_")
def test_any_text_has_a_canonical_form(text):
  assert isinstance(canonical(text), str)


@given(st.lists(st.sampled_from(list(itertools.chain(*EQUAL, *DIFFERENT))), min_size=2, max_size=8))
@settings(max_examples=100, deadline=None)
def test_votes_do_not_depend_on_the_order(answers):
  ids = vote_ids([answers])[0]
  reversed_ids = vote_ids([answers[::-1]])[0][::-1]
  same = ids[:, None] == ids[None, :]
  assert (same == (reversed_ids[:, None] == reversed_ids[None, :])).all()


@given(
  st.integers(-(10**9), 10**9), st.integers(1, 10**6), st.integers(1, 50), st.sampled_from("ab")
)
@settings(max_examples=100, deadline=None)
def test_fractions_are_exact(numerator, denominator, factor, style):
  scaled = f"{numerator * factor}/{denominator * factor}"
  if style == "b":
    scaled = rf"\frac{{{numerator * factor}}}{{{denominator * factor}}}"
  assert canonical(f"{numerator}/{denominator}") == canonical(scaled)
  assert canonical(f"{numerator}/{denominator}") != canonical(f"{numerator + 1}/{denominator}")


@given(st.integers(1, 200), st.integers(1, 500))
@settings(max_examples=100, deadline=None)
def test_surds_are_exact(outside, inside):
  assert canonical(rf"{outside}\sqrt{{{inside}}}") == canonical(rf"\sqrt{{{outside**2 * inside}}}")
  assert canonical(rf"{outside}\sqrt{{{inside}}}") != canonical(
    rf"\sqrt{{{outside**2 * inside + 1}}}"
  )


@pytest.mark.parametrize(
  ("answer", "gold", "right"),
  [
    (r"4\sqrt{5}", "8.94", True),
    ("8.94", r"4\sqrt{5}", True),
    ("8.95", r"4\sqrt{5}", False),
    ("0.33", "1/3", True),
    ("0.3", "1/3", True),
    ("0.34", "1/3", False),
    ("8.944", "8.94", False),
    (r"2\pi", "6.28", True),
    ("1/2", r"\frac{1}{2}", True),
    ("x", "0.5", False),
    (r"8.94\text{ cm}", r"4\sqrt5", True),
    ("x = 8.94", r"4\sqrt5", True),
    (r"\approx 3.14", r"\pi", True),
    ("10^{400}", "0.5", False),
    (r"\frac{1}{2}", "0.5", True),
    ("-8.94", r"-4\sqrt5", True),
    (None, "5", False),
    ("1,414.21", r"1000\sqrt2", True),
    ("2,0.33", "2,1/3", True),
    # Their canonical forms differ: an option and a variable, a range and a number.
    ("[x]", "x", False),
    ("10-15", "-5.0", False),
  ],
)
def test_grading_allows_a_decimals_own_precision(answer, gold, right):
  assert equal_up_to_rounding(answer, gold) is right


@pytest.mark.parametrize("nothing", ["...", "$$", r"\text{}", r"\,", "°", "…", "?", "{}"])
def test_nothing_said_is_no_vote(nothing):
  assert vote_ids([[nothing, "5"]])[0].tolist() == [-1, 0]


def test_quotients_by_zero_are_texts_that_keep_their_sign():
  assert canonical("1/0") == canonical(r"\frac{1}{0}")
  assert canonical("-1/0") == canonical(r"-\frac{1}{0}") == canonical("−1/0")
  assert len({canonical(answer) for answer in ("1/0", "-1/0", "2/0", "0", "1", "-1")}) == 6
