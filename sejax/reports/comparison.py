"""The page that compares runs: what they reached in a table, and their curves in one chart.

Runs that differ in nothing but the seed are one kind: a line for their mean, and a band from the
lowest to the highest of them. A kind is called by the workdirs of its runs, or by the first
of many; one table has each run by itself, and another says in which options kinds differ.
"""

import json
import math
import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import markupsafe
from flax import traverse_util

from sejax import storage
from sejax.errors import quoted
from sejax.monitoring import writers
from sejax.reports import charts, curves, pages

# Fields that do not make another kind of run: the seed, and what only logs or stores.
_OF_NO_KIND = ("seed", "log.", "checkpoint.", "commits.", "compile_threads", "data.workers")


class _Run(NamedTuple):
  """A run that is compared.

  Attributes:
    name: its workdir's.
    config: values of its configuration by dotted names.
    metrics: curves of `metrics.jsonl`.
    summary: `summary.json`; None while the run goes on.
  """

  name: str
  config: dict[str, Any]
  metrics: dict[str, curves.Curve]
  summary: dict[str, Any] | None


class _Kind(NamedTuple):
  """Runs that differ in their seed alone.

  Attributes:
    name: what they are called.
    config: what decides their kind, by dotted names.
    runs: the runs.
  """

  name: str
  config: dict[str, Any]
  runs: list[_Run]


def run(workdirs: Sequence[storage.Path], path: storage.Path) -> None:
  """Writes a page that compares runs, whether or not they have ended.

  Args:
    workdirs: of at least two training runs.
    path: where the page goes.

  Raises:
    ValueError: there are fewer, or one has no metrics.
  """
  pages.write(path, page(workdirs))
  print(f"comparison written to {path}")


def page(workdirs: Sequence[storage.Path]) -> str:
  """Returns the HTML of the page; see `run`."""
  names = [str(storage.absolute(workdir)) for workdir in workdirs]
  if len({*names}) < 2:
    raise ValueError(f"--runs={','.join(names)} must be two or more different workdirs")
  runs = [_read(workdir) for workdir in workdirs]
  kinds = _kinds(runs)
  known = {name for run in runs for name in run.metrics if not name.endswith("_count")}
  glance, last = curves.at_a_glance(sorted(known)), _last_names(known)
  return pages.render(
    "comparison.html",
    title=f"{len(runs)} runs compared",
    kinds=[kind.name for kind in kinds],
    runs=[
      (run.name, kind.name, run.config.get("seed", "–"), _steps(run), *_last(last, [run]))
      for kind in kinds
      for run in kind.runs
    ],
    figures=list(_figures(kinds)),
    differences=list(_differences(kinds)),
    last_names=[curves.words(name) for name in last],
    last=[(kind.name, *_last(last, kind.runs)) for kind in kinds],
    glance=[_overlay(name, kinds) for name in glance],
    curves=[
      (heading, [_overlay(name, kinds) for name in found])
      for heading, found in curves.by_heading(sorted(known), curves.OF_METRICS)
    ],
  )


def _read(workdir: storage.Path) -> _Run:
  if not workdir.is_dir():
    raise ValueError(f"there is no folder {workdir}; give workdirs as --runs=A,B")
  metrics = curves.read(workdir / writers.METRICS)
  if not metrics:
    raise ValueError(f"{workdir / writers.METRICS} holds no metrics; give workdirs as --runs=A,B")
  config, summary = workdir / "config.json", workdir / "summary.json"
  return _Run(
    storage.absolute(workdir).name,
    traverse_util.flatten_dict(_object(config), sep=".") if config.exists() else {},
    metrics,
    _object(summary) if summary.exists() else None,
  )


def _object(path: storage.Path) -> dict[str, Any]:
  try:
    return dict(json.loads(path.read_bytes()))
  except (ValueError, TypeError) as error:
    raise ValueError(f"{path} is not a JSON object: {quoted(error)}") from None


def _kinds(runs: Sequence[_Run]) -> list[_Kind]:
  """Returns the kinds of runs, in the order in which they occur."""
  by_config: dict[str, list[_Run]] = {}
  for run in runs:
    config = {k: v for k, v in run.config.items() if not k.startswith(_OF_NO_KIND)}
    by_config.setdefault(json.dumps(config, sort_keys=True), []).append(run)
  return [
    _Kind(
      _name([run.name for run in members]),
      json.loads(key),
      members,
    )
    for key, members in by_config.items()
  ]


