r"""DynaMath: 501 seed questions in ten variants each (5,010 problems), a test of robustness.

Source: arXiv:2411.00836.

Answers are numbers, options A to F, or texts. Metrics: average accuracy; worst case, the fraction
of seeds whose variants are all right (the main metric); robustness, worst case over average; and
average and worst case by subject and level. Confidence intervals resample seeds.

Row formats: `qid`, `varid`, `question`, `answer`, `answer_type`, `subject`, `level` (JSON lines);
the hub's ten files with `id` and `ground_truth`, one per variant; and the toolkit's table.

The prompt asks for a JSON object. A number is right if it differs by at most 0.001.

- `authors`: rules extract. A text is right if it contains the gold text.
- `toolkit`: rules extract, then a model. A text is right if the gold text contains it, so an empty
  text is right. A choice that neither can extract is right if the gold letter is among the first
  three characters of the response.
- `strict`: as `toolkit`, but a text is right if it equals the gold text or has the same value.
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
  Benchmark,
  Graded,
  ModelExtraction,
  Problem,
  Protocol,
  Scores,
  Share,
  StoredAnswers,
  boxed,
  breakdown,
  read_stored,
  right_samples,
  shares,
  totals,
)
from sejax.text.equivalence import Prover

FLOAT, CHOICE, TEXT = "float", "multiple choice", "text"
_TOLERANCE = 0.001
_FORMS = {
  FLOAT: "the number as a decimal with three digits after the point",
  CHOICE: "the letter of the right option alone",
  TEXT: "the text of the answer, any decimal in it with three digits after the point",
}
_FLOAT_REQUEST = "Answer the question with a floating-point number."
_EXAMPLE = '{"solution": "step 1: ...; step 2: ...", "short answer": "..."}'
_VARIANT = re.compile(r"variant_?(\d+)")


def read_problem(row: Row) -> Problem:
  """Converts a row of any of the files in `BENCHMARK.files` to a problem."""
  kind = fields.text(row, "answer_type", "anwser_type")
  return Problem(
    id=problem_id(row),
    question=fields.text(row, "question"),
    gold=fields.text(row, "answer", "ground_truth").strip(),
    kind=kind,
    images=fields.images(row, "decoded_image", "image"),
    tags={
      "subject": fields.text(row, "subject", default=""),
      "level": fields.text(row, "level", "knowledge_level", default=""),
    },
    cluster=fields.text(row, "qid", "id"),
  )


def problem_id(row: Row) -> str:
  """Returns the id of the problem that a row belongs to, `<seed>/<variant>`.

  Raises:
    ValueError: the row states no seed or no variant.
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


def stored_verdicts(row: Row, problem_id: str) -> StoredAnswers:
  """Reads a stored response, or a stored verdict if the row has no response."""
  verdict = row.get("correct")
  if isinstance(verdict, bool) and "response" not in row:
    return StoredAnswers(problem_id, verdicts=(verdict,))
  return read_stored(row, problem_id)


def by_variant(row: Row) -> list[Row]:
  """Splits a row with the ten verdicts on a seed into one row per variant."""
  verdicts = row.get("correct")
  if not isinstance(verdicts, list):
    return [row]
  return [{**row, "varid": n, "correct": verdict} for n, verdict in enumerate(verdicts, 1)]


def prompt(problem: Problem) -> str:
  """Returns the question and the instruction on the output format."""
  return (
    f"## Question\n{problem.question}\n\n## Form of the answer\n"
    "Reply with one JSON object that has two keys: `solution`, your reasoning step by step, and"
    f" `short answer`, {_FORMS[problem.kind]}. For example:\n{_EXAMPLE}"
  )


def authors_prompt(problem: Problem) -> str:
  """Returns the same prompt; the question of a number asks for a number, too."""
  if problem.kind != FLOAT or _FLOAT_REQUEST in problem.question:
    return prompt(problem)
  question = f"{problem.question} {_FLOAT_REQUEST}"
  return prompt(dataclasses.replace(problem, question=question))


