"""Grades the officially scored runs again and compares them with what was published.

python -m experiments.benchmarks.rescore --data=FOLDER

The folder holds `mathvision_testmini`, `dynamath` and `logicvista`, each with `official_scored`.
Prints a table of totals, and each response whose verdict or extraction is not the published one.
"""

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

from absl import app, flags

from sejax.evaluation import grading, rows
from sejax.evaluation.benchmarks import BENCHMARKS
from sejax.evaluation.benchmarks.protocol import Graded
from sejax.text.equivalence import Prover

_DATA = flags.DEFINE_string("data", None, "Folder of the sets.", required=True)


class Run(NamedTuple):
  """A published run: its set, file of problems and file of responses, and what was published."""

  name: str
  problems: str
  responses: str
  published: dict[str, str]


RUNS = (
  Run(
    "mathvision",
    "mathvision_testmini/test_text_only.jsonl",
    "mathvision_testmini/official_scored/scored_cot.jsonl",
    {"accuracy": "12.63"},
  ),
  Run(
    "mathvision",
    "mathvision_testmini/test_text_only.jsonl",
    "mathvision_testmini/official_scored/scored_direct.jsonl",
    {"accuracy": "15.59"},
  ),
  Run(
    "dynamath",
    "dynamath/all_text_only.jsonl",
    "dynamath/official_scored/gpt4o.jsonl",
    {"accuracy": "63.33", "worst case": "34.73"},
  ),
  Run(
    "dynamath",
    "dynamath/all_text_only.jsonl",
    "dynamath/official_scored/qwen2_vl_7b.jsonl",
    {"accuracy": "42.14", "worst case": "13.77"},
  ),
  Run(
    "logicvista",
    "logicvista/official_scored/llava7b.jsonl",
    "logicvista/official_scored/llava7b.jsonl",
    {"accuracy": "29.24"},
  ),
  Run(
    "logicvista",
    "logicvista/official_scored/minigpt13b.jsonl",
    "logicvista/official_scored/minigpt13b.jsonl",
    {"accuracy": "14.96"},
  ),
)


def grade(data: pathlib.Path, run: Run, prover: Prover) -> tuple[list[Graded], dict[str, str]]:
  """Returns a run's graded problems, and the published metrics as they come out here, in %."""
  benchmark = BENCHMARKS[run.name]
  _, protocol = benchmark.protocol("authors")
  problems = rows.read_problems([data / run.problems], benchmark, protocol)
  graded = grading.grade(
    protocol, rows.read_answers(data / run.responses, problems, benchmark), prover
  )
  figures = protocol.scores(graded).metrics
  return graded, {name: f"{100 * figures[name].value:.2f}" for name in run.published}


def disagreements(data: pathlib.Path, run: Run, graded: list[Graded]) -> Iterator[str]:
  """Yields a line for each response that was published with another verdict or extraction."""
  published = {row.get("id"): row for row in rows.read(data / run.responses)}
  for one in graded:
    row = published.get(one.problem.id)
    if row is None:  # a verdict alone, which is taken as it is
      continue
    verdict = bool(row.get("correct", row.get("match")))
    extraction = one.extractions[0] or ""
    if bool(one.right[0]) != verdict:
      yield f"{one.problem.id}: {extraction!r} is {one.right[0]}, published {verdict}"
    elif row.get("model_answer", extraction) != extraction:
      yield f"{one.problem.id}: {extraction!r}, published {row['model_answer']!r}; both {verdict}"


def main(_):
  """Prints the table and the disagreements."""
  data = pathlib.Path(_DATA.value)
  print("| run | responses | metric | here | published | disagreeing |\n|" + " --- |" * 6)
  found = []
  with Prover() as prover:
    for run in RUNS:
      graded, figures = grade(data, run, prover)
      lines = list(disagreements(data, run, graded))
      name = f"{run.name} {pathlib.Path(run.responses).stem}"
      found += [f"{name}, {line}" for line in lines]
      for metric, value in figures.items():
        cells = (name, len(graded), metric, value, run.published[metric], len(lines))
        print("| " + " | ".join(map(str, cells)) + " |")
  print("\n".join(["", *found]))


if __name__ == "__main__":
  app.run(main)
