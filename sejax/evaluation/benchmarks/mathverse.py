r"""MathVerse: 788 problems of geometry and functions in five versions, from text to picture alone.

Source: arXiv:2403.14624.

The versions move the same facts from the text into the picture. Accuracy overall (the mean of the
five versions, which are equal in size), by version, and in each by subject and subfield; the sixth,
Text Only, is an ablation without pictures that counts in no overall figure.

Forms: `sample_index`, `problem_version`, `question`, `answer`, `question_type`, `metadata`,
`query_wo`, `query_cot` (JSON lines, hub), and `question_for_eval` (hub, toolkit), which has the
text that Vision Only draws.

Both protocols have a model extract the answer and a model judge it. Here rules stand in for both:
the letter rule or the last box; equal letters, the right option's text, or equal values.

- `authors`: direct answers are asked for; the model sees a response's last 30 words.
- `toolkit`: the question of its table. Its leaderboard is of the version Vision Only.
"""

import re

from sejax.evaluation.benchmarks import fields, letters
from sejax.evaluation.benchmarks.fields import Row
from sejax.evaluation.benchmarks.protocol import (
  Asking,
  Benchmark,
  Graded,
  Problem,
  Protocol,
  Scores,
  accuracy,
  boxed,
  breakdown,
  nothing,
  reply,
)
from sejax.text.equivalence import Prover

TEXT_ONLY = "Text Only"

_WORDS = 30  # at a response's end, in which the authors look for the answer
_OPTION = re.compile(r"^\s*\(?([A-F])\)?\s*[:.]\s*(.+?)\s*$", re.MULTILINE)
_ANSWER_IS = re.compile(r"answer(?: is|:)\s*(.+)", re.IGNORECASE)


def read_problem(row: Row) -> Problem:
  """Reads a row of any form."""
  metadata = row.get("metadata") or {}
  if isinstance(metadata, str):
    metadata = fields.parsed(metadata)
  kind = fields.text(row, "question_type")
  question = fields.text(row, "question", default="")
  whole = fields.text(row, "question_for_eval", default="") or question
  number = fields.text(row, "problem_index", default="")
  options = dict(_OPTION.findall(whole)) if kind == "multi-choice" else {}
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
    unit=number,
    extra={"whole": whole, "direct": fields.text(row, "query_wo", default="")},
  )


def prompt(problem: Problem) -> str:
  """Returns the set's own request for a direct answer, `query_wo`."""
  return problem.extra["direct"] or problem.question


def toolkit_prompt(problem: Problem) -> str:
  """Returns the question of the table; where that is empty, as drawn, the set's own request."""
  return problem.question or problem.extra["direct"]


def rules(problem: Problem, response: str) -> str | None:
  """Returns an option's letter, or the last box, or the last "answer is", or the last line."""
  if problem.options and (
    letter := letters.read_letter(response, problem.options, whole_words=True)
  ):
    return letter
  if found := boxed(problem, response):
    return found
  named = _ANSWER_IS.findall(response)
  last = named or response.strip().splitlines() or [""]
  return last[-1].strip().rstrip(".") or None


def query(problem: Problem, response: str) -> str:
  """Returns what a model is asked that extracts."""
  return (
    "Extract the final answer from a response to a mathematical question: an option's letter, a"
    " value or an expression, and nothing else. Write null where the response gives none.\n\n"
    f"Question: {problem.extra['whole']}\n\nResponse: {response}\n\nExtracted answer:"
  )


def query_end(problem: Problem, response: str) -> str:
  """Returns the same with a response's last words alone."""
  return query(problem, " ".join(response.split()[-_WORDS:]))


def read(problem: Problem, text: str) -> str | None:
  """Returns the answer of an extraction; None for `null`."""
  answer = reply(problem, text.removeprefix("Extracted answer:"))
  return None if answer is None or answer.lower() == "null" else answer


def dispute(problem: Problem, answer: str) -> str:
  """Returns what a model is asked that judges."""
  return (
    "Does the model's answer agree in full with the standard answer? For a question without"
    " options another form of the same value agrees (0.5 m and 50 cm); for one with options the"
    " text of the right option agrees, and so does its letter. Reply 1 for yes or 0 for no.\n\n"
    f"Question: {problem.extra['whole']}\nStandard answer: {problem.gold}\n"
    f"Model's answer: {answer}\nReply:"
  )


def right(problem: Problem, answer: str, prover: Prover) -> bool | None:
  """Whether an answer is the gold one in another form, by rules."""
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
  """Returns accuracy over the versions with pictures, or over Text Only where that is all."""
  pictured = [one for one in graded if one.problem.tags["version"] != TEXT_ONLY]
  total = accuracy()(pictured or graded)
  groups = (("version",), ("version", "subject"), ("version", "subject", "subfield"))
  return total._replace(
    breakdowns={" and ".join(tags): breakdown(graded, *tags) for tags in groups}
  )


_SHARED = {"rules": rules, "right": right, "scores": scores}

BENCHMARK = Benchmark(
  name="mathverse",
  files=(
    "MathVerse_MINI_Vision_Only.tsv",
    "MathVerse_MINI.tsv",
    "mathverse/**/testmini[-.]*parquet",
    "mathverse/testmini.json*",
    "mathverse*/testmini_text_only.json*",
  ),
  problem=read_problem,
  protocols={
    "authors": Protocol(
      prompt=prompt,
      asking=Asking(find=nothing, query=query_end, read=read, dispute=dispute),
      **_SHARED,
    ),
    "toolkit": Protocol(
      prompt=toolkit_prompt,
      asking=Asking(find=nothing, query=query, read=read, dispute=dispute),
      **_SHARED,
    ),
  },
  key=lambda row: fields.text(row, "sample_index", "id", "index"),
)
