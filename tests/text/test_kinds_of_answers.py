r"""Which answers are one vote, kind by kind.

Each case is a list of votes, and each vote the ways to write it: answers of one line are equal,
answers of two lines of one case are not. A case that keeps apart what may be equal says why.
"""

import pytest

from sejax.text.canonical import canonical

UNITS = {
  "a letter set upright is a unit": [
    [r"20\text{ N}", "20", r"20\mathrm{N}", r"20\,\mathrm{N}", r"20~\mathrm{N}", r"20 \ \text{N}"],
    ["20 N"],  # bare, it may be a variable
  ],
  "upright letters of other units": [
    [
      r"10{\rm m}",
      r"10\mathrm{g}",
      "10",
      r"10\text{ s}",
      r"10 \mathrm{~L}",
      r"10\,\mathrm{m}/\mathrm{s}^{2}",
    ],
  ],
  "bare m and h directly after a number": [
    ["5m", "5 m", "5", r"5\text{ m}", "5 h", "5 hr", "5h", "AB = 5m", "Area = 5 m²", "5 m/s"],
    ["y = 5m"],  # an expression in m
    ["-5m"],  # no length is negative
    ["5lm"],
    ["5 s"],
  ],
  "powers of units": [
    ["90m²", "90", "90 m^2", r"90\text{ m}^{2}", "90cm2", "90 square meters", "90 sq. ft"],
    ["90 h^2"],
  ],
  "hyphens": [["90-cm", "90", "90-degree"], ["90-m"], ["90-cm-5"]],
  "what is counted": [
    [r"5 \text{ triangles}", "5", "5 triangles", r"\text{5 students}", "5 people"],
    ["5 triangle"],
    [r"5 \text{ red}, 3 \text{ blue}"],
    ["5, 3"],
  ],
  "plurals that are numbers": [
    ["2"],
    [r"2 \text{ fifths}"],
    [r"2 \text{ halves}"],
    [r"2 \text{ pairs}"],
    [r"2 \text{ times}"],
    [r"2 \text{ million}", "2000000"],
  ],
  "remarks": [
    [
      "12.57 (approx)",
      "12.57",
      r"12.57 \text{ (approx.)}",
      "12.57 approx",
      "12.57 (approximately)",
    ],
  ],
  "after a rounded or an exact value": [
    [r"4\sqrt{5} \text{ cm} \approx 8.94 \text{ cm}", r"4\sqrt5", r"4\sqrt{5}\text{ m}"],
  ],
  "after numbers of other forms": [
    ["2.5", "2.5 m", "2 1/2 m", r"\frac{5}{2}\text{ m}", r"2\frac12 \text{ h}"],
    [r"\frac{5}{2} m"],  # may be algebra
  ],
  "powers of ten": [["3 \\times 10^8 m/s", r"3\times 10^{8} \text{ m/s}", "300000000"]],
  "after a symbol only words are": [[r"2x \text{ cm}", "2x"], [r"2x\text{ m}"]],
  "temperatures": [["25℃", "25", r"25^\circ C", r"25^{\circ}\mathrm{C}", "25 °F"], ["25C"]],
  "percent": [["10%", r"10\%", "10 percent", "10 pct", "10"], ["0.1"]],
  "sums": [["3 m + 6"], ["9"], [r"3\text{ m} + 6 + m"], ["5 cm + 4"]],
  "sums of percents": [[r"50\% + 3"], ["53"]],
  "powers": [["(2 m)^2"], ["4"], [r"2^{2 m}"]],
  "fractions": [[r"\frac{4}{3 m}"], ["4/3"], [r"\frac{4 \text{ cm}}{3}"]],
  "products": [["2nm+1"], ["3"], ["2m+1"]],
  "products of two letters": [["6rs"], ["6"], ["6nm"], ["6kw"]],
  "brackets": [["(3 m)(2)"], ["6"], ["3(2 cm)"], ["[3 m, 4 m]"], ["[3, 4]"]],
  "inequalities": [["6 m < 3"], ["1<0"], ["6<3"]],
  "equations": [["2 m = 6"], ["2=6"], ["6"]],
  "one unit in a list": [["3 cm, 4 cm", "3, 4 cm", "3, 4"]],
  "two units in a list": [
    ["5 hours, 3 minutes"],
    ["5 minutes, 3 hours"],
    ["5, 3"],
  ],
  "a unit that is a preposition": [["2 in", "2"], ["2 in 3"], ["3"], ["8"]],
}