def authors_extract(problem: Problem, response: str) -> str | None:
  """Extracts the short answer of the JSON object, else the last line."""
  answer = _short_answer(response)
  if answer is None:
    answer = (response.strip().splitlines() or [""])[-1]
  answer = str(answer).strip()
  return parse(answer, FLOAT) if problem.kind == FLOAT else answer


def authors_is_right(problem: Problem, answer: str, prover: Prover) -> bool:
  """Whether an answer is right; a text is right if it contains the gold text."""
  del prover
  if problem.kind == TEXT:
    return problem.gold in answer
  return _right(problem, answer)


def extract_by_rule(problem: Problem, response: str) -> str | None:
  """Extracts the short answer of the JSON object, else the whole text, if they can be parsed."""
  text = _relevant_text(response)
  answer = _short_answer(text)
  parsed = parse(answer, problem.kind) if isinstance(answer, str) else None
  return parse(text.strip(), problem.kind) if parsed is None else parsed


def fallback(problem: Problem, response: str) -> str | None:
  """Returns the text of a response to a multiple choice; `is_right` compares its beginning."""
  if problem.kind != CHOICE:
    return None
  return _relevant_text(response).strip() or None


def extract(problem: Problem, response: str) -> str | None:
  r"""Extracts an answer without a model: by rule, from the last `\boxed{}`, or by `fallback`."""
  answer = extract_by_rule(problem, response)
  if answer is None and (content := boxed(problem, response)):
    answer = parse(content, problem.kind)
  return fallback(problem, response) if answer is None else answer


def extraction_prompt(problem: Problem, response: str) -> str:
  """Returns the prompt of the model that extracts the answer."""
  return (
    "Reply with the short final answer that a response to a question gives, in one line and with"
    f" nothing else: {_FORMS[problem.kind]}.\n\nQuestion: {problem.question}\n\n"
    f"Response: {response}\n\nShort answer:"
  )


def parse_reply(problem: Problem, reply: str) -> str | None:
  """Parses the reply of the model that extracts the answer."""
  return parse(reply.strip(), problem.kind)


def parse(answer: str, kind: str) -> str | None:
  """Normalizes an answer of one of the kinds `FLOAT`, `CHOICE`, `TEXT`; None if it is no such."""
  if kind == FLOAT:
    number = _number(answer)
    return None if number is None else repr(number)
  if kind == CHOICE:
    if len(answer) == 1:
      return answer.upper()
    letters = [letter for letter in "ABCDE" if letter in answer.upper()]
    return letters[0] if len(letters) == 1 else None
  return answer


def is_right(problem: Problem, answer: str, prover: Prover) -> bool:
  """Whether an answer is right; a text is right if the gold text contains it."""
  del prover
  if problem.kind == TEXT:
    return answer.lower() in problem.gold.lower()
  return _right(problem, answer.upper())


def strict_is_right(problem: Problem, answer: str, prover: Prover) -> bool | None:
  """Whether an answer is right; a text is right if it is the gold text or has the same value."""
  if problem.kind != TEXT:
    return _right(problem, answer.upper())
  folded, gold = ("".join(text.casefold().split()) for text in (answer, problem.gold))
  return folded == gold or (bool(folded) and prover.equal(answer, problem.gold))


def _right(problem: Problem, answer: str) -> bool:
  """Whether a number or an option is right."""
  if problem.kind == FLOAT:
    return abs(float(answer) - float(problem.gold)) <= _TOLERANCE
  if len(answer) == 1:
    return answer == problem.gold
  return problem.gold in answer[:3]


def _relevant_text(response: str) -> str:
  """Returns what the toolkit examines: the text in braces, if any, without backslashes."""
  start, end = response.find("{"), response.rfind("}")
  if 0 <= start < end:
    response = response[start : end + 1]
  return response.replace("\\", "")


