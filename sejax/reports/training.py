"""The page about a training run: what it changed, its most important curves, all others, groups.

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
from collections.abc import Iterator, Mapping
from typing import Any

import markupsafe

from sejax import storage
from sejax.errors import quoted
from sejax.monitoring import writers
from sejax.reports import charts, curves, pages

_SHOWN = 24  # maximum number of groups on the page
_LONGEST = 32  # maximum characters of an answer in a table; its trajectory is shown in full

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
  metrics = curves.read(workdir / writers.METRICS)
  if not metrics:
    raise ValueError(
      f"{workdir / writers.METRICS} holds no metrics; give a training run's --workdir"
    )
  counts = {name: metrics.pop(name) for name in list(metrics) if name.endswith(_COUNTS)}
  timing = curves.read(workdir / writers.TIMING)
  glance = curves.at_a_glance(list(metrics))
  groups, group_count = _groups(workdir / writers.GROUPS)
  summary = _summary(workdir / "summary.json")
  configuration = workdir / "config.json"
  return pages.render(
    "training.html",
    title=f"{storage.absolute(workdir).name}: training run",
    sentence=summary["sentence"] if summary else _sentence_so_far(metrics),
    summary=summary,
    glance=[charts.chart(name, metrics[name], curves.explanation(name)) for name in glance],
    curves=[
      *_charts(metrics, curves.OF_METRICS),
      *_charts(timing, curves.OF_TIMING),
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
    names = {name: curves.words(name) for name in before if not name.endswith("_error")}
    figures = [
      (shown, _percent(before, name), _percent(after, name), _percent(change, name, "+"))
      for name, shown in names.items()
    ]
    duration = _duration(summary["seconds"])
    stages = summary["stages"]
    total = stages.get("total") or sum(stages.values()) or 1
    total_last = sorted(stages.items(), key=lambda stage: stage[0] == "total")
    trained_on = summary.get("training_problems")
    return {
      "sentence": _sentence(summary, duration),
      "chart": charts.before_after(before, after, names) if names else "",
      "figures": figures,
      "trained_on": trained_on,
      "problems": summary["problems"] if trained_on else None,
      "steps": summary["steps"],
      "falls_from": summary.get("label_accuracy_falls_from"),
      "duration": duration,
      "stages": [
        (curves.words(stage), _duration(seconds), f"{seconds / total:.0%}")
        for stage, seconds in total_last
      ],
    }
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise ValueError(f"{path} is not a summary of a run: {quoted(error)}") from None


def _sentence(summary: Mapping[str, Any], duration: str) -> str:
  """Returns what came of a run, in a sentence."""
  steps = f"{summary['steps']} steps took {duration}"
  name = "pass_at_1"
  if name not in summary["change"]:
    return f"{steps}; no held-out problems were evaluated."
  before, after = _percent(summary["before"], name), _percent(summary["after"], name)
  change = _percent(summary["change"], name, "+")
  return (
    f"{steps}: of the held-out problems, one sample is right in {after} percent instead of"
    f" {before}, which is {change} points."
  )


def _sentence_so_far(metrics: Mapping[str, curves.Curve]) -> str:
  """Returns how far a run is that has not ended."""
  last = max(curve.steps[-1] for curve in metrics.values())
  text = f"The run has not ended; it has made {last + 1} steps"
  rewards = [x for x in metrics["reward"].values if x is not None] if "reward" in metrics else []
  if rewards:
    text += f", in which the mean reward went from {rewards[0]:.3f} to {rewards[-1]:.3f}"
  return f"{text}."


def _percent(figures: Mapping[str, float], name: str, sign: str = "") -> str:
  return pages.percent(figures[name], figures.get(f"{name}_error"), sign)


def _duration(seconds: float) -> str:
  if seconds < 60:
    return f"{seconds:.1f} s"
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def _charts(
  drawn: Mapping[str, curves.Curve], headings: Mapping[str, str]
) -> Iterator[tuple[str, list[markupsafe.Markup]]]:
  """Yields each heading that has charts, with these charts.

  Args:
    headings: regular expression of each heading.
  """
  for heading, names in curves.by_heading(list(drawn), headings):
    found = [charts.chart(name, drawn[name], curves.explanation(name)) for name in names]
    if any(found):
      yield heading, found


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
