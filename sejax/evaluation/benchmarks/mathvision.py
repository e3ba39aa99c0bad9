r"""MathVision: competition mathematics in pictures (3,040 problems; `testmini` 304 of them).

Source: arXiv:2402.14804.

Half are multiple choice of A to E, half have free answers. One picture each; placeholders such as
`<image1>` stay in the text. Accuracy overall, by subject, by level and by both.

Forms: `id`, `question`, `options`, `answer`, `level`, `subject`, `image` (JSON lines, hub), and the
toolkit's table with `index`, `choices`, `category` and pictures in base64.

- `authors`: rules alone extract and compare. Values agree when they are equal to two decimals, so
  1/300 counts as 1/900, and 2018 as sqrt(2018^2 + 2).
- `toolkit`: the letter rule, else a model extracts; values agree to 1e-6. Without a model, the last
  box or else the whole response stands in.
- `strict`: as `toolkit`, but a letter that begins a word is none ("the answer is about 3").
"""

import dataclasses
import functools
import re

from sejax.evaluation.benchmarks import fields, letters
from sejax.evaluation.benchmarks.fields import Row
from sejax.evaluation.benchmarks.protocol import (
  Asking,
  Benchmark,
  Problem,
  Protocol,
  accuracy,
  boxed,
)
from sejax.text.equivalence import Prover

_LETTERS = "ABCDE"
_CLOSE = 1e-6

# The end of a response announces its answer in one of these ways.
_ANNOUNCED = (
  "the final answer is",
  "the answer is",
  "the correct answer is",
  "the answer should be",
)
# What the authors take out of an answer without blanks, in this order.
_DROPPED = (
  *(r"\text", r"\mbox", r"\left", r"\right", r"^{\circ}", r"^\circ"),
  *("{m}^3", "m^3", "{units}", "units", "{km}", "km"),
  *(r"\!", r"\$", "$", r"\%"),
)


def read_problem(row: Row) -> Problem:
  """Reads a row of any form."""
  choices = fields.listed(fields.first(row, "options", "choices"))
  tags = {"subject": fields.text(row, "subject", "category", default="")}
  if level := fields.text(row, "level", default=""):
    tags["level"] = level
  return Problem(
    id=fields.text(row, "id", "index"),
    question=fields.text(row, "question"),
    gold=fields.text(row, "answer"),
    options=fields.options(choices),
    images=fields.images(row, "decoded_image", "image"),
    tags=tags,
  )


def prompt(problem: Problem) -> str:
  """Returns the question in the authors' step-by-step form.

  Options that are only letters are drawn in the picture and left out.
  """
  form = "the letter of the right option" if problem.options else "the final answer"
  drawn = all(letter == text.rstrip(")") for letter, text in problem.options.items())
  lines = [] if drawn else [f"({letter}) {text}" for letter, text in problem.options.items()]
  return "\n".join(
    [
      f"Solve the problem step by step and put {form}, and nothing else, in one \\boxed{{}}.",
      problem.question,
      *lines,
    ]
  )


def rules(problem: Problem, response: str) -> str | None:
  """Returns the answer by the authors' rules: a letter or a value in lower case."""
  del problem
  response = response.strip()
  if letter := _final_letter(response):
    return letter.lower()
  tail = response.rpartition("is ")[2].rstrip(".")
  answer = _cut(tail if _is_number(tail) else response)
  return _clean(_last_value(_inside_box(answer.lower().replace("{}", "")))) or None


def right(problem: Problem, answer: str, prover: Prover) -> bool:
  """Whether an answer is the gold one, or the text of the gold option, by the authors' rules."""
  golds = [problem.gold]
  if option := problem.options.get(problem.gold):
    golds.append(option)
  return any(_same_to_two_decimals(answer, gold, prover) for gold in golds)


def _final_letter(response: str) -> str | None:
  for letter in _LETTERS:
    if response.endswith((f" {letter}.", f" ({letter}).")) or response.startswith(
      (f"{letter}\n", f"({letter})\n", f"({letter}) {letter}\n")
    ):
      return letter
  return None