def _name(workdirs: Sequence[str]) -> str:
  """Returns what runs are called together."""
  return ", ".join(workdirs) if len(workdirs) < 4 else f"{workdirs[0]} and {len(workdirs) - 1} more"


def _differences(kinds: Sequence[_Kind]) -> Iterator[tuple[str, ...]]:
  """Yields a row for each option in which kinds differ: the value of each, or a dash without it."""
  for name in sorted({name for kind in kinds for name in kind.config}):
    values = [json.dumps(kind.config[name]) if name in kind.config else "–" for kind in kinds]
    if len({*values}) > 1:
      yield (name, *values)


def _last_names(known: Collection[str]) -> list[str]:
  """Returns the metrics whose last values are compared."""
  names = [*curves.at_a_glance(sorted(known)), "judge_mean", "kl", "collapse_score"]
  return [name for name in dict.fromkeys(names) if name in known]


def _last(names: Sequence[str], runs: Sequence[_Run]) -> Iterator[str]:
  """Yields the mean over runs of each metric at their last steps; a dash without any."""
  for name in names:
    ends = [run.metrics[name].values[-1] for run in runs if name in run.metrics]
    ends = [value for value in ends if value is not None]
    yield f"{statistics.fmean(ends):.4g}" if ends else "–"


def _steps(run: _Run) -> str:
  """Returns how many steps a run has made, and whether it goes on."""
  made = max(curve.steps[-1] for curve in run.metrics.values()) + 1
  return f"{made}, not ended" if run.summary is None else f"{made}"


def _figures(kinds: Sequence[_Kind]) -> Iterator[tuple[str, ...]]:
  """Yields a row for each kind and held-out metric: before, after and change, in percent."""
  for kind in kinds:
    ended = [run.summary for run in kind.runs if run.summary and run.summary.get("change")]
    names = [name for name in (ended[0]["change"] if ended else ()) if not name.endswith("_error")]
    for name in names:
      have = [summary for summary in ended if name in summary["change"]]
      yield (
        kind.name,
        curves.words(name),
        *(_mean(have, part, name, sign) for part, sign in (("before", ""), ("after", ""))),
        _mean(have, "change", name, "+"),
        _spread([summary["change"][name] for summary in have]),
      )


def _mean(summaries: Sequence[Mapping[str, Any]], part: str, name: str, sign: str) -> str:
  """Returns the mean of a share over runs, in percent, with its standard error over problems."""
  values = [summary[part][name] for summary in summaries]
  errors = [summary[part].get(f"{name}_error") for summary in summaries]
  # Runs answer the same problems: their errors are not independent.
  squares = [] if None in errors else [error * error for error in errors]
  error = math.sqrt(statistics.fmean(squares)) if squares else None
  return pages.percent(statistics.fmean(values), error, sign)


def _spread(values: Sequence[float]) -> str:
  """Returns the standard deviation over runs in points; a dash for a single one."""
  return f"{100 * statistics.stdev(values):.1f}" if len(values) > 1 else "–"


def _overlay(name: str, kinds: Sequence[_Kind]) -> markupsafe.Markup:
  """Returns the chart of a metric with a line and a band for each kind that has it."""
  bands = [_band(name, kind) for kind in kinds]
  return charts.overlay(name, bands, curves.explanation(name))


def _band(name: str, kind: _Kind) -> charts.Band:
  """Returns the mean and the range of a metric at the steps that all runs of a kind have."""
  have = [run.metrics[name] for run in kind.runs if name in run.metrics]
  values = [dict(zip(curve.steps, curve.values, strict=True)) for curve in have]
  steps = sorted(set.intersection(*map(set, values))) if values else []
  rows = [[row[step] for row in values] for step in steps]
  return charts.Band(
    kind.name,
    curves.Curve(steps, [_of(row, statistics.fmean) for row in rows]),
    [_of(row, min) for row in rows],
    [_of(row, max) for row in rows],
  )


def _of(row: Iterable[float | None], what: Any) -> float | None:
  """Returns what is asked of a row; None where a value is missing."""
  row = list(row)
  return None if None in row else what(row)
