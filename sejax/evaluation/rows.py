"""Files of problems and of stored answers: rows of any form, problems, and answers to them."""

import csv
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow.parquet as pq

from sejax.errors import quoted, shortened
from sejax.evaluation.benchmarks.protocol import Benchmark, Problem, Protocol, Stored

_LONGEST = 2**31 - 1  # characters of a field: tables hold pictures in base64


def read(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  """Yields the rows of a `.jsonl`, `.json`, `.tsv` or `.parquet` file.

  An object of JSON stands for its values, whose keys are their ids. Each row gets `file`, the
  file's name, and `row`, its place in it, where it has no such fields.

  Raises:
    ValueError: the file is of no such kind, or a row is no object.
  """
  if path.suffix not in _READERS:
    raise ValueError(f"{path} has rows of no known kind; it must end in {', '.join(_READERS)}")
  prefix = path.stem.partition("-")[0]
  try:
    for number, row in enumerate(_READERS[path.suffix](path)):
      yield {"file": path.name, "row": f"{prefix}/{number}", **row}
  except (ValueError, TypeError, csv.Error) as error:
    raise ValueError(f"{path} cannot be read: {error}") from None


def find(data: str, benchmark: Benchmark) -> list[pathlib.Path]:
  """Returns the files that hold a benchmark's rows.

  Args:
    data: the folder of sets, or one set's file.
    benchmark: whose patterns are looked for in the folder, in order.

  Raises:
    ValueError: there is none.
  """
  path = pathlib.Path(data)
  if data and path.is_file():
    return [path]
  for pattern in benchmark.files if data else ():
    if found := sorted(path.glob(pattern)):
      return found
  raise ValueError(
    f"config.eval.sets_path={quoted(data)} holds no {benchmark.name}; it must be its file, or a"
    f" folder with {' or '.join(benchmark.files)}"
  )


def problems(
  files: Iterable[pathlib.Path], benchmark: Benchmark, protocol: Protocol
) -> list[Problem]:
  """Reads the problems that a protocol grades.

  Raises:
    ValueError: a row is none of the benchmark's, or two have one id.
  """
  files = list(files)
  found: dict[str, Problem] = {}
  for path in files:
    for row in read(path):
      problem = _of_row(path, row, benchmark)
      if problem.id in found:
        raise ValueError(f"{path}: two problems have the id {shortened(problem.id)}")
      found[problem.id] = problem
  kept = [problem for problem in found.values() if protocol.belongs(problem)]
  return benchmark.complete(kept, files[0].parent)


def predictions(place: str, name: str) -> pathlib.Path:
  """Returns the file of a set's stored answers.

  Args:
    place: that file; or a folder with `<set>.jsonl` or, as evaluation leaves it,
      `<set>/problems.jsonl`.
    name: of the set.

  Raises:
    ValueError: there is none.
  """
  path = pathlib.Path(place)
  choices = (path, path / f"{name}.jsonl", path / name / "problems.jsonl")
  file = next((choice for choice in choices if choice.is_file()), None)
  if file is None:
    raise ValueError(
      f"config.eval.predictions={quoted(place)} holds no answers to {name}; it must be a file, or a"
      f" folder with {name}.jsonl or {name}/problems.jsonl"
    )
  return file


def answers(
  path: pathlib.Path, problems: Iterable[Problem], benchmark: Benchmark
) -> list[tuple[Problem, Stored]]:
  """Returns the problems for which a file has answers with these, in the problems' order.

  Several rows about one problem are several answers to it. Rows about problems that the protocol
  leaves out do not count.

  Raises:
    ValueError: no row is about a problem of the set, or a row holds no answer.
  """
  found: dict[str, Stored] = {}
  for row in read(path):
    try:
      for part in benchmark.expand(row):
        more = benchmark.stored(part, benchmark.key(part))
        found[more.id] = _joined(found[more.id], more) if more.id in found else more
    except ValueError as error:
      raise ValueError(f"{path}, {row['row']} is no stored answer: {error}") from None
  answered = [(problem, found[problem.id]) for problem in problems if problem.id in found]
  if not answered:
    example = shortened(next(iter(found), "none"))
    raise ValueError(
      f"{path} has answers to {len(found)} problems, such as {example}, of which none is in"
      f" {benchmark.name} as config.eval.sets_path has it"
    )
  return answered


def _of_row(path: pathlib.Path, row: dict[str, Any], benchmark: Benchmark) -> Problem:
  try:
    return benchmark.problem(row)
  except ValueError as error:
    raise ValueError(f"{path}, {row['row']} is no problem of {benchmark.name}: {error}") from None


def _joined(first: Stored, more: Stored) -> Stored:
  if [part is None for part in first] != [part is None for part in more]:
    raise ValueError(f"the answers to {shortened(first.id)} are stored in different forms")
  pairs = zip(first[1:], more[1:], strict=True)
  return Stored(first.id, *(None if a is None else a + b for a, b in pairs))


def _read_jsonl(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  with path.open(encoding="utf-8-sig") as file:
    for number, line in enumerate(file, 1):
      if line.strip():
        yield _object(json.loads(line), number)


def _read_json(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  content = json.loads(path.read_text(encoding="utf-8-sig"))
  if isinstance(content, dict):
    content = [{"id": key, **_object(value, key)} for key, value in content.items()]
  for number, value in enumerate(content, 1):
    yield _object(value, number)


def _read_tsv(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  csv.field_size_limit(_LONGEST)
  with path.open(encoding="utf-8-sig", newline="") as file:
    yield from csv.DictReader(file, delimiter="\t")


def _read_parquet(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  for batch in pq.ParquetFile(path).iter_batches(batch_size=64):
    yield from batch.to_pylist()


def _object(value: Any, place: int | str) -> dict[str, Any]:
  if not isinstance(value, dict):
    raise ValueError(f"row {place} is no JSON object")
  return value


_READERS = {
  ".jsonl": _read_jsonl,
  ".json": _read_json,
  ".tsv": _read_tsv,
  ".parquet": _read_parquet,
}