def _is_number(text: str) -> bool:
  try:
    float(text)
  except ValueError:
    return False
  return True


def _cut(answer: str) -> str:
  """Returns the part of a response that announces the answer, or its last box with what follows."""
  before, found, inside = answer.rpartition("oxed{")
  if found:
    return found + inside if "oxed{" in before else answer
  for phrase in _ANNOUNCED:
    for written in (phrase, f"T{phrase[1:]}"):
      if written in answer:
        answer = answer.rpartition(written)[2].strip().partition("\n")[0].partition(". ")[0]
  return answer


def _inside_box(text: str) -> str:
  """Returns the inside of a box up to the last brace; or what comes before a brace opens."""
  box = re.search(r"oxed\{(.*)\}", text, re.DOTALL)
  inside = box[1] if box else text
  before = inside.partition("}")[0]
  return inside if "{" in before else before


def _last_value(text: str) -> str:
  for sign in ("=", r"\approx"):
    text = text.rpartition(sign)[2]
  return text


def _clean(text: str) -> str:
  r"""Returns a value without blanks, some units and marks, its fractions and roots in full LaTeX.

  As the authors do it: a root without braces is of one character, \sqrt13 being 3 times \sqrt{1};
  `units` is dropped and `unit` is not.
  """
  text = re.sub(r"[ \n]|\\,", "", text).replace("∞", r"\infty").replace(r"+\infty", r"\infty")
  text = text.replace("\\\\", "\\").replace("bmatrix", "pmatrix")
  for dropped in _DROPPED:
    text = text.replace(dropped, "")
  text = text.replace("tfrac", "frac").replace("dfrac", "frac")
  text = re.sub(r"^\.|(?<=\{)\.", "0.", text)
  if "sqrt" in text:
    text = re.sub(r"\\sqrt(?!\\sqrt)([^{])", r"\\sqrt{\1}", text)
    text = re.sub(r"\\frac([^{])(?:\{|(.))", _full_fraction, text)
  if text == "0.5":
    text = r"\frac{1}{2}"
  text = re.sub(r"^(-?\d+)/(-?\d+)$", r"\\frac{\1}{\2}", text)
  text = re.sub(r"\(([a-e])\)", r"\1", text)
  text = re.sub(r"\{([a-e])\}", r"\1", text)
  return text.rstrip(".").lstrip(":").strip()


def _full_fraction(found: re.Match[str]) -> str:
  """Puts braces around a numerator of one character, and around such a denominator."""
  return rf"\frac{{{found[1]}}}" + ("{" if found[2] is None else f"{{{found[2]}}}")


def _same_to_two_decimals(answer: str, gold: str, prover: Prover) -> bool:
  answer, gold = answer.lower().strip(), gold.lower().strip()
  if not answer or not gold:
    return False
  if answer == gold:
    return True
  if _is_list(answer) and _is_list(gold):
    return _same_elements(answer, gold, prover)
  gold_value = _value(gold, prover)
  value = None if gold_value is None else _value(answer, prover)
  return value is not None and round(value, 2) == round(gold_value, 2)


def _value(text: str, prover: Prover) -> float | None:
  """Returns a value as the authors' parser finds it.

  It takes what comes before a brace that closes nothing, and knows no degree marks, no negative
  blanks and no letters beyond ASCII.
  """
  if "\\circ" in text or "\\!" in text or not text.isascii():
    return None
  return prover.latex_value(_balanced(text))


def _balanced(text: str) -> str:
  depth = 0
  for place, character in enumerate(text):
    depth += {"{": 1, "}": -1}.get(character, 0)
    if depth < 0:
      return text[:place]
  return text


def _is_list(text: str) -> bool:
  return (text[0], text[-1]) in (("(", ")"), ("[", "]")) and "," in text


