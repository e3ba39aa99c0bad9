r"""Geometry3K's own test split: plane geometry with one diagram, open answers (601 problems).

Source: arXiv:2105.04165.

It has one protocol, that of the training itself (arXiv:2603.21289): the answer is in the last
`\boxed{}`, and is right where it has the value of the right choice. Accuracy overall, and by shape
and goal where the rows have them.

Forms: `problem`, `answer`, `images` (hub), and JSON lines with `choices`, `answer_text` and
`split`, of which the test rows with an answer are taken.
"""

from sejax.evaluation.benchmarks import fields
from sejax.evaluation.benchmarks.fields import Row
from sejax.evaluation.benchmarks.protocol import (
  Benchmark,
  Problem,
  Protocol,
  accuracy,
  boxed,
)
from sejax.text import prompts
from sejax.text.equivalence import Prover


def read_problem(row: Row) -> Problem:
  """Reads a row of any form; the hub's rows have no ids, so their place is one."""
  tags = {name: ", ".join(row.get(name) or ()) for name in ("shape", "goal")}
  return Problem(
    id=fields.text(row, "id", "row"),
    question=fields.text(row, "problem", "question"),
    gold=fields.text(row, "answer_text", "answer", default="").strip(),
    images=fields.images(row, "images", "image"),
    tags=tags | {"split": fields.text(row, "split", default="test")},
  )


def prompt(problem: Problem) -> str:
  """Returns the question with the Actor's instruction."""
  return prompts.actor_query(problem.question)


def right(problem: Problem, answer: str, prover: Prover) -> bool | None:
  """Whether an answer has the gold answer's value."""
  return prover.equal(answer, problem.gold)


BENCHMARK = Benchmark(
  name="geometry3k",
  files=("geometry3k/data/test-*.parquet", "geometry3k/problems.jsonl"),
  problem=read_problem,
  protocols={
    "boxed": Protocol(
      prompt=prompt,
      rules=boxed,
      right=right,
      scores=accuracy(("shape",), ("goal",)),
      belongs=lambda problem: bool(problem.gold) and problem.tags["split"] == "test",
    )
  },
)
