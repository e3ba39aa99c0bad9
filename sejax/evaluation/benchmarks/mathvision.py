r"""MathVision: 3,040 competition problems with an image each (`testmini`: 304 of them).

Source: arXiv:2402.14804.

Half are multiple choice (A to E), half have free answers. Placeholders such as `<image1>` stay in
the text. Metrics: accuracy, also by subject, by level and by both.

Row formats: `id`, `question`, `options`, `answer`, `level`, `subject`, `image` (JSON lines, hub);
and the toolkit's table with `index`, `choices`, `category` and images in base64.

- `authors`: rules extract and compare. Values are compared after rounding to two decimals, so
  1/300 equals 1/900, and 2018 equals sqrt(2018^2 + 2).
- `toolkit`: the letter rule extracts, then a model. Values must agree to 1e-6. If no model is
  given, the last `\boxed{}` or else the whole response replaces it.
- `strict`: as `toolkit`, but the letter after "answer is" must be a whole word, so that "the answer
  is about 3" does not choose A.
"""

import functools
import re

from sejax.evaluation.benchmarks import fields, letters
from sejax.evaluation.benchmarks.fields import Row
from sejax.evaluation.benchmarks.protocol import (
  Benchmark,
  ModelExtraction,
  Problem,
  Protocol,
  accuracy,
  boxed,
)
from sejax.text.equivalence import Prover

_LETTERS = "ABCDE"
_CLOSE = 1e-6

# Phrases before the answer, in the authors' order.
_ANNOUNCED = (
  "the final answer is",
  "the answer is",
  "the correct answer is",
  "the answer should be",
)
# What the authors delete from an answer, after its blanks and in this order.
_DROPPED = (
  *(r"\text", r"\mbox", r"\left", r"\right", r"^{\circ}", r"^\circ"),
  *("{m}^3", "m^3", "{units}", "units", "{km}", "km"),
  *(r"\!", r"\$", "$", r"\%"),
)


def read_problem(row: Row) -> Problem:
  """Converts a row of any of the files in `BENCHMARK.files` to a problem."""
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
  """Returns the question with the authors' step-by-step instruction.

  Options whose texts are only letters are in the image, so they are not listed.
  """
  form = "the letter of the right option" if problem.options else "the final answer"
  in_image = all(letter == text.rstrip(")") for letter, text in problem.options.items())
  lines = [] if in_image else [f"({letter}) {text}" for letter, text in problem.options.items()]
  return "\n".join(
    [
      f"Solve the problem step by step and put {form}, and nothing else, in one \\boxed{{}}.",
      problem.question,
      *lines,
    ]
  )


def extract(problem: Problem, response: str) -> str | None:
  """Extracts a letter or a value, in lower case, by the authors' rules."""
  del problem
  response = response.strip()
  if letter := _final_letter(response):
    return letter.lower()
  tail = response.rpartition("is ")[2].rstrip(".")
  answer = _cut(tail if _is_number(tail) else response)
  return _clean(_last_value(_inside_box(answer.lower().replace("{}", "")))) or None


def is_right(problem: Problem, answer: str, prover: Prover) -> bool:
  """Whether an answer agrees with the gold answer or its option's text, by the authors' rules."""
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
  """Cuts a response to its last box (if there are several) or to what follows an answer phrase."""
  before, box, inside = answer.rpartition("oxed{")
  if box:
    return box + inside if "oxed{" in before else answer
  for phrase in _ANNOUNCED:
    for spelling in (phrase, f"T{phrase[1:]}"):
      if spelling in answer:
        answer = answer.rpartition(spelling)[2].strip().partition("\n")[0].partition(". ")[0]
  return answer


def _inside_box(text: str) -> str:
  """Returns the content of a box; without inner braces only up to the first closing brace."""
  box = re.search(r"oxed\{(.*)\}", text, re.DOTALL)
  inside = box[1] if box else text
  before = inside.partition("}")[0]
  return inside if "{" in before else before


def _last_value(text: str) -> str:
  for sign in ("=", r"\approx"):
    text = text.rpartition(sign)[2]
  return text


