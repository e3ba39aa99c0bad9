r"""Evaluates a model, or stored responses, on published benchmarks: `--mode=evaluate`.

    python -m sejax.main --mode=evaluate --config=configs/sample.py --workdir=DIR \
      --config.eval.sets=mathvision --config.eval.sets_path=SETS \
      [--config.model.path=MODEL | --config.eval.predictions=FILE] [--config.eval.extractor=MODEL]

Samples responses from the model, or reads stored ones, and grades them. Writes `scores.json` and
`problems.jsonl` for each benchmark, and `summary.md` and `summary.html` for all of them. An
interrupted evaluation of a model resumes with the problems that are not yet in `problems.jsonl`.

See `sejax.evaluation.benchmarks` for the benchmarks and their protocols, and
`sejax.evaluation.rows` for the file formats.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import ml_collections
import tqdm

from sejax import storage
from sejax.evaluation import benchmarks, grading, results, rows
from sejax.evaluation.benchmarks.protocol import Graded, Problem, Protocol, StoredAnswers
from sejax.evaluation.extractor import Extractor
from sejax.evaluation.responder import BenchmarkSource, Responder
from sejax.reports import pages
from sejax.text.equivalence import Prover

_CHUNK = 256  # problems with stored responses that are graded at a time


def chosen(sets: Sequence[str]) -> list[str]:
  """Returns the benchmarks that `config.eval.sets` names.

  Raises:
    ValueError: there are none, or one is unknown.
  """
  names = benchmarks.names(sets)
  if not names:
    known = ", ".join(benchmarks.BENCHMARKS)
    raise ValueError(f"config.eval.sets is empty; name some of {known}")
  return names


def run(
  evaluation: ml_collections.ConfigDict,
  workdir: storage.Path,
  *,
  responder: Responder | None,
  extractor: Extractor | None,
) -> None:
  """Evaluates on the benchmarks in `config.eval.sets` and writes the results to the workdir.

  Args:
    evaluation: the configuration's section `eval`.
    workdir: where the results are written.
    responder: samples responses; None reads those of `eval.predictions`.
    extractor: reads answers where a protocol asks a model; None leaves it to rules.

  Raises:
    ValueError: a file is missing or malformed, or an option cannot work.
  """
  names = chosen(evaluation.sets)
  with Prover() as prover:
    grade = functools.partial(grading.grade, prover=prover, model=extractor)
    all_sets = [_evaluate(name, evaluation, workdir / name, grade, responder) for name in names]
  if jax.process_index() > 0:
    return
  table = results.markdown(all_sets)
  storage.write_text(workdir / "summary.md", table)
  pages.write(workdir / "summary.html", results.page(all_sets))
  print(table, end="")
  print(f"page: {workdir / 'summary.html'}")


def _evaluate(
  name: str,
  evaluation: ml_collections.ConfigDict,
  folder: storage.Path,
  grade: Callable[[Protocol, Sequence[tuple[Problem, StoredAnswers]]], list[Graded]],
  responder: Responder | None,
) -> results.Result:
  """Evaluates on one benchmark and writes its files.

  Args:
    name: the benchmark.
    evaluation: the configuration's section `eval`.
    folder: where its results are written.
    grade: grades responses by a protocol.
    responder: samples responses; None reads stored ones.
  """
  benchmark = benchmarks.BENCHMARKS[name]
  protocol_name, protocol = benchmark.protocol(evaluation.protocol)
  files = rows.find_files(evaluation.sets_path, benchmark)
  problems = rows.read_problems(files, benchmark, protocol)
  folder.mkdir(parents=True, exist_ok=True)
  done: list[Graded] = []
  if responder is None:
    path = rows.find_predictions(evaluation.predictions, name)
    responses = _chunks(rows.read_answers(path, problems, benchmark))
  else:
    done = results.resume(folder, problems, responder.samples, protocol_name)
    source = BenchmarkSource(name, problems, protocol, files[0].parent)
    responses = responder(source, {item.problem.id for item in done})
  graded = _grade_all(
    done=done,
    responses=responses,
    grade=functools.partial(grade, protocol),
    protocol_name=protocol_name,
    folder=folder,
    total=len(problems),
  )
  if not graded:
    raise ValueError(f"no problem of {name} can be asked: see the warnings above")
  unanswered = len(problems) - len(graded)
  result = results.Result.of(name, protocol_name, protocol, graded, unanswered)
  if jax.process_index() == 0:
    results.write_scores(result, folder)
  return result


def _chunks(
  answered: Sequence[tuple[Problem, StoredAnswers]],
) -> Iterator[Sequence[tuple[Problem, StoredAnswers]]]:
  return (answered[start : start + _CHUNK] for start in range(0, len(answered), _CHUNK))


def _grade_all(
  *,
  done: list[Graded],
  responses: Iterable[Sequence[tuple[Problem, StoredAnswers]]],
  grade: Callable[[Sequence[tuple[Problem, StoredAnswers]]], list[Graded]],
  protocol_name: str,
  folder: storage.Path,
  total: int,
) -> list[Graded]:
  """Grades responses as they arrive and appends each graded problem to `problems.jsonl`.

  Args:
    done: problems that were graded before the evaluation was interrupted.
    responses: batches of problems with their responses.
    grade: grades such a batch.
    protocol_name: written to the file.
    folder: the benchmark's results.
    total: number of problems, for the progress bar.
  """
  graded, writes = list(done), jax.process_index() == 0
  file = storage.LineFile(folder / results.PROBLEMS)
  if writes and not done:
    file.rewrite([])
  with (
    contextlib.closing(file),
    tqdm.tqdm(desc=folder.name, total=total, initial=len(done), disable=not writes) as bar,
  ):
    for batch in responses:
      new = grade(batch)
      if writes:
        file.append("".join(results.lines(new, protocol_name)))
      graded += new
      bar.update(len(new))
  return graded