def _same_elements(answer: str, gold: str, prover: Prover) -> bool:
  """Whether two tuples or lists have the same elements, values being rounded to two decimals."""
  parts, gold_parts = answer[1:-1].split(","), gold[1:-1].split(",")
  if answer[0] != gold[0] or len(parts) != len(gold_parts):
    return False

  def rounded(part: str) -> float | str:
    value = _value(part, prover)
    return part.strip() if value is None else round(value, 2)

  return all(rounded(x) == rounded(y) for x, y in zip(parts, gold_parts, strict=True))


def toolkit_prompt(problem: Problem) -> str:
  """Returns the question as it is, which is what the toolkit sends."""
  return problem.question


def toolkit_find(problem: Problem, response: str, *, whole_words: bool = False) -> str | None:
  """Returns the letter of a multiple choice, or a response that is the gold answer as a whole.

  Args:
    problem: the problem.
    response: the response to it.
    whole_words: whether letters must be words, see `letters.read_letter`.
  """
  if problem.options:
    return letters.read_letter(response, problem.options, whole_words=whole_words)
  return response if response == problem.gold else None


def toolkit_query(problem: Problem, response: str) -> str:
  """Returns what a model is asked that extracts."""
  return (
    "Below are a question and a response to it. Write down the final answer that the response"
    " gives, as short as it can be: a letter, a number or an expression, and nothing else.\n\n"
    f"Question: {problem.question}\n\nResponse: {response}\n\nFinal answer:"
  )


def toolkit_read(problem: Problem, reply: str, *, whole_words: bool = False) -> str | None:
  """Returns the answer in an extraction.

  Args:
    problem: the problem.
    reply: of the model that extracts.
    whole_words: as in `toolkit_find`.
  """
  if problem.options:
    return letters.read_letter(reply, problem.options, whole_words=whole_words)
  return reply.strip() or None


def toolkit_right(problem: Problem, answer: str, prover: Prover) -> bool:
  """Whether an answer is the gold one, or a value that is closer to it than 1e-6."""
  if problem.options:
    return answer == problem.gold
  sides = [text.lower().strip() for text in (answer, problem.gold)]
  if sides[0] == sides[1]:
    return True
  for value in (prover.expression_value, prover.latex_value):
    values = [value(text) for text in sides]
    if None not in values and abs(values[0] - values[1]) < _CLOSE:
      return True
  return False


def toolkit_rules(problem: Problem, response: str, *, whole_words: bool = False) -> str | None:
  """Returns what is found without a model, else the last box; a response may be a bare answer.

  The toolkit compares a whole response with the gold answer by value before it asks a model.

  Args:
    problem: the problem.
    response: the response to it.
    whole_words: as in `toolkit_find`.
  """
  found = toolkit_find(problem, response, whole_words=whole_words)
  if found is None and (content := boxed(problem, response)):
    found = toolkit_read(problem, content, whole_words=whole_words)
  if found is None and not problem.options:
    found = response.strip() or None
  return found


_SCORES = accuracy(("subject",), ("level",), ("level", "subject"))
_TOOLKIT = Protocol(
  prompt=toolkit_prompt,
  rules=toolkit_rules,
  right=toolkit_right,
  scores=_SCORES,
  asking=Asking(find=toolkit_find, query=toolkit_query, read=toolkit_read),
)
_STRICT = dataclasses.replace(
  _TOOLKIT,
  rules=functools.partial(toolkit_rules, whole_words=True),
  asking=Asking(
    find=functools.partial(toolkit_find, whole_words=True),
    query=toolkit_query,
    read=functools.partial(toolkit_read, whole_words=True),
  ),
)

BENCHMARK = Benchmark(
  name="mathvision",
  files=(
    "MathVision.tsv",
    "mathvision/**/test-*.parquet",
    "mathvision/test.jsonl",
    "MathVision_MINI.tsv",
    "mathvision*/testmini.jsonl",
  ),
  problem=read_problem,
  protocols={
    "authors": Protocol(prompt=prompt, rules=rules, right=right, scores=_SCORES),
    "toolkit": _TOOLKIT,
    "strict": _STRICT,
  },
)
