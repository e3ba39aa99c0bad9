"""Files that an evaluation writes: scores and graded responses of each set, and a table of all."""

import collections
import dataclasses
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax

from sejax.evaluation import metrics
from sejax.evaluation.benchmarks.protocol import (
  Graded,
  Problem,
  Protocol,
  Scores,
  over_units,
  right_samples,
)
from sejax.reports import pages
from sejax.text import answers

SCORES, PROBLEMS = "scores.json", "problems.jsonl"
_HEAD = ("set", "protocol", "metric", "%", "95% interval", "problems", "samples", "read by")


@dataclasses.dataclass(frozen=True)
class Result:
  """Scores of one benchmark set.

  Attributes:
    name: the set's.
    protocol: name of the protocol by which it was graded.
    headline: the metric by which models are compared on this set.
    scores: the protocol's, with pass@k and maj@n added where there are several samples.
    problems: number of graded problems.
    unanswered: number of problems without a response; they count in no metric.
    samples: responses to each problem.
    undecided: comparisons that could not be decided because an answer had over 1000 characters, or
      time or memory ran out; they count as wrong.
    extractors: how many answers each extractor has read.
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
    """Computes the scores of a set's graded problems.

    Raises:
      ValueError: problems differ in their number of responses, or the set cannot be scored.
    """
    numbers = {len(one.right) for one in graded}
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
      undecided=sum(verdict is None for one in graded for verdict in one.right),
      extractors=dict(collections.Counter(name for one in graded for name in one.extractors)),
    )

  def plain(self) -> dict[str, Any]:
    """Returns the content of `scores.json`."""
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
  """Yields a JSON line for each response, which `rows.answers` reads again."""
  for one in graded:
    samples = zip(one.responses, one.extractions, one.extractors, one.right, strict=True)
    for number, (response, extraction, extractor, verdict) in enumerate(samples):
      record = {
        "id": one.problem.id,
        "sample": number,
        "response": response,
        "extraction": extraction,
        "gold": one.problem.gold,
        "correct": verdict,
        "extractor": extractor,
        "protocol": protocol_name,
      }
      yield json.dumps(record) + "\n"


def resume(
  folder: pathlib.Path, problems: Iterable[Problem], samples: int, protocol_name: str
) -> list[Graded]:
  """Returns what an interrupted run has graded; drops unfinished problems from its file.

  Args:
    folder: the set's, in the workdir.
    problems: the set's.
    samples: responses to each problem; a problem with fewer lines is unfinished.
    protocol_name: another one in the file is refused.

  Raises:
    ValueError: the file is of another protocol.
  """
  path = folder / PROBLEMS
  if not path.exists():
    return []
  records: dict[str, list[dict[str, Any]]] = {}
  for line in path.read_text(encoding="utf-8").splitlines():
    try:
      record = json.loads(line)
    except ValueError:  # It was being written.
      continue
    if record["protocol"] != protocol_name:
      raise ValueError(
        f"{path} holds responses graded by the protocol {record['protocol']}, not {protocol_name};"
        " give another --workdir"
      )
    records.setdefault(record["id"], []).append(record)
  done = [
    _graded(problem, records[problem.id])
    for problem in problems
    if len(records.get(problem.id, ())) == samples
  ]
  if jax.process_index() == 0:
    new = path.with_suffix(".new")
    new.write_text("".join(lines(done, protocol_name)), encoding="utf-8")
    new.replace(path)
  return done


def _graded(problem: Problem, records: Sequence[Mapping[str, Any]]) -> Graded:
  fields = ("response", "extraction", "extractor", "correct")
  return Graded(problem, *(tuple(record[name] for record in records) for name in fields))


def write_scores(result: Result, folder: pathlib.Path) -> None:
  """Writes `scores.json` of a set."""
  text = json.dumps(result.plain(), indent=2, allow_nan=False)
  (folder / SCORES).write_text(text + "\n", encoding="utf-8")


def markdown(results: Sequence[Result]) -> str:
  """Returns a Markdown table of all sets, each with its headline metric first."""
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
  """Returns pass@k for powers of two and maj@n; nothing of a single sample."""
  correct = right_samples(graded)
  number = correct.shape[1]
  figures, k = {}, 2
  while k <= number:
    figures[f"pass@{k}"] = over_units(graded, metrics.pass_at_k(correct, k))
    k *= 2
  if number > 1:
    ids = answers.vote_ids([one.extractions for one in graded])
    figures[f"maj@{number}"] = over_units(graded, metrics.maj_at_n(ids, correct))
  return figures


def _percent(share: float) -> str:
  return f"{100 * share:.2f}" if math.isfinite(share) else "-"


def _number(value: float) -> str:
  return f"{value:.6g}"


def _finite(value: float) -> float | None:
  return value if math.isfinite(value) else None
