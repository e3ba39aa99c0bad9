"""Results of an evaluation: scores and graded responses per benchmark, and tables of all."""

import collections
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

from sejax import storage
from sejax.evaluation import metrics
from sejax.evaluation.benchmarks.protocol import (
  Graded,
  Problem,
  Protocol,
  Scores,
  cluster_interval,
  right_samples,
)
from sejax.parallel import hosts
from sejax.reports import pages
from sejax.text import answers

SCORES, PROBLEMS = "scores.json", "problems.jsonl"
_HEAD = ("set", "protocol", "metric", "%", "95% interval", "problems", "samples", "read by")


@dataclasses.dataclass(frozen=True)
class Result:
  """Results on one benchmark.

  Attributes:
    name: name of the benchmark.
    protocol: name of the protocol.
    headline: name of the main metric.
    scores: metrics of the protocol and, with several samples, pass@k and maj@n.
    problems: number of graded problems.
    unanswered: number of problems without a response, which are excluded from all metrics.
    samples: number of responses per problem.
    undecided: comparisons that exceeded a limit (1,000 characters, time or memory); they count as
      wrong.
    extractors: number of answers that each extractor extracted.
  """

  name: str
  protocol: str
  headline: str
  scores: Scores
  problems: int
  unanswered: int
  samples: int
  undecided: int
  extractors: Mapping[str, int]

  @classmethod
  def of(
    cls,
    name: str,
    protocol_name: str,
    protocol: Protocol,
    graded: Sequence[Graded],
    unanswered: int,
  ) -> "Result":
    """Computes the scores of graded problems.

    Args:
      protocol: computes the scores.
      graded: all graded problems.
      unanswered: number of problems without a response.

    Raises:
      ValueError: problems differ in their number of responses, or none can be scored.
    """
    numbers = {len(item.right) for item in graded}
    if len(numbers) > 1:
      raise ValueError(f"problems of {name} have {sorted(numbers)} responses; all need as many")
    scores = protocol.scores(graded)
    scores = scores._replace(metrics=scores.metrics | _of_samples(graded))
    return cls(
      name=name,
      protocol=protocol_name,
      headline=protocol.headline,
      scores=scores,
      problems=len(graded),
      unanswered=unanswered,
      samples=numbers.pop(),
      undecided=sum(verdict is None for item in graded for verdict in item.right),
      extractors=dict(collections.Counter(name for item in graded for name in item.extractors)),
    )

  def plain(self) -> dict[str, Any]:
    """Returns JSON values, the content of `scores.json`."""
    return {
      "set": self.name,
      "protocol": self.protocol,
      "headline": self.headline,
      "metrics": {
        name: {part: _finite(x) for part, x in interval._asdict().items()}
        for name, interval in self.scores.metrics.items()
      },
      "counts": self.scores.counts,
      "problems": self.problems,
      "unanswered": self.unanswered,
      "samples": self.samples,
      "undecided": self.undecided,
      "extractors": self.extractors,
      "breakdowns": {
        name: {value: share._asdict() for value, share in part.items()}
        for name, part in self.scores.breakdowns.items()
      },
    }


def lines(graded: Iterable[Graded], protocol_name: str) -> Iterable[str]:
  """Yields a JSON line for each response; `rows.read_answers` can read them."""
  for item in graded:
    samples = zip(item.responses, item.extractions, item.extractors, item.right, strict=True)
    for number, (response, extraction, extractor, verdict) in enumerate(samples):
      record = {
        "id": item.problem.id,
        "sample": number,
        "response": response,
        "extraction": extraction,
        "gold": item.problem.gold,
        "correct": verdict,
        "extractor": extractor,
        "protocol": protocol_name,
      }
      yield json.dumps(record) + "\n"


def resume(
  folder: storage.Path, problems: Iterable[Problem], samples: int, protocol_name: str
) -> list[Graded]:
  """Returns the problems that an interrupted evaluation has graded completely.

  A collective operation: process 0 reads the file. Incomplete lines and problems are removed from
  it, so that new ones can be appended.

  Args:
    folder: results of the benchmark.
    problems: problems of the benchmark.
    samples: responses per problem; a problem with fewer lines is incomplete.
    protocol_name: the protocol of this evaluation.

  Raises:
    ValueError: the file was written with another protocol.
  """
  file = storage.LineFile(folder / PROBLEMS)
  found = _records(file) if jax.process_index() == 0 else None
  records: dict[str, list[dict[str, Any]]] = {}
  for record in hosts.gather_json(found)[0]:
    if record["protocol"] != protocol_name:
      raise ValueError(
        f"{file.path} holds responses graded by the protocol {record['protocol']}, not"
        f" {protocol_name}; give another --workdir"
      )
    records.setdefault(record["id"], []).append(record)
  done = [
    _graded(problem, records[problem.id])
    for problem in problems
    if len(records.get(problem.id, ())) == samples
  ]
  if jax.process_index() == 0 and file.exists():
    file.rewrite(line.encode() for line in lines(done, protocol_name))
  return done


