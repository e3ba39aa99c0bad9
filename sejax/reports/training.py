"""A page about a run: before and after, every curve, and example groups.

`--mode=report` makes it from what a run has left in its workdir so far; `summary.json`, which is
written when a run ends, holds:

- `before`, `after`, `change`: held-out figures as shares of one, such as `pass_at_1`, each with its
  standard error as `pass_at_1_error`; a change's error is of paired problems;
- `steps`, `seconds`, and `stages`, the seconds by stage.

A line of `groups.jsonl` holds one group of G trajectories:

- `step`, `id`, `question`, `gold` (for metrics only; null where there is none);
- `pictures`: image files in base64;
- `texts`, `answers` (null: none was read), `votes` (the share of the group with this answer);
- `verdicts` (of each trajectory a list of texts), `scores`, `valid`;
- `rewards`, `advantages`.
"""

import base64
import html
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from sejax.errors import quoted
from sejax.monitoring import writers
from sejax.reports import pages

_SHOWN = 24  # groups at most
_LONGEST = 32  # characters of an answer in a table; its trajectory holds it whole

# Headings of the curves, each over the names in which its pattern is found, unless an earlier one's
# is: of `metrics.jsonl`, then of `timing.jsonl`.
_CURVES = {
  "Accuracy": r"pass@|pass_at|maj@|maj_at|greedy",
  "Labels against gold answers, and agreement": r"label|agreement",
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
_COUNTS = "_count"  # ends the names of how many groups define a mean


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Writes `report.html` to the workdir.

  Args:
    config: not looked at; the page speaks of the configuration that the run has left.
    workdir: of a run, whether or not it has ended.

  Raises:
    ValueError: there are no metrics in it, or a file is not what a run writes.
  """
  del config
  path = workdir / "report.html"
  # A surrogate half in a text is no Unicode.
  path.write_text(page(workdir), encoding="utf-8", errors="backslashreplace")
  print(f"report written to {path}")


def page(workdir: pathlib.Path) -> str:
  """Returns the page: one HTML text that loads nothing and runs no script; see `run`."""
  metrics = _curves(workdir / writers.METRICS)
  if not metrics:
    raise ValueError(
      f"{workdir / writers.METRICS} holds no metrics; give a training run's --workdir"
    )
  counts = {name: metrics.pop(name) for name in list(metrics) if name.endswith(_COUNTS)}
  sections = [
    *_summary(workdir / "summary.json"),
    *_charts(metrics, _CURVES),
    *_charts(_curves(workdir / writers.TIMING), _TIMING),
    *_charts(counts, {"Groups that define each mean": r""}),
    *_groups(workdir / writers.GROUPS),
    *_configuration(workdir / "config.json"),
  ]
  return pages.page(f"{workdir.resolve().name}: training run", sections)


def _summary(path: pathlib.Path) -> Iterator[str]:
  yield "<h2>Before and after</h2>"
  if not path.exists():
    yield f"<p>There is no {path.name}: the run has not ended.</p>"
    return
  try:
    summary = json.loads(path.read_text(encoding="utf-8"))
    before, after, change = summary["before"], summary["after"], summary["change"]
    names = [name for name in before if not name.endswith("_error")]
    rows = [
      (_words(name), _percent(before, name), _percent(after, name), _percent(change, name, "+"))
      for name in names
    ]
    stages = summary["stages"]
    total = stages.get("total") or sum(stages.values()) or 1
    ended = f"<p>{summary['steps']} steps in {_duration(summary['seconds'])}.</p>"
    last = sorted(stages.items(), key=lambda stage: stage[0] == "total")
    times = [(_words(k), _duration(v), f"{v / total:.0%}") for k, v in last]
  except (ValueError, TypeError, KeyError, AttributeError) as error:
    raise ValueError(f"{path} is no summary of a run: {quoted(error)}") from None
  if rows:
    head = ("held-out, %", "before", "after", "change")
    yield pages.table("held-out problems before and after", head, rows)
    yield "<p>± is a standard error; that of a change is of the same problems.</p>"
    if trained := summary.get("training_problems"):
      number = summary["problems"]
      yield f"<p><strong>{trained} of {number} held-out problems were trained on.</strong></p>"
  else:
    yield "<p>Nothing was evaluated.</p>"
  yield ended
  yield pages.table("time by stage", ("stage", "time", "share"), times)


def _percent(figures: Mapping[str, float], name: str, sign: str = "") -> str:
  value, error = figures[name], figures.get(f"{name}_error")
  said = f"{100 * value:{sign}.1f}"
  return said if error is None else f"{said} ± {100 * error:.1f}".replace(" ", "\N{NBSP}")


def _duration(seconds: float) -> str:
  if seconds < 60:
    return f"{seconds:.1f} s"
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def _words(name: str) -> str:
  return name.replace("_at_", "@").replace("_", " ")


def _curves(path: pathlib.Path) -> dict[str, tuple[list[int], list[float | None]]]:
  """Returns the steps and values of every name in a file of JSON lines, in order of names."""
  curves = {}
  for record in writers.read(path):
    step = record.pop("step")
    for name, value in record.items():
      if not isinstance(value, int | float | None):
        raise ValueError(f"{path}: {name} of step {step} is {quoted(value)}, no number")
      steps, values = curves.setdefault(name, ([], []))
      steps.append(step)
      values.append(value)
  return dict(sorted(curves.items()))


def _charts(curves: Mapping[str, tuple], headings: Mapping[str, str]) -> Iterator[str]:
  rest = dict(curves)
  for heading, pattern in headings.items():
    names = [name for name in rest if re.search(pattern, name)]
    drawn = [pages.chart(name, *rest.pop(name)) for name in names]
    if any(drawn):
      yield f"<h2>{heading}</h2><div class=charts>{''.join(drawn)}</div>"


def _groups(path: pathlib.Path) -> Iterator[str]:
  """Yields groups spread evenly over the file, which is read twice and never held whole."""
  number = sum(1 for _ in writers.read(path))
  shown = min(number, _SHOWN)
  places = {i * (number - 1) // max(1, shown - 1) for i in range(shown)}
  yield "<h2>Groups</h2>"
  if not number:
    yield f"<p>No groups were kept in {path.name}.</p>"
    return
  yield f"<p>{shown} of {number} groups that were kept.</p><div class='records wide'>"
  for place, record in enumerate(writers.read(path)):
    if place in places:
      try:
        yield _group(record)
      except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}:{place + 1} is no group: {quoted(error)}") from None
  yield "</div>"


def _group(record: Mapping[str, Any]) -> str:
  """Returns one group: its problem, a table of its trajectories, and under it their texts."""
  gold = record["gold"]
  known = "no gold answer" if gold is None else f"gold answer, unseen in training: {gold}"
  pictures = "".join(pages.picture(base64.b64decode(data)) for data in record["pictures"])
  columns = ("answers", "votes", "scores", "valid", "rewards", "advantages", "verdicts")
  trajectories = zip(*(record[name] for name in columns), strict=True)
  rows = [_row(number, *figures) for number, figures in enumerate(trajectories, 1)]
  head = ("#", "answer", "votes", "Judge", "reward", "advantage")
  texts = "".join(
    f"<h4>Trajectory {number}</h4><pre>{html.escape(text)}</pre>"
    + "".join(f"<p>Verdict:</p><pre>{html.escape(verdict)}</pre>" for verdict in verdicts)
    for number, (text, verdicts) in enumerate(
      zip(record["texts"], record["verdicts"], strict=True), 1
    )
  )
  name = f"Step {record['step']}: {record['id']}"
  return (
    f"<article><h3>{html.escape(name)}</h3>{pictures}"
    f"<p class=question>{html.escape(record['question'])}</p><p>{html.escape(known)}</p>"
    f"{pages.table(f'{name}, trajectories', head, rows)}"
    f"<details><summary>Trajectories and verdicts</summary>{texts}</details></article>"
  )


def _row(number: int, answer, votes, score, valid, reward, advantage, verdicts) -> tuple[str, ...]:
  answer = "none" if answer is None else answer
  if len(answer) > _LONGEST:
    answer = answer[: _LONGEST - 1] + "…"
  judged = f"{score:.2f}" if valid else "invalid" if verdicts else "none"
  return f"{number}", answer, f"{votes:.0%}", judged, f"{reward:.3f}", f"{advantage:+.3f}"


def _configuration(path: pathlib.Path) -> Iterator[str]:
  if path.exists():
    text = html.escape(path.read_text(encoding="utf-8"))
    yield "<h2>Configuration</h2>"
    yield f"<details><summary>{path.name}</summary><pre>{text}</pre></details>"
