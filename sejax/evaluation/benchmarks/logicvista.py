"""LogicVista: 448 pictures that test reasoning; the options are often drawn.

Source: arXiv:2407.04973.

Answers are one letter or two, once a digit. Accuracy overall and by skill: inductive, deductive,
numerical, spatial, mechanical.

Forms: `id`, `question`, `answer`, `skill`, `image` (JSON lines), an object of such rows by id (the
authors' file), and the toolkit's table.

Both protocols always have a model extract the letters; offline a rule stands in for it. An answer
is right where its letters, sorted, are the gold ones: a superset, or a letter said twice, is wrong.

- `authors`: all rows count, also the one without an answer.
- `toolkit`: the row without an answer is left out (447 rows); an extraction is letters alone, so
  the digit can never be right.
"""

import re

from sejax.evaluation.benchmarks import fields, letters
from sejax.evaluation.benchmarks.fields import Row
from sejax.evaluation.benchmarks.protocol import (
  Asking,
  Benchmark,
  Problem,
  Protocol,
  Stored,
  accuracy,
  boxed,
  nothing,
  stored,
)
from sejax.text.equivalence import Prover

_ANSWER_CLAUSE = re.compile(r"answers?\s+(?:is|are)\b(.*)", re.IGNORECASE)
_CHOICE = re.compile(r"(?<![A-Za-z])[A-I](?![A-Za-z])")
_SEPARATORS = re.compile(r"[\s,\[\]'\"]+")


def read_problem(row: Row) -> Problem:
  """Reads a row of any form."""
  skill = row.get("skill", "")
  answer = row.get("answer") or ""
  return Problem(
    id=key(row),
    question=fields.text(row, "question", default=""),
    gold=", ".join(answer) if isinstance(answer, list) else str(answer).strip(),
    images=fields.images(row, "images", "image", "imagename"),
    tags={"skill": ", ".join(skill) if isinstance(skill, list) else str(skill)},
  )


def key(row: Row) -> str:
  """Returns the id that a row is about."""
  return fields.text(row, "id", "key", "index")


def stored_extraction(row: Row, problem_id: str) -> Stored:
  """Reads a stored answer, and the letters that a model read from it where they were kept."""
  answers = stored(row, problem_id)
  extracted = row.get("extracted")
  return answers if extracted is None else answers._replace(extractions=(", ".join(extracted),))


def prompt(problem: Problem) -> str:
  """Returns the question alone."""
  return problem.question


def rules(problem: Problem, response: str) -> str | None:
  """Returns the lone capitals A to I of the last box, else "answer is" clause, else line."""
  clauses = _ANSWER_CLAUSE.findall(response)
  lines = response.strip().splitlines()
  for part in (boxed(problem, response), *clauses[-1:], *lines[-1:]):
    if part:
      return "".join(_CHOICE.findall(part)) or None
  return None


def query(problem: Problem, response: str) -> str:
  """Returns what a model is asked that extracts."""
  return (
    "Which options does a response to a multiple-choice question choose? Write their letters alone,"
    " in capitals and without anything between them, such as AC. Where it names no letter, take the"
    f" options whose texts it gives; where it chooses none, write {letters.NONE}.\n\n"
    f"Question: {problem.question}\n\nResponse: {response}\n\nLetters:"
  )


def read_list(problem: Problem, reply: str) -> str | None:
  """Returns a reply's letters or digits, however they are listed."""
  del problem
  return _SEPARATORS.sub("", reply) or None


def read_letters(problem: Problem, reply: str) -> str | None:
  """Returns a reply that is capital letters alone."""
  del problem
  return reply.strip() if re.fullmatch(r"\s*[A-Z]+\s*", reply) else None


def right(problem: Problem, answer: str, prover: Prover) -> bool:
  """Whether an answer names exactly the gold letters, in any order."""
  del prover
  sides = ["".join(sorted(_SEPARATORS.sub("", text.lower()))) for text in (answer, problem.gold)]
  return sides[0] == sides[1] != ""


def toolkit_right(problem: Problem, answer: str, prover: Prover) -> bool:
  """Whether an answer, of letters alone, names exactly the gold ones."""
  return _SEPARATORS.sub("", answer).isalpha() and right(problem, answer, prover)


_SCORES = accuracy(("skill",))

BENCHMARK = Benchmark(
  name="logicvista",
  files=("LogicVista.tsv", "logicvista/dataset.json", "logicvista/problems.jsonl"),
  problem=read_problem,
  protocols={
    "authors": Protocol(
      prompt=prompt,
      rules=rules,
      right=right,
      scores=_SCORES,
      asking=Asking(find=nothing, query=query, read=read_list),
    ),
    "toolkit": Protocol(
      prompt=prompt,
      rules=rules,
      right=toolkit_right,
      scores=_SCORES,
      asking=Asking(find=nothing, query=query, read=read_letters),
      belongs=lambda problem: bool(problem.gold),
    ),
  },
  key=key,
  stored=stored_extraction,
)
