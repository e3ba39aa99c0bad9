"""The page about a training run: accuracy before and after, curves of all metrics, sample groups.

A run writes it when it ends. `--mode=report` writes it at any time, from the files that the run has
written to its workdir so far.

`summary.json`, which is written when a run ends, has these fields:

- `before`, `after`, `change`: held-out metrics as fractions, such as `pass_at_1`, each with its
  standard error, such as `pass_at_1_error`; the error of a change is that of paired problems;
- `steps`, `seconds` and `stages`, the seconds of each stage;
- `label_accuracy_falls_from`: see `sejax.monitoring.collapse.falls_from`; left out if it does not.

A line of `groups.jsonl` holds one group of G trajectories:

- `step`, `id`, `question`, `gold` (for metrics only; null without a gold answer);
- `pictures`: image files in base64;
- `texts`, `answers` (null where none was found), `votes` (share of the group with the same answer);
- `verdicts` (a list of texts for each trajectory), `scores`, `valid`;
- `rewards`, `advantages`.
"""

import base64
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import markupsafe

from sejax import storage
from sejax.errors import quoted
from sejax.monitoring import writers
from sejax.reports import pages

_SHOWN = 24  # maximum number of groups on the page
_LONGEST = 32  # maximum characters of an answer in a table; its trajectory is shown in full

# Headings and regular expressions. A metric of `metrics.jsonl` is drawn under the first heading of
# `_CURVES` whose expression matches its name, and one of `timing.jsonl` likewise by `_TIMING`.
_CURVES = {
  "Accuracy": r"pass@|pass_at|maj@|maj_at|greedy",
  "Labels against gold answers, agreement and collapse": r"label|agreement|collapse",
  "Rewards, votes and verdicts": r"reward|majority|consistency|judge|verdict|advantage|distinct"
  r"|abstention|format|constant",
  "Entropy and length": r"entropy|length|truncated|tokens",
  "Updates": r"kl|clip|ratio|loss|norm|skipped|finite|rate",
  "Other": r"",
}
_TIMING = {
  "Speed and memory": r"per_second|tokens|utili[sz]ation|mfu|flops|bytes|memory|compil",
  "Seconds": r"",
}
_COUNTS = "_count"  # suffix of metrics that count the groups that another metric's mean is over


def run(workdir: storage.Path) -> None:
  """Writes `report.html` to the workdir of a run, whether or not the run has ended.

  Raises:
    ValueError: the workdir has no metrics, or a file has another format than a run writes.
  """
  path = workdir / "report.html"
  pages.write(path, page(workdir))
  print(f"report written to {path}")


def page(workdir: storage.Path) -> str:
  """Returns the HTML of the page; see `run`."""
  metrics = _curves(workdir / writers.METRICS)
  if not metrics:
    raise ValueError(
      f"{workdir / writers.METRICS} holds no metrics; give a training run's --workdir"
    )
  counts = {name: metrics.pop(name) for name in list(metrics) if name.endswith(_COUNTS)}
  groups, group_count = _groups(workdir / writers.GROUPS)
  configuration = workdir / "config.json"
  return pages.render(
    "training.html",
    title=f"{storage.absolute(workdir).name}: training run",
    summary=_summary(workdir / "summary.json"),
    curves=[
      *_charts(metrics, _CURVES),
      *_charts(_curves(workdir / writers.TIMING), _TIMING),
      *_charts(counts, {"Groups that define each mean": r""}),
    ],
    groups=groups,
    group_count=group_count,
    configuration=configuration.read_text(encoding="utf-8") if configuration.exists() else None,
  )


def _summary(path: storage.Path) -> dict[str, Any] | None:
  """Returns the values of `summary.json` for the template; None until the run has ended."""
  if not path.exists():
    return None
  try:
    summary = json.loads(path.read_text(encoding="utf-8"))
    before, after, change = summary["before"], summary["after"], summary["change"]
    figures = [
      (_words(name), _percent(before, name), _percent(after, name), _percent(change, name, "+"))
      for name in before
      if not name.endswith("_error")
    ]
    stages = summary["stages"]
    total = stages.get("total") or sum(stages.values()) or 1
    total_last = sorted(stages.items(), key=lambda stage: stage[0] == "total")
    trained_on = summary.get("training_problems")
    return {
      "figures": figures,
      "trained_on": trained_on,
      "problems": summary["problems"] if trained_on else None,
      "steps": summary["steps"],
      "falls_from": summary.get("label_accuracy_falls_from"),
      "duration": _duration(summary["seconds"]),
      "stages": [
        (_words(stage), _duration(seconds), f"{seconds / total:.0%}")
        for stage, seconds in total_last
      ],
    }
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise ValueError(f"{path} is not a summary of a run: {quoted(error)}") from None