VALUES = {
  "signs of order in a text": [[r"x \leq 5 always", "x ≤ 5 always", "x <= 5 always"]],
  "equations in a name": [["2^x=8"], ["3^x=8"], ["8"], ["|x|=8"], [r"\ln x=8"], [r"x^2 \in [8,9]"]],
  "names of lengths": [["|AB|=1", "1", r"|\vec{a}|=1", r"\log_2 2 = 1", r"\sin A = 1"]],
  "names in arguments": [["P(X=1)"], ["P(Y=1)"], ["P(X=1, Y=2)"], ["P(Y=1, X=2)"], ["(1,2)"]],
  "names in sets": [
    [r"\{x=1, y=2\}", r"\{y=2, x=1\}"],
    [r"\{x=2, y=1\}"],
    [r"\{1,2\}", r"\{x=1, x=2\}"],
  ],
  "names in brackets": [["(x=1, y=2)", "(1,2)"], ["(y=1, x=2)"], ["(1 or 2)"], ["(2,1)"]],
  "relations in brackets": [["N(b=0)"], ["0"]],
  "identities": [
    ["x^2-1=(x-1)(x+1)", "x^2 - 1 = (x - 1)(x + 1)"],
    ["2(x+3)=2x+6"],
    ["x=x"],
    ["0=0"],
    ["1=1"],
    ["0"],
    ["1"],
  ],
  "false equations": [["0=1"], ["2=1"], ["1"]],
  "what is worked out": [["1+1=2", "2", "x=1+1=2", "0.5+1.5=2"], ["2+2=4", "4"]],
  "relations of numbers": [["3<6"], ["1<2"], ["6<3"], ["2<1"]],
  "inequalities without a solution": [["x+1<x"], ["x+2<x"], ["x<x+1"]],
  "values of functions": [["N(0)"], ["y(0)"], ["0"], [r"y_1(0)"], [r"f^{-1}(0)"], [r"\Gamma(0)"]],
  "an unknown function": [["y(2)"], ["2y"], ["y[2]"], [r"\phi(2)"], [r"2\phi"]],
  "a function of a variable": [["y(x)"], ["xy"], ["x(y)"]],
  "sums of functions": [["(f+g)(2)"], ["2f+2g"], ["(f+g)(0)"], ["0"]],
  "products in brackets": [["x(x+1)", "x^2+x", "(x)(x+1)"], ["2(3)", "6"]],
  "a function's value is given": [["y(0)=5", "5", "N(0)=5", "f(2) = 5", "C(5,1)=5"]],
  # A point and its coordinates are one vote, unless the capital may mean something else.
  "points": [
    ["(2,3)", "P(2,3)", "A(2,3)", "A（2,3）", r"M\left(2, 3\right)"],
    ["f(2,3)"],
    ["F(2,3)"],
  ],
  "selections": [["(5,2)"], ["C(5,2)"], ["P(5,2)"], ["A(5,2)"], ["10"], ["20"], ["[5,2]"]],
  "distributions": [["(0,1)"], ["N(0,1)"], ["U(0,1)"]],
  "binomial distribution": [["(10,0.5)"], ["B(10,0.5)"]],
  "no point": [["GCD(4,6)"], ["LCM(4,6)"], ["(4,6)"]],
  "angles and numbers": [[r"\sin 30^\circ", "\\sin(30°)"], [r"\sin 30"]],
  "marks over letters": [[r"\bar{x}"], [r"\hat{x}"], ["x"], [r"\vec{x}"], [r"\overline{x}"]],
  "vectors": [["AB", r"\overline{AB}"], [r"\overrightarrow{AB}"], ["ab"], [r"\overline{ab}"]],
  "number sets": [[r"\mathbb{R}", "ℝ"], ["R"]],
  "case of symbols": [[r"\int x dx"], [r"\int X dX"]],
  "case of Greek letters": [[r"\Delta ?"], [r"\delta ?"]],
  "reciprocal functions": [[r"\sec x", r"\frac{1}{\cos x}"], [r"\csc x", r"1/\sin x"]],
}

