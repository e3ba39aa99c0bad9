"""LogicVista: 448 multiple-choice problems of visual reasoning; options are often in the image.

Source: arXiv:2407.04973.

An answer is one or two letters, in one case a digit. Metrics: accuracy, also by skill (inductive,
deductive, numerical, spatial, mechanical).

Row formats: `id`, `question`, `answer`, `skill`, `image` (JSON lines); an object of such rows by id
(the authors' file); and the toolkit's table.

Both protocols extract the letters with a model; a rule replaces it if none is given. An answer is
right if it has exactly the gold letters, in any order and without repetition.

- `authors`: uses all rows, including the one without an answer.
- `toolkit`: leaves that row out (447 rows). An extraction must consist of letters, so the problem
  whose answer is a digit is always wrong.
"""

import re

from sejax.evaluation.benchmarks import fields, letters
from sejax.evaluation.benchmarks.fields import Row
from sejax.evaluation.benchmarks.protocol import (
  Benchmark,
  ModelExtraction,
  Problem,
  Protocol,
  StoredAnswers,
  accuracy,
  boxed,
  no_answer,
  read_stored,
)
from sejax.text.equivalence import Prover

_ANSWER_CLAUSE = re.compile(r"answers?\s+(?:is|are)\b(.*)", re.IGNORECASE)
_CHOICE = re.compile(r"(?<![A-Za-z])[A-I](?![A-Za-z])")
_SEPARATORS = re.compile(r"[\s,\[\]'\"]+")


def read_problem(row: Row) -> Problem:
  """Converts a row of any of the files in `BENCHMARK.files` to a problem."""
  skill = row.get("skill", "")
  answer = row.get("answer") or ""
  return Problem(
    id=problem_id(row),
    question=fields.text(row, "question", default=""),
    gold=", ".join(answer) if isinstance(answer, list) else str(answer).strip(),
    images=fields.images(row, "images", "image", "imagename"),
    tags={"skill": ", ".join(skill) if isinstance(skill, list) else str(skill)},
  )


def problem_id(row: Row) -> str:
  """Returns the id of the problem that a row belongs to."""
  return fields.text(row, "id", "key", "index")


def stored_extraction(row: Row, problem_id: str) -> StoredAnswers:
  """Reads a stored response, and the letters that a model extracted from it if they are stored."""
  answers = read_stored(row, problem_id)
  extracted = row.get("extracted")
  return answers if extracted is None else answers._replace(extractions=(", ".join(extracted),))


def prompt(problem: Problem) -> str:
  """Returns the question as it is."""
  return problem.question


def extract(problem: Problem, response: str) -> str | None:
  r"""Extracts isolated capitals A to I from the last `\boxed{}`, "answer is" clause, or line.

  Of these three, only the first that exists is searched.
  """
  clauses = _ANSWER_CLAUSE.findall(response)
  lines = response.strip().splitlines()
  for part in (boxed(problem, response), *clauses[-1:], *lines[-1:]):
    if part:
      return "".join(_CHOICE.findall(part)) or None
  return None


def extraction_prompt(problem: Problem, response: str) -> str:
  """Returns the prompt of the model that extracts the letters."""
  return (
    "Which options does a response to a multiple-choice question choose? Write their letters alone,"
    " in capitals and without anything between them, such as AC. Where it names no letter, take the"
    f" options whose texts it gives; where it chooses none, write {letters.NONE}.\n\n"
    f"Question: {problem.question}\n\nResponse: {response}\n\nLetters:"
  )


def read_list(problem: Problem, reply: str) -> str | None:
  """Parses the model's reply: letters or digits in any list notation."""
  del problem
  return _SEPARATORS.sub("", reply) or None


def read_letters(problem: Problem, reply: str) -> str | None:
  """Parses the model's reply, which must consist of capital letters."""
  del problem
  return reply.strip() if re.fullmatch(r"\s*[A-Z]+\s*", reply) else None


def is_right(problem: Problem, answer: str, prover: Prover) -> bool:
  """Whether an answer has exactly the gold letters, in any order."""
  del prover
  letters_of_answer, gold_letters = (
    sorted(_SEPARATORS.sub("", text.lower())) for text in (answer, problem.gold)
  )
  return bool(gold_letters) and letters_of_answer == gold_letters


def toolkit_is_right(problem: Problem, answer: str, prover: Prover) -> bool:
  """Whether an answer consists of letters, namely exactly the gold ones."""
  return _SEPARATORS.sub("", answer).isalpha() and is_right(problem, answer, prover)


_SCORES = accuracy(("skill",))

BENCHMARK = Benchmark(
  name="logicvista",
  files=("LogicVista.tsv", "logicvista/dataset.json", "logicvista/problems.jsonl"),
  read_problem=read_problem,
  protocols={
    "authors": Protocol(
      prompt=prompt,
      extract=extract,
      is_right=is_right,
      scores=_SCORES,
      model_extraction=ModelExtraction(rule=no_answer, prompt=extraction_prompt, parse=read_list),
    ),
    "toolkit": Protocol(
      prompt=prompt,
      extract=extract,
      is_right=toolkit_is_right,
      scores=_SCORES,
      model_extraction=ModelExtraction(
        rule=no_answer, prompt=extraction_prompt, parse=read_letters
      ),
      includes=lambda problem: bool(problem.gold),
    ),
  },
  problem_id=problem_id,
  read_stored=stored_extraction,
)
