r"""DynaMath: 501 seed questions in ten variants each (5,010), to see whether reasoning is robust.

Source: arXiv:2411.00836.

Answers are numbers, options A to F, or texts. Average accuracy; worst case, the share of seeds with
all variants right; robustness, the second over the first; average and worst case by subject and
level. Intervals are over seeds. The headline is the worst case.

Forms: `qid`, `varid`, `question`, `answer`, `answer_type`, `subject`, `level` (JSON lines), the
hub's ten files with `id` and `ground_truth`, whose names hold the variant, and the toolkit's table.

The answer is asked for in a JSON object. Numbers are right to 0.001.

- `authors`: rules alone. A text is right where the gold text is in it.
- `toolkit`: a model reads what rules cannot. A text is right where it is in the gold text, so an
  empty one is. A choice that the model cannot read either is right where the gold letter is among
  the first three characters of the response.
- `strict`: as `toolkit`, but a text is right where it is the gold text or has its value.
"""

import dataclasses
import json
import math
import re
from collections.abc import Sequence

import numpy as np

from sejax.evaluation import metrics
from sejax.evaluation.benchmarks import fields
from sejax.evaluation.benchmarks.fields import Row
from sejax.evaluation.benchmarks.protocol import (
  Asking,
  Benchmark,
  Graded,
  Problem,
  Protocol,
  Scores,
  Share,
  Stored,
  boxed,
  breakdown,
  right_samples,
  shares,
  stored,
  totals,
)
from sejax.text.equivalence import Prover

FLOAT, CHOICE, TEXT = "float", "multiple choice", "text"
_CLOSE = 0.001
_FORMS = {
  FLOAT: "the number as a decimal with three digits after the point",
  CHOICE: "the letter of the right option alone",
  TEXT: "the text of the answer, any decimal in it with three digits after the point",
}
_FLOAT_REQUEST = "Answer the question with a floating-point number."
_EXAMPLE = '{"solution": "step 1: ...; step 2: ...", "short answer": "..."}'
_VARIANT = re.compile(r"variant_?(\d+)")


def read_problem(row: Row) -> Problem:
  """Reads a row of any form."""
  kind = fields.text(row, "answer_type", "anwser_type")
  return Problem(
    id=key(row),
    question=fields.text(row, "question"),
    gold=fields.text(row, "answer", "ground_truth").strip(),
    kind=kind,
    images=fields.images(row, "decoded_image", "image"),
    tags={
      "subject": fields.text(row, "subject", default=""),
      "level": fields.text(row, "level", "knowledge_level", default=""),
    },
    unit=fields.text(row, "qid", "id"),
  )


def key(row: Row) -> str:
  """Returns the id of a row's problem, `<seed>/<variant>`.

  Raises:
    ValueError: the row names no seed, or no variant.
  """
  seed = fields.text(row, "qid", "id")
  if "/" in seed:
    return seed
  variant = row.get("varid")
  if variant is None and (named := _VARIANT.search(str(row.get("file", "")))):
    variant = named[1]
  if variant is None:
    raise ValueError(f"a row of seed {seed} names no variant; it needs the field varid")
  return f"{seed}/{variant}"


def stored_verdicts(row: Row, problem_id: str) -> Stored:
  """Reads a stored answer, or the verdict on one."""
  verdict = row.get("correct")
  if isinstance(verdict, bool) and "response" not in row:
    return Stored(problem_id, verdicts=(verdict,))
  return stored(row, problem_id)


def by_variant(row: Row) -> list[Row]:
  """Returns a row per variant of a row that holds a seed's ten verdicts; others as they are."""
  verdicts = row.get("correct")
  if not isinstance(verdicts, list):
    return [row]
  return [{**row, "varid": n, "correct": verdict} for n, verdict in enumerate(verdicts, 1)]


