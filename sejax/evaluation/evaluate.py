r"""Evaluation on the published benchmarks: `python -m sejax.main --mode=evaluate`.

    python -m sejax.main --mode=evaluate --config=configs/sample.py --workdir=DIR \
      --config.eval.sets=mathvision --config.eval.sets_path=SETS \
      [--config.model.path=MODEL | --config.eval.predictions=FILE] [--config.eval.extractor=MODEL]

Lets the model answer, or takes stored responses, grades them and writes, per set, `scores.json` and
`problems.jsonl`; `summary.md` and `summary.html` say of all sets what they come to. A model's run
that was stopped goes on with the problems that have no line in `problems.jsonl` yet.

See `sejax.evaluation.benchmarks` for the sets and their protocols, and `sejax.evaluation.rows` for
the forms of files.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import ml_collections
import tqdm

from sejax.evaluation import benchmarks, grading, results, rows
from sejax.evaluation.benchmarks.protocol import Graded, Problem, Protocol, Stored
from sejax.evaluation.extractor import Extractor
from sejax.evaluation.responding import Asked, Responder
from sejax.models import hub
from sejax.reports import pages
from sejax.text.equivalence import Prover

_TOGETHER = 256  # problems whose stored answers are graded together


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Grades answers to the sets that `config.eval` names: stored ones, or those of a model.

  Args:
    config: the run's; of `eval` the sets, the protocol, the data, and stored answers are used, and
      without these what `Responder` takes.
    workdir: where the results go.

  Raises:
    ValueError: a file is missing or not what it should be, named.
  """
  names = benchmarks.names(config.eval.sets)
  if not names:
    known = ", ".join(benchmarks.BENCHMARKS)
    raise ValueError(f"config.eval.sets is empty; name some of {known}")
  if not config.eval.predictions:
    config = hub.with_local_models(config)
  responder = None if config.eval.predictions else Responder(config)
  extractor = Extractor(config) if config.eval.extractor else None
  with Prover() as prover:
    grade = functools.partial(grading.grade, prover=prover, model=extractor)
    all_sets = [_evaluate(name, config, workdir / name, grade, responder) for name in names]
  if jax.process_index() > 0:
    return
  table = results.markdown(all_sets)
  (workdir / "summary.md").write_text(table, encoding="utf-8")
  pages.write(workdir / "summary.html", results.page(all_sets))
  print(table, end="")
  print(f"page: {workdir / 'summary.html'}")


def _evaluate(
  name: str,
  config: ml_collections.ConfigDict,
  folder: pathlib.Path,
  grade: Callable[[Protocol, Sequence[tuple[Problem, Stored]]], list[Graded]],
  responder: Responder | None,
) -> results.Result:
  benchmark = benchmarks.BENCHMARKS[name]
  protocol_name, protocol = benchmark.protocol(config.eval.protocol)
  files = rows.find(config.eval.sets_path, benchmark)
  problems = rows.problems(files, benchmark, protocol)
  folder.mkdir(parents=True, exist_ok=True)
  done: list[Graded] = []
  if responder is None:
    path = rows.predictions(config.eval.predictions, name)
    responses = _parts(rows.answers(path, problems, benchmark))
  else:
    done = results.resume(folder, problems, responder.samples, protocol_name)
    asked = Asked(name, problems, protocol, files[0].parent)
    responses = responder(asked, {one.problem.id for one in done})
  grade = functools.partial(grade, protocol)
  graded = _grade_all(done, responses, grade, protocol_name, folder, len(problems))
  if not graded:
    raise ValueError(f"no problem of {name} can be asked: see the warnings above")
  unanswered = len(problems) - len(graded)
  result = results.Result.of(name, protocol_name, protocol, graded, unanswered)
  if jax.process_index() == 0:
    results.write_scores(result, folder)
  return result


def _parts(
  answered: Sequence[tuple[Problem, Stored]],
) -> Iterator[Sequence[tuple[Problem, Stored]]]:
  return (answered[n : n + _TOGETHER] for n in range(0, len(answered), _TOGETHER))


def _grade_all(
  done: list[Graded],
  responses: Iterable[Sequence[tuple[Problem, Stored]]],
  grade: Callable[[Sequence[tuple[Problem, Stored]]], list[Graded]],
  protocol_name: str,
  folder: pathlib.Path,
  total: int,
) -> list[Graded]:
  """Grades responses as they come, and writes each problem's lines once it is graded."""
  graded, writes = list(done), jax.process_index() == 0
  path = folder / results.PROBLEMS if writes else pathlib.Path(os.devnull)
  with (
    path.open("a" if done else "w", encoding="utf-8") as file,
    tqdm.tqdm(desc=folder.name, total=total, initial=len(done), disable=not writes) as bar,
  ):
    for part in responses:
      new = grade(part)
      file.writelines(results.lines(new, protocol_name))
      file.flush()
      graded += new
      bar.update(len(new))
  return graded