NUMBERS = {
  "words": [["21", "twenty-one", "Twenty One", r"\text{twenty-one}"], ["forty", "40"]],
  "the last word": [["ninety-nine", "99"], ["nineteen", "19"], ["ninety", "90"]],
  "powers of ten": [
    ["1.5 x 10^3", "1500", r"1.5 \times 10^{3}", "1.5x10^3", "1.5 X 10³", "1.5*10^3", "1.5e3"],
    ["1.5x 10^3"],  # a variable close to its coefficient
  ],
  "small powers of ten": [["2.5 x 10^{-3}", "0.0025", "2.5 × 10⁻³"]],
  "marked thousands": [
    [r"12,\!345,\!678", "12345678", "12{,}345{,}678", r"12,\! 345,\! 678", "12,345,678"],
  ],
  "degrees": [[r"60\textdegree", "60", "60°", "60º", "60∘", r"60^{\circ}", r"60\circ"]],
  "minutes": [["22^\\circ 30'", "22.5", "22°30′", r"22^{\circ}30^{\prime}", r"22.5^\circ"]],
  "seconds": [["1°0'36\"", "1.01", r"1^\circ 0' 36''"], ["1°36'", "1.6"]],
  "decimal commas": [
    ["0,05", "0.05"],  # no number of a list is written 05
    ["5, 5"],
    ["0,5", "0, 5"],  # a list as well as a decimal
    ["0.5", "0{,}5"],  # the braces keep a comma from separating
  ],
  "decimals in full": [["3,07", "3.07", "3{,}07"], ["3, 7", "3,7"], ["(3,7)"]],
  "degrees side by side": [["70^\\circ,110^\\circ", "70, 110", "70°,110°"], ["70110"]],
  "dollars side by side": [["$70$,$110$", "70, 110", r"$70$, $110$"], ["70110"]],
  "numbers side by side": [["30° 100°"], ["30100"], ["30, 100"], ["30 100", "$30$ $100$"]],
  "thousands": [["1,000", "1000", r"\$1,000", "$1,000$", "1,000 cm^2", "1 000", "1,000.0"]],
  "thousands with decimals": [["12,345.6", "12345.6", r"\$12,345.60"], ["12, 345.6"]],
  "thousands elsewhere": [["1,234", "1234", "x = 1,234"], ["(1,234)"], ["1, 234"], ["1,234 + 5"]],
  "one number or two": [
    ["120,115", "$120,115$", r"120,115^\circ"],
    ["120115"],
    ["120, 115", "120 and 115"],
    ["(120,115)"],
    ["115,120"],
  ],
  "two numbers or one": [["350,275"], ["350275"], ["350, 275"], [r"350\,275"]],
  "stars": [["2**10", "1024", "2^{10}"], ["210"], ["20", "2*10"]],
  "stars at the edges": [["**5**", "5", "*5*", "** 5 **", "**5"]],
  "dates": [["12.10.2024"], ["12.1.2024"], ["12.10"], ["12.102024"]],
  "days": [["12/10/2024"], ["6/5/2024"], ["12/1/2024"], ["2024-12-10"], ["2024-10-12"]],
  "raised and lowered digits": [
    ["101₂", "101_2", "101_{2}"],
    ["1012"],
    ["10₁₂"],
    ["101²", "10201"],
  ],
  "numbers in circles": [["①②"], ["12"], ["①②③"], ["2"]],
  "fractions of one character": [["3⅜", "27/8", r"3\frac{3}{8}"], ["33/8"]],
  "words and units": [
    ["seventy-two degrees", "72", "seventy two cm", "seventy-two apples"],
    ["seventy-two percent more"],
  ],
  "words and other words": [["two fifths"], ["2"], ["two in five"], ["one half"]],
  "large words": [["ten million", "10000000", "10 million"]],
  "numbers of a text": [["Theorem 1.10"], ["Theorem 1.1"]],
  "signs that vanish": [["12"], [r"1\!2", "1$2", r"1\left.2", r"1\,2"]],
}