def prompt(problem: Problem) -> str:
  """Returns the question under a heading, and the form in which to answer."""
  return (
    f"## Question\n{problem.question}\n\n## Form of the answer\n"
    "Reply with one JSON object that has two keys: `solution`, your reasoning step by step, and"
    f" `short answer`, {_FORMS[problem.kind]}. For example:\n{_EXAMPLE}"
  )


def authors_prompt(problem: Problem) -> str:
  """Returns the same, a number being asked for in the question, too."""
  if problem.kind != FLOAT or _FLOAT_REQUEST in problem.question:
    return prompt(problem)
  question = f"{problem.question} {_FLOAT_REQUEST}"
  return prompt(dataclasses.replace(problem, question=question))


def authors_rules(problem: Problem, response: str) -> str | None:
  """Returns the short answer of the JSON object; the last line where there is none."""
  answer = _short_answer(response)
  if answer is None:
    answer = (response.strip().splitlines() or [""])[-1]
  answer = str(answer).strip()
  return parse(answer, FLOAT) if problem.kind == FLOAT else answer


def authors_right(problem: Problem, answer: str, prover: Prover) -> bool:
  """Whether an answer is right: a text, where the gold text is in it as it is."""
  del prover
  if problem.kind == TEXT:
    return problem.gold in answer
  return _right(problem, answer)


def find(problem: Problem, response: str) -> str | None:
  """Returns the short answer, parsed by its kind; else all that counts of a response so parsed."""
  text = _without_marks(response)
  answer = _short_answer(text)
  parsed = parse(answer, problem.kind) if isinstance(answer, str) else None
  return parse(text.strip(), problem.kind) if parsed is None else parsed


def unread(problem: Problem, response: str) -> str | None:
  """Returns what counts of the response to a multiple choice; `right` looks at its beginning."""
  if problem.kind != CHOICE:
    return None
  return _without_marks(response).strip() or None


def rules(problem: Problem, response: str) -> str | None:
  """Returns what is found without a model, else the last box, else a choice's response."""
  found = find(problem, response)
  if found is None and (content := boxed(problem, response)):
    found = parse(content, problem.kind)
  return unread(problem, response) if found is None else found


def query(problem: Problem, response: str) -> str:
  """Returns what a model is asked that extracts."""
  return (
    "Reply with the short final answer that a response to a question gives, in one line and with"
    f" nothing else: {_FORMS[problem.kind]}.\n\nQuestion: {problem.question}\n\n"
    f"Response: {response}\n\nShort answer:"
  )


def read(problem: Problem, reply: str) -> str | None:
  """Returns a model's short answer, parsed by its kind."""
  return parse(reply.strip(), problem.kind)


def parse(answer: str, kind: str) -> str | None:
  """Returns an answer as its kind has it; None where it is not of that kind."""
  if kind == FLOAT:
    number = _number(answer)
    return None if number is None else repr(number)
  if kind == CHOICE:
    if len(answer) == 1:
      return answer.upper()
    named = [letter for letter in "ABCDE" if letter in answer.upper()]
    return named[0] if len(named) == 1 else None
  return answer


def right(problem: Problem, answer: str, prover: Prover) -> bool:
  """Whether an answer is right: a text, where it is in the gold text."""
  del prover
  if problem.kind == TEXT:
    return answer.lower() in problem.gold.lower()
  return _right(problem, answer.upper())


def strict_right(problem: Problem, answer: str, prover: Prover) -> bool | None:
  """Whether an answer is right: a text, where it is the gold text or has its value."""
  if problem.kind != TEXT:
    return _right(problem, answer.upper())
  sides = ["".join(text.casefold().split()) for text in (answer, problem.gold)]
  return sides[0] == sides[1] or (bool(sides[0]) and prover.equal(answer, problem.gold))


def _right(problem: Problem, answer: str) -> bool:
  if problem.kind == FLOAT:
    return abs(float(answer) - float(problem.gold)) <= _CLOSE
  if len(answer) == 1:
    return answer == problem.gold
  return problem.gold in answer[:3]