def _clean(text: str) -> str:
  r"""Normalizes a LaTeX value: deletes blanks and some units, braces fractions and roots.

  This reproduces the authors' code with its quirks: a root without braces spans one character, so
  \sqrt13 is \sqrt{1} times 3; `units` is deleted, but `unit` is not.
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


def _full_fraction(match: re.Match[str]) -> str:
  """Adds braces around a numerator of one character, and around such a denominator."""
  return rf"\frac{{{match[1]}}}" + ("{" if match[2] is None else f"{{{match[2]}}}")


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
  """Evaluates LaTeX with the limits of the authors' parser; None if it cannot.

  That parser stops at an unbalanced closing brace, and fails on degree marks, negative spaces and
  characters beyond ASCII.
  """
  if "\\circ" in text or "\\!" in text or not text.isascii():
    return None
  return prover.latex_value(_balanced(text))


def _balanced(text: str) -> str:
  """Returns what comes before the first closing brace that was not opened."""
  depth = 0
  for index, character in enumerate(text):
    depth += {"{": 1, "}": -1}.get(character, 0)
    if depth < 0:
      return text[:index]
  return text


def _is_list(text: str) -> bool:
  return (text[0], text[-1]) in (("(", ")"), ("[", "]")) and "," in text


def _same_elements(answer: str, gold: str, prover: Prover) -> bool:
  """Whether two tuples or lists have equal elements; values are rounded to two decimals."""
  parts, gold_parts = answer[1:-1].split(","), gold[1:-1].split(",")
  if answer[0] != gold[0] or len(parts) != len(gold_parts):
    return False

  def rounded(part: str) -> float | str:
    value = _value(part, prover)
    return part.strip() if value is None else round(value, 2)

  return all(rounded(x) == rounded(y) for x, y in zip(parts, gold_parts, strict=True))


def toolkit_prompt(problem: Problem) -> str:
  """Returns the question as it is, as the toolkit does."""
  return problem.question


def toolkit_rule(problem: Problem, response: str, *, whole_words: bool = False) -> str | None:
  """Extracts the letter of a multiple choice; a free response only if it equals the gold answer.

  Args:
    problem: the problem.
    response: the response to it.
    whole_words: see `letters.read_letter`; True for the protocol `strict`.
  """
  if problem.options:
    return letters.read_letter(response, problem.options, whole_words=whole_words)
  return response if response == problem.gold else None


def extraction_prompt(problem: Problem, response: str) -> str:
  """Returns the prompt of the model that extracts the answer."""
  return (
    "Below are a question and a response to it. Write down the final answer that the response"
    " gives, as short as it can be: a letter, a number or an expression, and nothing else.\n\n"
    f"Question: {problem.question}\n\nResponse: {response}\n\nFinal answer:"
  )


def toolkit_parse(problem: Problem, reply: str, *, whole_words: bool = False) -> str | None:
  """Parses the reply of the model that extracts the answer.

  Args:
    problem: the problem.
    reply: the model's reply.
    whole_words: see `toolkit_rule`.
  """
  if problem.options:
    return letters.read_letter(reply, problem.options, whole_words=whole_words)
  return reply.strip() or None


def toolkit_is_right(problem: Problem, answer: str, prover: Prover) -> bool:
  """Whether an answer is the gold answer, or differs from its value by less than 1e-6."""
  if problem.options:
    return answer == problem.gold
  answer, gold = answer.lower().strip(), problem.gold.lower().strip()
  if answer == gold:
    return True
  for evaluate in (prover.expression_value, prover.latex_value):
    value, gold_value = evaluate(answer), evaluate(gold)
    if value is not None and gold_value is not None and abs(value - gold_value) < _CLOSE:
      return True
  return False


def toolkit_extract(problem: Problem, response: str, *, whole_words: bool = False) -> str | None:
  r"""Extracts an answer without a model: by `toolkit_rule`, else from the last `\boxed{}`.

  If both fail on a question without options, the whole response is the answer: the toolkit, too,
  compares it with the gold answer by value before it asks a model.

  Args:
    whole_words: see `toolkit_rule`.
  """
  answer = toolkit_rule(problem, response, whole_words=whole_words)
  if answer is None and (content := boxed(problem, response)):
    answer = toolkit_parse(problem, content, whole_words=whole_words)
  if answer is None and not problem.options:
    answer = response.strip() or None
  return answer


_SCORES = accuracy(("subject",), ("level",), ("level", "subject"))


def _toolkit(*, whole_words: bool) -> Protocol:
  return Protocol(
    prompt=toolkit_prompt,
    extract=functools.partial(toolkit_extract, whole_words=whole_words),
    is_right=toolkit_is_right,
    scores=_SCORES,
    model_extraction=ModelExtraction(
      rule=functools.partial(toolkit_rule, whole_words=whole_words),
      prompt=extraction_prompt,
      parse=functools.partial(toolkit_parse, whole_words=whole_words),
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
  hub="MathLLMs/MathVision",
  read_problem=read_problem,
  protocols={
    "authors": Protocol(prompt=prompt, extract=extract, is_right=is_right, scores=_SCORES),
    "toolkit": _toolkit(whole_words=False),
    "strict": _toolkit(whole_words=True),
  },
)
