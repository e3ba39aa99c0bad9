"""Reads the files of benchmarks: problems as published, and predictions (stored responses)."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow.parquet as pq

from sejax import storage
from sejax.errors import quoted, shortened
from sejax.evaluation.benchmarks.protocol import Benchmark, Problem, Protocol, StoredAnswers

_MAX_FIELD = 2**31 - 1  # characters; fields of tables may hold images in base64


def read(path: storage.Path) -> Iterator[dict[str, Any]]:
  """Yields the rows of a `.jsonl`, `.json`, `.tsv` or `.parquet` file as dictionaries.

  The file of a `.json` may be a list of objects, or an object of objects whose keys become the
  field `id`. Each row gets two further fields unless it has them: `file`, the name of the file, and
  `row`, the position in it.

  Raises:
    ValueError: the file has another format, or a row is not an object.
  """
  if path.suffix not in _READERS:
    raise ValueError(f"{path} has rows of no known kind; it must end in {', '.join(_READERS)}")
  prefix = path.stem.partition("-")[0]
  try:
    for number, row in enumerate(_READERS[path.suffix](path)):
      yield {"file": path.name, "row": f"{prefix}/{number}", **row}
  except (ValueError, TypeError, csv.Error) as error:
    raise ValueError(f"{path} cannot be read: {error}") from None


def find_files(data: str, benchmark: Benchmark) -> list[storage.Path]:
  """Returns the files with the problems of a benchmark.

  Args:
    data: folder of all benchmarks, or the file of this one.
    benchmark: has the patterns to look for in the folder.

  Raises:
    ValueError: there is none.
  """
  path = storage.Path(data)
  if data and path.is_file():
    return [path]
  for pattern in benchmark.files if data else ():
    if matches := storage.glob(path, pattern):
      return matches
  raise ValueError(
    f"config.eval.sets_path={quoted(data)} holds no {benchmark.name}; it must be its file, or a"
    f" folder with {' or '.join(benchmark.files)}"
  )


def read_problems(
  files: Iterable[storage.Path], benchmark: Benchmark, protocol: Protocol
) -> list[Problem]:
  """Reads the problems of a benchmark that belong to a protocol.

  Raises:
    ValueError: a row is not a problem of the benchmark, or two have the same id.
  """
  files = list(files)
  by_id: dict[str, Problem] = {}
  for path in files:
    for row in read(path):
      problem = _read_problem(path, row, benchmark)
      if problem.id in by_id:
        raise ValueError(f"{path}: two problems have the id {shortened(problem.id)}")
      by_id[problem.id] = problem
  included = [problem for problem in by_id.values() if protocol.includes(problem)]
  return benchmark.complete_problems(included, files[0].parent)


def find_predictions(place: str, name: str) -> storage.Path:
  """Returns the file with the predictions for a benchmark.

  Args:
    place: that file; or a folder with `<name>.jsonl`, or with `<name>/problems.jsonl`, which an
      evaluation writes.
    name: name of the benchmark.

  Raises:
    ValueError: there is none.
  """
  path = storage.Path(place)
  choices = (path, path / f"{name}.jsonl", path / name / "problems.jsonl")
  file = next(filter(_is_there, choices), None)
  if file is None:
    raise ValueError(
      f"config.eval.predictions={quoted(place)} holds no answers to {name}; it must be a file, or a"
      f" folder with {name}.jsonl or {name}/problems.jsonl"
    )
  return file


def read_answers(
  path: storage.Path, problems: Iterable[Problem], benchmark: Benchmark
) -> list[tuple[Problem, StoredAnswers]]:
  """Reads predictions, and returns the problems that have any, in the problems' order.

  Several rows for one problem are several samples. Rows for other problems are ignored.

  Raises:
    ValueError: no row belongs to one of the problems, or a row has no response.
  """
  by_id: dict[str, StoredAnswers] = {}
  for row in read(path):
    try:
      for part in benchmark.expand_stored(row):
        stored = benchmark.read_stored(part, benchmark.problem_id(part))
        by_id[stored.id] = _joined(by_id[stored.id], stored) if stored.id in by_id else stored
    except ValueError as error:
      raise ValueError(f"{path}, {row['row']} is not a stored answer: {error}") from None
  answered = [(problem, by_id[problem.id]) for problem in problems if problem.id in by_id]
  if not answered:
    example = shortened(next(iter(by_id), "none"))
    raise ValueError(
      f"{path} has answers to {len(by_id)} problems, such as {example}, of which none is in"
      f" {benchmark.name} as config.eval.sets_path has it"
    )
  return answered


def _read_problem(path: storage.Path, row: dict[str, Any], benchmark: Benchmark) -> Problem:
  try:
    return benchmark.read_problem(row)
  except ValueError as error:
    raise ValueError(
      f"{path}, {row['row']} is not a problem of {benchmark.name}: {error}"
    ) from None


def _joined(first: StoredAnswers, more: StoredAnswers) -> StoredAnswers:
  """Concatenates the samples of two rows for the same problem."""
  if [part is None for part in first] != [part is None for part in more]:
    raise ValueError(f"the answers to {shortened(first.id)} are stored in different forms")
  pairs = zip(first[1:], more[1:], strict=True)
  return StoredAnswers(first.id, *(None if a is None else a + b for a, b in pairs))


def _is_there(path: storage.Path) -> bool:
  """Whether there is a file; one of lines may be in parts, if its evaluation has not ended."""
  return path.is_file() or (path.suffix == ".jsonl" and storage.LineFile(path).exists())


def _read_jsonl(path: storage.Path) -> Iterator[dict[str, Any]]:
  for number, (_, line) in enumerate(storage.LineFile(path).read(), 1):
    if text := line.decode("utf-8-sig").strip():
      yield _object(json.loads(text), number)


def _read_json(path: storage.Path) -> Iterator[dict[str, Any]]:
  content = json.loads(path.read_bytes().decode("utf-8-sig"))
  if isinstance(content, dict):
    content = [{"id": key, **_object(value, key)} for key, value in content.items()]
  for number, value in enumerate(content, 1):
    yield _object(value, number)


def _read_tsv(path: storage.Path) -> Iterator[dict[str, Any]]:
  csv.field_size_limit(_MAX_FIELD)
  with io.TextIOWrapper(path.open("rb"), encoding="utf-8-sig", newline="") as file:
    yield from csv.DictReader(file, delimiter="\t")


def _read_parquet(path: storage.Path) -> Iterator[dict[str, Any]]:
  for batch in pq.ParquetFile(path).iter_batches(batch_size=64):
    yield from batch.to_pylist()


def _object(value: Any, place: int | str) -> dict[str, Any]:
  if not isinstance(value, dict):
    raise ValueError(f"row {place} is not a JSON object")
  return value


_READERS = {
  ".jsonl": _read_jsonl,
  ".json": _read_json,
  ".tsv": _read_tsv,
  ".parquet": _read_parquet,
}