OPTIONS = {
  "an option's text": [["C", "C: foo", "C. foo", "(C) foo", "C: 5"]],
  "coordinates of a point C": [["C"], ["C: (2,3)"], ["C: (3,2)"], ["C: [2,3]"]],
  "expressions": [["(A)^2", "A^2"], ["A", "(A) x^2"], ["(A)+5", "A+5"]],
  "ratios": [["A:15"], ["A:16"], ["A"]],
  "Chinese": [
    ["选A", "A", "答案：A", "选项A", "【A】", "A、60°", "A．60°", "A项", "故选：A", "正确答案是A"]
    + ["答案为：A", "【答案】A", "（A）", "Ａ", "A选项", "应选A", "答案：选A"],
    ["A、B", "A, B"],
    ["选3"],
  ],
  "Chinese parts": [["A、3 B、5"], ["A、4 B、6"], ["A"]],
  "Chinese units": [
    [
      "60度",
      "60",
      "60 厘米",
      "60个",
      "60平方厘米",
      "约60米",
      "答案：60",
      "x=60米",
      "60厘米²",
      "60米/秒",
    ],
    ["60倍"],
    ["60万"],
    ["第60个"],
  ],
  "Chinese lists": [
    ["30° 和 60°", "30^\\circ, 60^\\circ", "30和60", "30°、60°", "30度和60度", "30 and 60"],
    ["30或60", "60 or 30", "60或者30"],
  ],
}