def _percent(figures: Mapping[str, float], name: str, sign: str = "") -> str:
  value, error = figures[name], figures.get(f"{name}_error")
  percent = f"{100 * value:{sign}.1f}"
  return percent if error is None else f"{percent} ± {100 * error:.1f}".replace(" ", "\N{NBSP}")


def _duration(seconds: float) -> str:
  if seconds < 60:
    return f"{seconds:.1f} s"
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def _words(name: str) -> str:
  return name.replace("_at_", "@").replace("_", " ")


def _curves(path: storage.Path) -> dict[str, tuple[list[int], list[float | None]]]:
  """Reads the curves of a file of JSON lines: steps and values of each metric, sorted by name."""
  curves = {}
  for record in writers.read(path):
    step = record.pop("step")
    for name, value in record.items():
      if not isinstance(value, int | float | None):
        raise ValueError(f"{path}: {name} of step {step} is {quoted(value)}, not a number")
      steps, values = curves.setdefault(name, ([], []))
      steps.append(step)
      values.append(value)
  return dict(sorted(curves.items()))


def _charts(
  curves: Mapping[str, tuple], headings: Mapping[str, str]
) -> Iterator[tuple[str, list[markupsafe.Markup]]]:
  """Yields each heading that has charts, with these charts.

  Args:
    curves: steps and values of each metric.
    headings: regular expression of each heading.
  """
  rest = dict(curves)
  for heading, pattern in headings.items():
    names = [name for name in rest if re.search(pattern, name)]
    drawn = [pages.chart(name, *rest.pop(name)) for name in names]
    if any(drawn):
      yield heading, drawn


def _groups(path: storage.Path) -> tuple[list[dict[str, Any]], int]:
  """Returns groups evenly spread over the file, and the number of groups in it.

  Reads the file twice, line by line, because it may be larger than memory.
  """
  number = sum(1 for _ in writers.read(path))
  shown = min(number, _SHOWN)
  places = {i * (number - 1) // max(1, shown - 1) for i in range(shown)}
  groups = []
  for place, record in enumerate(writers.read(path)):
    if place in places:
      try:
        groups.append(_group(record))
      except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}:{place + 1} is not a group: {quoted(error)}") from None
  return groups, number


def _group(record: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the values of a group for the template."""
  gold, question = record["gold"], record["question"]
  trajectories = list(zip(record["texts"], record["verdicts"], strict=True))
  for text in (question, *itertools.chain.from_iterable((t, *v) for t, v in trajectories)):
    if not isinstance(text, str):
      raise TypeError(f"{quoted(text)} is not text")
  columns = ("answers", "votes", "scores", "valid", "rewards", "advantages", "verdicts")
  rows = [
    dict(zip(columns, row, strict=True))
    for row in zip(*(record[name] for name in columns), strict=True)
  ]
  return {
    "name": f"Step {record['step']}: {record['id']}",
    "thumbnails": [pages.make_thumbnail(base64.b64decode(file)) for file in record["pictures"]],
    "question": question,
    "gold": "no gold answer" if gold is None else f"gold answer, unseen in training: {gold}",
    "rows": [_row(number, row) for number, row in enumerate(rows, 1)],
    "trajectories": trajectories,
  }


def _row(number: int, trajectory: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns the table cells of one trajectory, by the fields of `groups.jsonl`."""
  answer = "none" if trajectory["answers"] is None else trajectory["answers"]
  if len(answer) > _LONGEST:
    answer = answer[: _LONGEST - 1] + "…"
  if trajectory["valid"]:
    judged = f"{trajectory['scores']:.2f}"
  else:
    judged = "invalid" if trajectory["verdicts"] else "none"
  votes, reward, advantage = (trajectory[name] for name in ("votes", "rewards", "advantages"))
  return f"{number}", answer, f"{votes:.0%}", judged, f"{reward:.3f}", f"{advantage:+.3f}"
