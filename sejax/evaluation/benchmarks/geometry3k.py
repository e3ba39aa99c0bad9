r"""Geometry3K, test split: 601 plane-geometry problems with a diagram and a free answer.

Source: arXiv:2105.04165.

The only protocol, `boxed`, is the format of training (arXiv:2603.21289): the answer is in the last
`\boxed{}`, and is right if its value equals that of the gold answer. Metrics: accuracy, also by
shape and goal if the rows state these.

Row formats: `problem`, `answer`, `images` (hub); or JSON lines with `choices`, `answer_text` and
`split`, of which the rows of the test split that have an answer are used.
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
  """Converts a row of any of the files in `BENCHMARK.files` to a problem.

  The hub's rows have no id; their position in the file is the id.
  """
  tags = {name: ", ".join(row.get(name) or ()) for name in ("shape", "goal")}
  return Problem(
    id=fields.text(row, "id", "row"),
    question=fields.text(row, "problem", "question"),
    gold=fields.text(row, "answer_text", "answer", default="").strip(),
    images=fields.images(row, "images", "image"),
    tags=tags | {"split": fields.text(row, "split", default="test")},
  )


def prompt(problem: Problem) -> str:
  """Returns the question followed by the Actor's instruction."""
  return prompts.actor_query(problem.question)


def is_right(problem: Problem, answer: str, prover: Prover) -> bool | None:
  """Whether an answer has the same value as the gold answer."""
  return prover.equal(answer, problem.gold)


BENCHMARK = Benchmark(
  name="geometry3k",
  files=("geometry3k/data/test-*.parquet", "geometry3k/problems.jsonl"),
  hub="hiyouga/geometry3k",
  read_problem=read_problem,
  protocols={
    "boxed": Protocol(
      prompt=prompt,
      extract=boxed,
      is_right=is_right,
      scores=accuracy(("shape",), ("goal",)),
      includes=lambda problem: bool(problem.gold) and problem.tags["split"] == "test",
    )
  },
)