def _short_answer(response: str) -> object:
  """Returns the value of `short answer` in the JSON object of a response, or None."""
  start, end = response.find("{"), response.rfind("}")
  try:
    return json.loads(response[start : end + 1], strict=False)["short answer"]
  except (ValueError, TypeError, KeyError, RecursionError):
    return None


def _number(text: str) -> float | None:
  """Parses the first word of a text as a number, possibly followed by a factor pi."""
  token = (text.split() or [""])[0]
  factor, pi, rest = token.partition("π")
  if rest:
    return None
  try:
    number = float(factor) * (math.pi if pi else 1)
  except ValueError:
    return None
  return number if math.isfinite(number) else None


def scores(graded: Sequence[Graded]) -> Scores:
  """Returns average accuracy, worst case and robustness; intervals resample seeds."""
  seeds = _Seeds.of(graded)

  def average(weights):
    return metrics.mean(weights, seeds.right, seeds.variants)

  def worst(weights):
    return metrics.mean(weights, seeds.worst)

  def robustness(weights):
    return worst(weights) / average(weights)

  statistics = {"accuracy": average, "worst case": worst, "robustness": robustness}
  counts = {
    "right": float(shares(graded).sum()),
    "problems": len(graded),
    "seeds all right": float(seeds.worst.sum()),
    "seeds": len(seeds.worst),
  }
  breakdowns = {}
  for tag in ("subject", "level"):
    breakdowns[tag] = breakdown(graded, tag)
    breakdowns[f"worst case by {tag}"] = seeds.worst_by(tag)
  return Scores(
    metrics={
      name: metrics.bootstrap(statistic, len(seeds.worst)) for name, statistic in statistics.items()
    },
    counts=counts,
    breakdowns=breakdowns,
  )


@dataclasses.dataclass(frozen=True)
class _Seeds:
  """Results by seed question.

  Attributes:
    right: number of right variants of each seed, averaged over samples.
    worst: fraction of samples in which all variants are right.
    variants: number of variants.
    tags: tags of each seed.
  """

  right: np.ndarray
  worst: np.ndarray
  variants: np.ndarray
  tags: list[dict[str, str]]

  @classmethod
  def of(cls, graded: Sequence[Graded]) -> "_Seeds":
    rows: dict[str, list[np.ndarray]] = {}
    tags: dict[str, dict[str, str]] = {}
    for item, right in zip(graded, right_samples(graded), strict=True):
      rows.setdefault(item.problem.cluster, []).append(right)
      tags.setdefault(item.problem.cluster, dict(item.problem.tags))
    seeds = [np.array(variants) for variants in rows.values()]  # (variants, samples) each
    return cls(
      right=np.array([seed.sum(axis=0).mean() for seed in seeds]),
      worst=np.array([seed.all(axis=0).mean() for seed in seeds]),
      variants=np.array([len(seed) for seed in seeds]),
      tags=list(tags.values()),
    )

  def worst_by(self, tag: str) -> dict[str, Share]:
    return totals(zip((tags[tag] for tags in self.tags), self.worst, strict=True))


_TOOLKIT = Protocol(
  prompt=prompt,
  extract=extract,
  is_right=is_right,
  scores=scores,
  headline="worst case",
  model_extraction=ModelExtraction(
    rule=extract_by_rule,
    prompt=extraction_prompt,
    parse=parse_reply,
    fallback=fallback,
    max_attempts=1,
  ),
)

BENCHMARK = Benchmark(
  name="dynamath",
  files=(
    "DynaMath.tsv",
    "dynamath/**/sample_variant*.parquet",
    "dynamath/variants.jsonl",
  ),
  hub="DynaMath/DynaMath_Sample",
  read_problem=read_problem,
  protocols={
    "authors": Protocol(
      prompt=authors_prompt,
      extract=authors_extract,
      is_right=authors_is_right,
      scores=scores,
      headline="accuracy",
    ),
    "toolkit": _TOOLKIT,
    "strict": dataclasses.replace(_TOOLKIT, is_right=strict_is_right),
  },
  problem_id=problem_id,
  read_stored=stored_verdicts,
  expand_stored=by_variant,
)