def _records(file: storage.LineFile) -> list[dict[str, Any]]:
  """Returns the records of a file, each sample of a problem once."""
  records = {}
  for _, line in file.read():
    try:
      record = json.loads(line)
    except ValueError:  # the last line, if its writer was killed
      continue
    records[record["id"], record["sample"]] = record
  return list(records.values())


def _graded(problem: Problem, records: Sequence[Mapping[str, Any]]) -> Graded:
  fields = ("response", "extraction", "extractor", "correct")
  return Graded(problem, *(tuple(record[name] for record in records) for name in fields))


def write_scores(result: Result, folder: storage.Path) -> None:
  """Writes `scores.json` of a benchmark."""
  text = json.dumps(result.plain(), indent=2, allow_nan=False)
  storage.write_text(folder / SCORES, text + "\n")


def markdown(results: Sequence[Result]) -> str:
  """Returns a Markdown table with the metrics of all benchmarks, the main metric of each first."""
  rows = [_HEAD, ("---",) * len(_HEAD), *_rows(results)]
  return "".join("| " + " | ".join(row) + " |\n" for row in rows)


def page(results: Sequence[Result]) -> str:
  """Returns an HTML page with the table and all breakdowns."""
  return pages.render(
    "evaluation.html",
    title="Evaluation",
    head=_HEAD,
    rows=_rows(results),
    sets=[
      {
        "name": result.name,
        "counts": _counts(result),
        "breakdowns": [
          (title, [(v, _percent(r / total), _number(r), total) for v, (r, total) in part.items()])
          for title, part in result.scores.breakdowns.items()
          if part
        ],
      }
      for result in results
    ],
  )


def _rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
  rows = []
  for result in results:
    figures = result.scores.metrics
    asked = f" of {result.problems + result.unanswered}" if result.unanswered else ""
    common = (f"{result.problems}{asked}", str(result.samples), ", ".join(result.extractors))
    for name in sorted(figures, key=lambda name: name != result.headline):
      value, low, high = map(_percent, figures[name])
      shown = f"{name} (headline)" if name == result.headline else name
      rows.append((result.name, result.protocol, shown, value, f"{low} to {high}", *common))
  if len(results) > 1:
    mean = sum(r.scores.metrics[r.headline].value for r in results) / len(results)
    rows.append(("all", "", "mean of headlines", _percent(mean), "", "", "", ""))
  return rows


def _counts(result: Result) -> str:
  """Returns the set's counts in sentences."""
  counts = ", ".join(f"{name} {_number(number)}" for name, number in result.scores.counts.items())
  said = [f"Counts: {counts}."]
  if result.unanswered:
    said.append(f"Problems without a response, which count in no figure: {result.unanswered}.")
  if result.undecided:
    said.append(
      "Comparisons that could not be decided (over 1000 characters, or out of time or memory), "
      f"which count as wrong: {result.undecided}."
    )
  return " ".join(said)


def _of_samples(graded: Sequence[Graded]) -> dict[str, metrics.Interval]:
  """Returns the metrics that need several samples per problem: pass@k and maj@n."""
  correct = right_samples(graded)
  number = correct.shape[1]
  figures, k = {}, 2
  while k <= number:
    figures[f"pass@{k}"] = cluster_interval(graded, metrics.pass_at_k(correct, k))
    k *= 2
  if number > 1:
    ids = answers.vote_ids([item.extractions for item in graded])
    figures[f"maj@{number}"] = cluster_interval(graded, metrics.maj_at_n(ids, correct))
  return figures


def _percent(share: float) -> str:
  return f"{100 * share:.2f}" if math.isfinite(share) else "-"


def _number(value: float) -> str:
  return f"{value:.6g}"


def _finite(value: float) -> float | None:
  return value if math.isfinite(value) else None
