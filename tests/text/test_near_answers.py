"""Kinds of answers that are easily taken for one another, and kinds that are one vote.

Where a form is in doubt, an answer is a vote of its own.
"""

import itertools

import pytest

from sejax.text.canonical import canonical

APART = {
  "ranges between other signs": [
    "$10$-$15$",
    "$15$-$20$",
    "-5",
    "10 m-15 m",
    "15 m-20 m",
    "10 - 15 cm",
  ]
  + ["15 - 20 cm"],
  "ranges in sets": [r"\{1-2, 3\}", r"\{2-3, 3\}", r"\{-1, 3\}", "(1-2, 3)", "(2-3, 3)", "(-1, 3)"],
  "hours and other units": ["2 h, 30 min", "2 h, 30 sec", "2h, 30"],
  "letters close to a letter": ["(A)BC", "(A)BD", "A"],
  "letters that may be variables": [
    "m, 2m",
    "m, 2",
    "2m, 3n",
    "2, 3n",
    "2m or 3",
    "2 or 3",
    "h and 2h",
    "h and 2",
  ],
  "units behind a letter": [
    "2m/t",
    r"2m\cdot g",
    r"2m\times V",
    "2m*h",
    "2h/g",
    "2m^2/t",
    "2m^{-1}",
    "2m/L",
    "2",
  ],
  "a letter given to a variable": [r"\theta = 2m", "2", r"\lambda = 2h", "ab = 2m"],
  "ranges with units": [
    "10-15 cm",
    "15-20 cm",
    "10-15%",
    r"10-15^\circ",
    "x = 10-15",
    "-5",
    "10°-15°",
  ],
  "ranges in brackets": ["(10-15)", "[10-15]", "(15-20)", "-5", "10-15"],
  "ranges of money": [r"\$10-\$15", r"\$15-\$20", "-5"],
  "ranges of decimals": ["1.5-2.5", "2.5-3.5", "-1", "1,000-2,000", "2,000-3,000", "-1000"],
  "ranges of fractions": ["1/4-3/4", "1/2-1", "-1/2"],
  "lists of ranges": ["10-15, 20-25", "-5,-5", "15-20, 25-30", "3-2 or 4-3", "1", "4-3 or 5-4"],
  "orders in a list": ["5-4-3-2-1, 6", "5-2-3-4-1, 6", "-5, 6"],
  "days in a list": ["12/10/2024, 1/2/2024", "6/5/2024, 1/2/2024", "12/10/2024 cm", "6/5/2024 cm"],
  "spans of time": ["2:30-3:30", "3:30-4:30", "9:00-10:00", "10:00-11:00"],
  "times of day": ["7:05", "7:5", "7:05 pm", "7:5 pm", "7:50"],
  "braces side by side": [r"{30}^\circ{100}^\circ", "3000", r"\mathbf{30} \mathbf{100}", "30100"],
  "digits in braces": [r"\mathbf{1}\mathbf{2}", "2", "12", r"\underline{2}\underline{1}", "2{1}"],
  "numbers in brackets": [r"(30^\circ)(100^\circ)", "3000", "30 (100)", "(30)(100)", "[30][100]"],
  "a zero in braces": ["1{0}", "0", "10"],
  "repeating digits": ["0.(3)", "0", "0.1(6)", "0.6", "1.23(4)", "4.92", r"0.\overline{3}5", "5/3"],
  "thousands that repeat": [r"1,000.\overline{3}", "1, 1/3"],
  "double factorials": ["3!!", "720", "6", "5!!"],
  "options in a list": [
    "(A), C",
    "(A), D",
    "(A) or B",
    "(A) and B",
    "(A) & B",
    "(A)B",
    "(A) 或 C",
    "A",
  ],
  "expressions of an option's letter": [
    r"(A) \cup B",
    r"(A) \cap B",
    "(A) - B",
    r"(A) \times 2",
    "(A) < 5",
    r"(A) \to B",
    r"(A) \subset B",
    "A",
  ],
  "two letters": ["A. C", "A. D", "A: B", "A: C", "A", "B. C, D"],
  "coordinates behind a letter": [
    "C: 2,3",
    "C: 3,2",
    "C: x=2, y=3",
    "C: x=3, y=2",
    r"C: \langle 2,3\rangle",
    r"C: \langle 3,2\rangle",
    "C",
    "(C): (2,3)",
    "(C): (3,2)",
  ],
  "quantities behind a letter": ["F: 20 N", "F: 30 N", "F", "G: 9.8", "H: -3"],
  "selections in a list": [
    "C(5,2), 1",
    "(5,2), 1",
    "C(5,2) or 1",
    "(5,2) or 1",
    "N(0,1) or 3",
    "(0,1) or 3",
  ],
  "two selections": ["C(5,2), C(5,3)", "(5,2), (5,3)", "P(3,2), 5", "(3,2), 5"],
  "functions of two variables": ["R(3,3)", "(3,3)", "S(n,k)", "(n,k)", "T(n,k)", "S(5,2)", "(5,2)"],
  "functions at a formula": ["f(x+1)=2x", "f(x)=2x", "f(2x)=2x", "a_{n+1}=2x", "f(-x)=2x"],
  "products with a value": [r"x\cdot y=6", r"AB\cdot CD=6", "6", "xy=7"],
  "grouping of alternatives": ["A or B, C", "A, B or C", "A or B and C", "A and B or C"],
  "separators of two kinds": ["(1,2;3)", "(1;2,3)", "(1,2,3)", "1,2;3", "1;2,3"],
  "different units in a list": ["60^\\circ, 5 cm", "60 cm, 5^\\circ"],
  "amounts of money": [r"\$60, 5 cents", r"60 cents, \$5"],
  "a percentage in a list": [r"5\%, 3", r"5, 3\%"],
  "plurals that tell which way": [
    "5 upwards",
    "5 downwards",
    "5 forwards",
    "5 backwards",
    "5 lefts",
    "5 rights",
    "5",
  ],
  "plurals of numbers": [
    "2 quadrillions",
    "2 crores",
    "2 lakhs",
    "2 twenties",
    "2 negatives",
    "2 zeros",
    "2 doubles",
    "2 centuries",
    "2 decades",
    "2",
  ],
  "sides of a coin": ["3 heads", "3 tails", "3"],
  "cross products": [
    r"\vec a\times\vec b",
    r"\vec b\times\vec a",
    r"\vec{a}\cdot\vec b",
    r"\mathbf{a}\times\mathbf{b}",
    r"\mathbf{b}\times\mathbf{a}",
  ],
  "roots of squares": [r"\sqrt{\cos^2 t}", r"\cos t"],
  "roots of i": [r"\sqrt{i^3}", r"i\sqrt{i}"],
}
EQUAL = {
  "an option's text of letters": ["A", "(A) BC", "A. BC", "(A) Apple", "(A)5", "(A) -3"],
  "Chinese options": [
    "A",
    "A：60°",
    "选（A）",
    "选 (A)",
    "本题选A",
    "「A」",
    "《A》",
    "A ．60°",
    "（A）",
  ],
  "rows of cases": [
    r"\begin{cases} x=1 \\ y=2 \end{cases}",
    r"\begin{cases} x=1 \\[2pt] y=2 \end{cases}",
    r"\begin{cases} x = 1, \\ y = 2. \end{cases}",
    r"\begin{cases}x=1\cr y=2\end{cases}",
    r"\begin{cases} x=1, \\[0.5em] y=2 \\[2pt] \end{cases}",
  ],
  "rows of matrices": [
    r"\begin{pmatrix}1\\2\end{pmatrix}",
    r"\begin{pmatrix}1\\[4pt]2\end{pmatrix}",
    r"\left(\begin{smallmatrix}1\\2\end{smallmatrix}\right)",
  ],
  "units": ["20", r"20\,\rm N", "20 kilogram", "20 cc", "20公分"],
  "degrees": ["45", r"45 {}^\circ", r"45{}^{\circ}"],
  "minutes": ["22.5", r"22^\circ 30^{'}", r"22^\circ 30{}'"],
  "alternatives": ["3 or -1", "3 OR -1", "x=3 OR x=-1", r"3 \lor -1", "3 ∨ -1", "either 3 or -1"],
  "plus and minus": [r"\pm 3", "+/-3", r"\mp 3", "∓3", "3, -3"],
  "at most": [r"x \le 5", "x ⩽ 5"],
  "at least": [r"x \ge 5", "x ⩾ 5"],
  "unequal": [r"x \ne 5", r"x \not= 5", "x ≠ 5"],
  "perpendicular": [r"AB \perp CD", r"AB \bot CD", "AB ⟂ CD"],
  "parallel": [r"AB \parallel CD", "AB ‖ CD"],
  "triangles": [r"\triangle ABC", r"\vartriangle ABC", "Δ ABC", "ΔABC", r"\Delta ABC"],
  "angles": [r"\angle ABC", r"\measuredangle ABC"],
  "colours": ["5", r"\textcolor[rgb]{1,0,0}{5}", r"\color[rgb]{0,1,0}{5}"],
  "hyphens of words": ["21", "twenty‑one", "twenty‐one"],
  "remarks": [
    "12.57",
    "12.57 (2 d.p.)",
    "12.57 (to 2 d.p.)",
    "12.57 (rounded to two decimal places)",
    "approx 12.57",
    r"\sim 12.57",
    "12.57 (3 s.f.)",
  ],
  "points": ["(3,2)", "the point (3,2)", "point (3,2)"],
  "differences": [
    "2",
    "(7-3)/2",
    "x = 7-5 = 2",
    r"\frac{7-3}{2}",
    "2^{5-4}",
    "|3-5|",
    r"\sqrt{7-3}",
  ],
  "products": ["6", "2(3)", "2(1+2)", "3(4-2)", r"2\cdot 3"],
  "names": ["5", "sum = 5", "f(x)=5", "E(XY)=5", r"m\angle 1 = 5", "P(A)=5", "max = 5"],
}


@pytest.mark.parametrize("kind", APART)
def test_answers_of_different_value_are_different_votes(kind):
  forms = {answer: canonical(answer) for answer in APART[kind]}
  same = [pair for pair in itertools.combinations(forms, 2) if forms[pair[0]] == forms[pair[1]]]
  assert same == []


@pytest.mark.parametrize("kind", EQUAL)
def test_answers_of_one_value_are_one_vote(kind):
  forms = {answer: canonical(answer) for answer in EQUAL[kind]}
  assert set(forms.values()) == {canonical(EQUAL[kind][0])}, forms