def _without_marks(response: str) -> str:
  """Returns what the toolkit looks at: what stands in braces, if any, without backslashes."""
  start, end = response.find("{"), response.rfind("}")
  if 0 <= start < end:
    response = response[start : end + 1]
  return response.replace("\\", "")


def _short_answer(response: str) -> object:
  """Returns what the JSON object in a response has for its short answer; None where it has none."""
  start, end = response.find("{"), response.rfind("}")
  try:
    return json.loads(response[start : end + 1], strict=False)["short answer"]
  except (ValueError, TypeError, KeyError, RecursionError):
    return None


def _number(text: str) -> float | None:
  """Returns the number at the beginning of a text, of which pi may be a factor."""
  token = (text.split() or [""])[0]
  factor, found, rest = token.partition("π")
  if rest:
    return None
  try:
    number = float(factor) * (math.pi if found else 1)
  except ValueError:
    return None
  return number if math.isfinite(number) else None


def scores(graded: Sequence[Graded]) -> Scores:
  """Returns average, worst case and robustness, with intervals over seeds."""
  seeds = _Seeds.of(graded)
  number = len(seeds.worst)

  def average(weights):
    return metrics.mean(weights, seeds.right, seeds.variants)

  def worst(weights):
    return metrics.mean(weights, seeds.worst)

  figures = {
    "accuracy": average,
    "worst case": worst,
    "robustness": lambda weights: worst(weights) / average(weights),
  }
  counts = {
    "right": float(shares(graded).sum()),
    "problems": len(graded),
    "seeds all right": float(seeds.worst.sum()),
    "seeds": number,
  }
  breakdowns = {}
  for tag in ("subject", "level"):
    breakdowns[tag] = breakdown(graded, tag)
    breakdowns[f"worst case by {tag}"] = seeds.worst_by(tag)
  return Scores(
    {name: metrics.bootstrap(figure, number) for name, figure in figures.items()},
    counts,
    breakdowns,
  )


@dataclasses.dataclass(frozen=True)
class _Seeds:
  """Per seed: right variants, whether all are right (means over samples), variants; and tags."""

  right: np.ndarray
  worst: np.ndarray
  variants: np.ndarray
  tags: list[dict[str, str]]

  @classmethod
  def of(cls, graded: Sequence[Graded]) -> "_Seeds":
    rows: dict[str, list[np.ndarray]] = {}
    tags: dict[str, dict[str, str]] = {}
    for one, each in zip(graded, right_samples(graded), strict=True):
      rows.setdefault(one.problem.unit, []).append(each)
      tags.setdefault(one.problem.unit, dict(one.problem.tags))
    seeds = [np.array(variants) for variants in rows.values()]
    return cls(
      right=np.array([each.sum(axis=0).mean() for each in seeds]),
      worst=np.array([each.all(axis=0).mean() for each in seeds]),
      variants=np.array([len(each) for each in seeds]),
      tags=list(tags.values()),
    )

  def worst_by(self, tag: str) -> dict[str, Share]:
    return totals(zip((tags[tag] for tags in self.tags), self.worst, strict=True))


_TOOLKIT = Protocol(
  prompt=prompt,
  rules=rules,
  right=right,
  scores=scores,
  headline="worst case",
  asking=Asking(find=find, query=query, read=read, unread=unread, tries=1),
)

BENCHMARK = Benchmark(
  name="dynamath",
  files=(
    "DynaMath.tsv",
    "dynamath/**/sample_variant*.parquet",
    "dynamath/variants.jsonl",
  ),
  problem=read_problem,
  protocols={
    "authors": Protocol(
      prompt=authors_prompt,
      rules=authors_rules,
      right=authors_right,
      scores=scores,
      headline="accuracy",
    ),
    "toolkit": _TOOLKIT,
    "strict": dataclasses.replace(_TOOLKIT, right=strict_right),
  },
  key=key,
  stored=stored_verdicts,
  expand=by_variant,
)
