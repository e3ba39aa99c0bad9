r"""Evaluation on the published benchmarks: `python -m sejax.main --mode=evaluate`.

    python -m sejax.main --mode=evaluate --config=configs/sample.py --workdir=DIR \
      --config.eval.sets=mathvision --config.eval.data=SETS --config.eval.predictions=FILE

Grades stored responses and writes, per set, `scores.json` and `problems.jsonl`; `summary.md` and
`summary.html` say of all sets what they come to. See `sejax.evaluation.benchmarks` for the sets and
their protocols, and `sejax.evaluation.rows` for the forms of files.
"""

import itertools
import pathlib
from collections.abc import Iterator

import ml_collections
import tqdm

from sejax.evaluation import benchmarks, grading, results, rows
from sejax.evaluation.benchmarks.protocol import Graded, Problem, Protocol, Stored
from sejax.evaluation.equivalence import Prover

_TOGETHER = 256  # problems that are graded together


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Grades the answers to the sets that `config.eval` names.

  Args:
    config: `eval.sets`, `eval.protocol`, `eval.data` and `eval.predictions` are used.
    workdir: where the results go.

  Raises:
    ValueError: a file is missing or not what it should be, named.
  """
  names = benchmarks.names(config.eval.sets)
  if not names:
    known = ", ".join(benchmarks.BENCHMARKS)
    raise ValueError(f"config.eval.sets is empty; name some of {known}")
  if not config.eval.predictions:
    raise ValueError("config.eval.predictions is empty; give a file of stored responses")
  with Prover() as prover:
    all_sets = [_evaluate(name, config, workdir / name, prover) for name in names]
  table = results.markdown(all_sets)
  (workdir / "summary.md").write_text(table, encoding="utf-8")
  (workdir / "summary.html").write_text(results.page(all_sets), encoding="utf-8")
  print(table, end="")
  print(f"page: {workdir / 'summary.html'}")


def _evaluate(
  name: str, config: ml_collections.ConfigDict, folder: pathlib.Path, prover: Prover
) -> results.Result:
  benchmark = benchmarks.BENCHMARKS[name]
  protocol_name, protocol = benchmark.protocol(config.eval.protocol)
  problems = rows.problems(rows.find(config.eval.data, benchmark), benchmark, protocol)
  path = rows.predictions(config.eval.predictions, name)
  responses = iter(rows.answers(path, problems, benchmark))
  folder.mkdir(parents=True, exist_ok=True)
  graded = _grade_all(responses, protocol_name, protocol, folder, prover, total=len(problems))
  unanswered = len(problems) - len(graded)
  result = results.Result.of(name, protocol_name, protocol, graded, unanswered)
  results.write_scores(result, folder)
  return result


def _grade_all(
  responses: Iterator[tuple[Problem, Stored]],
  protocol_name: str,
  protocol: Protocol,
  folder: pathlib.Path,
  prover: Prover,
  total: int,
) -> list[Graded]:
  """Grades responses as they come, and writes each problem's lines once it is graded."""
  graded: list[Graded] = []
  path = folder / results.PROBLEMS
  with path.open("w", encoding="utf-8") as file, tqdm.tqdm(desc=folder.name, total=total) as bar:
    while part := list(itertools.islice(responses, _TOGETHER)):
      new = grading.grade(protocol, part, prover)
      file.writelines(results.lines(new, protocol_name))
      file.flush()
      graded += new
      bar.update(len(new))
  return graded
