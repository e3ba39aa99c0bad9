r"""MathVerse: 788 problems of geometry and functions, each in five versions with more or less text.

Source: arXiv:2403.14624.

The versions move the same information step by step from the text into the image. Metrics: accuracy
over the five versions, which have equal size; by version; and within each by subject and subfield.
A sixth version, Text Only, is an ablation without images that is not part of the overall accuracy.

Row formats: `sample_index`, `problem_version`, `question`, `answer`, `question_type`, `metadata`,
`query_wo`, `query_cot` (JSON lines, hub). `question_for_eval` (hub, toolkit) is the text that the
version Vision Only has in its image.

Both protocols use a model to extract the answer and a model to judge it. If none is given, rules
replace both: the letter rule or the last `\boxed{}` extracts; equal letters, the text of the right
option, or an equal value is right.

- `authors`: prompts for a direct answer; the model sees the last 30 words of a response.
- `toolkit`: prompts with the question of its table. Its leaderboard uses the version Vision Only.
"""

import dataclasses
import re

from sejax.evaluation.benchmarks import fields, letters
from sejax.evaluation.benchmarks.fields import Row
from sejax.evaluation.benchmarks.protocol import (
  Benchmark,
  Graded,
  ModelExtraction,
  Problem,
  Protocol,
  Scores,
  accuracy,
  boxed,
  breakdown,
  no_answer,
  whole_reply,
)
from sejax.text.equivalence import Prover

TEXT_ONLY = "Text Only"

_WORDS = 30  # last words of a response that the authors' model sees
_OPTION = re.compile(r"^\s*\(?([A-F])\)?\s*[:.]\s*(.+?)\s*$", re.MULTILINE)
_ANSWER_IS = re.compile(r"answer(?: is|:)\s*(.+)", re.IGNORECASE)


def read_problem(row: Row) -> Problem:
  """Converts a row of any of the files in `BENCHMARK.files` to a problem."""
  metadata = row.get("metadata") or {}
  if isinstance(metadata, str):
    metadata = fields.parsed(metadata)
  kind = fields.text(row, "question_type")
  question = fields.text(row, "question", default="")
  full_question = fields.text(row, "question_for_eval", default="") or question
  number = fields.text(row, "problem_index", default="")
  options = dict(_OPTION.findall(full_question)) if kind == "multi-choice" else {}
  return Problem(
    id=fields.text(row, "sample_index", "index"),
    question=question,
    gold=fields.text(row, "answer"),
    kind=kind,
    options=options,
    images=fields.images(row, "images", "image"),
    tags={
      "version": fields.text(row, "problem_version"),
      "subject": str(metadata.get("subject", "")),
      "subfield": str(metadata.get("subfield", "")),
    },
    cluster=number,
    extra={
      "full_question": full_question,
      "direct_prompt": fields.text(row, "query_wo", default=""),
    },
  )


def prompt(problem: Problem) -> str:
  """Returns `query_wo`, the benchmark's prompt for a direct answer; failing that, the question."""
  return problem.extra["direct_prompt"] or problem.question


def toolkit_prompt(problem: Problem) -> str:
  """Returns the question, or `query_wo` if the question is empty because it is in the image."""
  return problem.question or problem.extra["direct_prompt"]


def extract(problem: Problem, response: str) -> str | None:
  r"""Extracts an option letter, else the last `\boxed{}`, "answer is" phrase, or line."""
  if problem.options and (
    letter := letters.read_letter(response, problem.options, whole_words=True)
  ):
    return letter
  if found := boxed(problem, response):
    return found
  named = _ANSWER_IS.findall(response)
  last = named or response.strip().splitlines() or [""]
  return last[-1].strip().rstrip(".") or None


def extraction_prompt(problem: Problem, response: str) -> str:
  """Returns the prompt of the model that extracts the answer."""
  return (
    "Extract the final answer from a response to a mathematical question: an option's letter, a"
    " value or an expression, and nothing else. Write null where the response gives none.\n\n"
    f"Question: {problem.extra['full_question']}\n\nResponse: {response}\n\nExtracted answer:"
  )


def extraction_prompt_end(problem: Problem, response: str) -> str:
  """Returns the same prompt, with only the last words of the response."""
  return extraction_prompt(problem, " ".join(response.split()[-_WORDS:]))


def parse_reply(problem: Problem, text: str) -> str | None:
  """Parses the reply of the model that extracts answers; `null` means that there is none."""
  answer = whole_reply(problem, text.removeprefix("Extracted answer:"))
  return None if answer is None or answer.lower() == "null" else answer


def judge_prompt(problem: Problem, answer: str) -> str:
  """Returns the prompt of the model that judges an answer."""
  return (
    "Does the model's answer agree in full with the standard answer? For a question without"
    " options another form of the same value agrees (0.5 m and 50 cm); for one with options the"
    " text of the right option agrees, and so does its letter. Reply 1 for yes or 0 for no.\n\n"
    f"Question: {problem.extra['full_question']}\nStandard answer: {problem.gold}\n"
    f"Model's answer: {answer}\nReply:"
  )


def is_right(problem: Problem, answer: str, prover: Prover) -> bool | None:
  """Whether an answer agrees with the gold answer, by rules instead of a model."""
  answer, gold = answer.strip(), problem.gold.strip()
  if answer == gold:
    return True
  if problem.kind != "multi-choice":
    return prover.equal(answer, gold)
  gold = gold.strip("()")
  letter = re.fullmatch(r"\(?([A-F])\)?(?:[.:].*)?", answer, re.DOTALL)
  if letter:
    return letter[1] == gold
  return answer.lower() == problem.options.get(gold, "").lower() != ""


def scores(graded: list[Graded]) -> Scores:
  """Returns accuracy over the versions with images, or over Text Only if there are no others."""
  with_images = [item for item in graded if item.problem.tags["version"] != TEXT_ONLY]
  total = accuracy()(with_images or graded)
  groups = (("version",), ("version", "subject"), ("version", "subject", "subfield"))
  return total._replace(
    breakdowns={" and ".join(tags): breakdown(graded, *tags) for tags in groups}
  )


_TOOLKIT = Protocol(
  prompt=toolkit_prompt,
  extract=extract,
  is_right=is_right,
  scores=scores,
  model_extraction=ModelExtraction(
    rule=no_answer, prompt=extraction_prompt, parse=parse_reply, judge_prompt=judge_prompt
  ),
)
_AUTHORS = dataclasses.replace(
  _TOOLKIT,
  prompt=prompt,
  model_extraction=dataclasses.replace(_TOOLKIT.model_extraction, prompt=extraction_prompt_end),
)

BENCHMARK = Benchmark(
  name="mathverse",
  files=(
    "MathVerse_MINI_Vision_Only.tsv",
    "MathVerse_MINI.tsv",
    "mathverse/**/testmini[-.]*parquet",
    "mathverse/testmini.json*",
    "mathverse*/testmini_text_only.json*",
  ),
  hub="AI4Math/MathVerse",
  read_problem=read_problem,
  protocols={"authors": _AUTHORS, "toolkit": _TOOLKIT},
  problem_id=lambda row: fields.text(row, "sample_index", "id", "index"),
)