NOTATION = {
  "divides": [[r"3 \mid 6", "3|6", "3 | 6", r"3\mid6"], [r"6 \mid 3"]],
  "bars": [[r"|x|", r"\lvert x \rvert", r"\left|x\right|"], ["x"]],
  "perpendicular": [["AB ⊥ CD", r"AB \perp CD", r"AB\perp CD"], ["AC ⊥ BD"], ["AB ∥ CD"]],
  "parallel": [["AB ∥ CD", r"AB \parallel CD", "AB//CD", "AB || CD"], ["AC ∥ BD"]],
  "triangles": [
    ["triangle ABC", r"\triangle ABC", "△ABC", r"\text{triangle } ABC", r"\text{Triangle ABC}"],
    ["triangle ACB"],
    ["ABC"],
  ],
  "angles": [["angle A", r"\angle A", "∠A", r"\text{angle }A"], ["A"]],
  "colours": [[r"\textcolor{red}{5}", "5", r"\color{red}{5}", r"{\color{red} 5}"]],
  "line breaks at the end": [["5 \\\\", "5", "5\\", r"5 \ "]],
  "doubled backslashes": [[r"\\frac{1}{2}", "1/2"], [r"\\left(1, \\frac{1}{2}\\right)", "(1,0.5)"]],
  "a row that begins with a letter": [[r"\begin{pmatrix}1\\x\end{pmatrix}"], [r"(1,x)"]],
  "matrices": [
    [r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \\ \end{bmatrix}"]
    + [r"\left[\begin{array}{cc}1 & 2\\3&4\end{array}\right]"],
    [r"\begin{vmatrix}1&2\\3&4\end{vmatrix}", r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}"],
    [r"\left|\begin{array}{cc}1 & 2\\3&4\end{array}\right|"],
  ],
  "systems": [
    [r"\begin{cases} x=1 \\ y=2 \end{cases}", r"\begin{cases}x = 1\\y = 2\\\end{cases}"]
    + [r"\left\{\begin{array}{l}x=1\\ y=2\end{array}\right."],
    [r"\begin{cases} x=2 \\ y=1 \end{cases}"],
  ],
  "cases": [
    [r"\begin{cases} x+1, & x>0 \\ -x, & \text{otherwise}\end{cases}"]
    + [r"\begin{cases}x+1,&x>0\\-x,&\text{otherwise} \end{cases}"],
    [r"\begin{cases} x+1, & x<0 \\ -x, & \text{otherwise}\end{cases}"],
  ],
  "long matrices": [
    [r"\begin{pmatrix}" + r"\\".join(["1&2&3&4&5&6&7"] * 7) + r"\end{pmatrix}"]
    + [r"\begin{pmatrix} " + r" \\ ".join(["1 & 2 & 3 & 4 & 5 & 6 & 7"] * 7) + r" \end{pmatrix}"],
  ],
  "powers side by side": [[r"2.5 \times 1 0^2"], ["250"], ["0"]],
  "products of powers": [["2^6 3^5", r"2^6 \cdot 3^5", "15552"], ["2^6 35"]],
}

LISTS = {
  "alternatives": [
    ["3 or -1", "-1 or 3", "x=3 or x=-1", "x = 3, -1", "x = 3 or -1", r"3 \text{ or } -1", "3或-1"],
    ["3, -1"],  # an order may have been asked for
    ["-1, 3"],
  ],
  "three alternatives": [["1, 2 or 3", "3, 2, or 1", "x = 1, x = 2, x = 3"], ["1, 2, 3"]],
  "alternatives of two names": [["a=1 or b=2", "b=2 or a=1"], ["a=2 or b=1"], ["1 or 2"]],
  "names in part of a list": [["x=1, y=2, 3"], ["y=1, x=2, 3"], ["1, 2, 3"]],
  "plus and minus": [
    [r"\pm 3", "3, -3", r"\pm3", "-3, 3", r"x=\pm 3", "3 or -3", "x=3, x=-3", "± 3"],
    ["3"],
    ["-3"],
  ],
  "conjugates": [
    [r"1 \pm \sqrt{2}", r"1+\sqrt{2}, 1-\sqrt{2}", r"1-\sqrt2, 1+\sqrt2", r"x = 1\pm\sqrt2"],
  ],
  "complex conjugates": [[r"2 \pm i", "2+i, 2-i", "2-i or 2+i"]],
  "no conjugates": [[r"3 \pm 2", "1 or 5"], ["5, 1"], ["1, 5"]],
  "two signs": [[r"\pm a \pm b"], [r"\pm(a + b)"], ["a+b, -a-b"]],
  "sets": [[r"\{\pm 3\}", r"\{-3, 3\}"], [r"\{1\pm\sqrt5,-2\}", r"\{-2, 1+\sqrt5, 1-\sqrt5\}"]],
  "names of tuples": [["(p,q)=(3,2)", "(3,2)", r"\left(x, y\right) = (3, 2)"], ["(q,p)=(3,2)"]],
  "names of ratios": [
    ["V_1:V_2=11:21", "11:21", r"V_{1} : V_{2} = 11 : 21", "AB:CD = 11:21"],
    ["V_2:V_1=11:21"],
  ],
  "a ratio's value": [["A:B=3", "3"], ["B:A=3"]],
  "inequalities": [
    ["x>5", r"(5,\infty)", "5<x", r"x\in(5,+\infty)", "2x>10", "(5, ∞)", "t>5"],
    [r"x \ge 5", r"[5,\infty)", "-x<=-5"],
    ["x<5", r"(-\infty, 5)"],
    ["5"],
    ["f(x)>5"],  # says nothing of x
    ["x+y>5"],
  ],
  "bounds on both sides": [
    [r"-2\le x\le 7", "[-2,7]", r"7\ge x\ge -2", r"x\in[-2,7]", r"-4 \leq 2x \leq 14"],
    [r"-2\le x< 7", "[-2,7)"],
    ["-2<x<7", "(-2,7)", "x>-2 and x<7"],
    ["x>-2, x<7"],  # either the two of them, or one of them
    ["7<x<-2"],
  ],
  "unions": [["x<-2 or x>3", r"(-\infty,-2)\cup(3,\infty)", r"x>3 \text{ or } x<-2"]],
}

CASES = {
  f"{part}: {kind}": votes
  for part, kinds in {
    "units": UNITS,
    "values": VALUES,
    "numbers": NUMBERS,
    "options": OPTIONS,
    "notation": NOTATION,
    "lists": LISTS,
  }.items()
  for kind, votes in kinds.items()
}


@pytest.mark.parametrize("case", CASES)
def test_answers_of_one_line_are_one_vote(case):
  forms = [{canonical(answer) for answer in vote} for vote in CASES[case]]
  assert [len(form) for form in forms] == [1] * len(forms), list(
    zip(CASES[case], forms, strict=True)
  )


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_answers_of_two_lines_are_two_votes(case):
  forms = [form for vote in CASES[case] for form in {canonical(answer) for answer in vote}]
  assert len(set(forms)) == len(forms), forms
