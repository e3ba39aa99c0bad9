"""Figures of the study: the map of gains, and the dynamics of training."""

import os
import pathlib
from typing import Any

import numpy as np

from experiments.study import cells
from experiments.study.results import Run, Study
from experiments.study.summary import collapses

_PANELS = {
  "accuracy of a sample, training figures": "pass@1",
  "majorities that are right": "label_accuracy",
  "share of the majority": "majority_share",
  "entropy, nats per token": "sampled_entropy",
  "tokens of a reply": "response_length",
  "agreement of votes and Judge": "agreement",
}
_LIMIT = 30  # points at which the map's colours end


def draw(workdir: str | os.PathLike, study: Study) -> None:
  """Writes `map.svg` and `dynamics.svg`; without matplotlib it says so and draws nothing."""
  try:
    import matplotlib as mpl
  except ImportError:
    print("map.svg and dynamics.svg need matplotlib: pip install 'sejax[notebook]'")
    return
  if not study.runs:
    return
  mpl.use("svg")
  mpl.rcParams["svg.hashsalt"] = "study"  # The same file from the same numbers.
  from matplotlib import pyplot

  for name, drawn in (("map", _map(study, pyplot)), ("dynamics", _dynamics(study, pyplot))):
    file = pathlib.Path(workdir) / f"{name}.svg"
    drawn.savefig(file, metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(drawn)


def _map(study: Study, pyplot: Any) -> Any:
  """Draws a field per method and start: the gain at the last read-off, and the best."""
  methods = list(dict.fromkeys(method for _, method in study.runs))
  starts = [start for start in study.starts if any(start == key[0] for key in study.runs)]
  values = np.full((len(methods), len(starts)), np.nan)
  figure, axis = pyplot.subplots(figsize=(2.6 * len(starts) + 1.6, 0.5 * len(methods) + 1.2))
  for row, method in enumerate(methods):
    for column, start in enumerate(starts):
      if (start, method) not in study.runs:
        continue
      last, best = (100 * study.gains(start, method, moment).mean() for moment in ("last", "best"))
      values[row, column] = last
      said = f"{last:+.1f}" + f"  (best {best:+.1f})"
      if (fall := collapses(study.runs[start, method])) != "never":
        said += f"\nfalls after {fall}"
      colour = "white" if abs(last) > 0.75 * _LIMIT else "black"
      axis.text(column, row, said, ha="center", va="center", fontsize=7, color=colour)
  shown = axis.imshow(values, cmap="PuOr", vmin=-_LIMIT, vmax=_LIMIT, aspect="auto")
  labels = [
    f"{start}\n{100 * study.starts[start].values['pass_at_1'].mean():.0f} % of samples right"
    for start in starts
  ]
  axis.set_xticks(range(len(starts)), labels, fontsize=8)
  axis.set_yticks(range(len(methods)), methods, fontsize=8)
  axis.xaxis.tick_top()
  axis.tick_params(length=0)
  axis.spines[:].set_visible(False)
  bar = figure.colorbar(shown, ax=axis, fraction=0.04)
  bar.set_label("gain of a sample at the end, points", fontsize=8)
  return figure


def _dynamics(study: Study, pyplot: Any) -> Any:
  """Draws training over tokens, a row per start, as means over seeds between their extremes."""
  starts = [start for start in study.starts if any(start == key[0] for key in study.runs)]
  compared = dict.fromkeys(cells.COMPARED + cells.OTHER_STARTS_METHODS)
  colours = {method: f"C{number}" for number, method in enumerate(compared)}
  figure, axes = pyplot.subplots(
    len(starts),
    len(_PANELS),
    figsize=(3.2 * len(_PANELS), 2.6 * len(starts)),
    squeeze=False,
  )
  for row, start in zip(axes, starts, strict=True):
    for axis, (title, name) in zip(row, _PANELS.items(), strict=True):
      for method in compared:
        runs = [run for run in study.runs.get((start, method), []) if any(run.curves.get(name, []))]
        if runs:
          _band(axis, runs, name, method, colours[method])
      axis.set_title(f"{start}: {title}", fontsize=8)
      axis.set_xlabel("thousand tokens", fontsize=7)
      axis.tick_params(labelsize=7)
  handles, labels = axes[0][0].get_legend_handles_labels()
  figure.legend(handles, labels, ncol=len(labels), fontsize=8, frameon=False, loc="lower center")
  figure.tight_layout(rect=(0, 0.06, 1, 1))
  return figure


def _band(axis: Any, runs: list[Run], name: str, label: str, colour: str) -> None:
  """Draws the mean of some runs, and what lies between the least and the most of them."""
  grid = np.linspace(0, cells.TOKENS, 51)[1:]
  curves = []
  for run in runs:
    known = [
      (tokens, value)
      for tokens, value in zip(run.curves["tokens"], run.curves[name], strict=True)
      if value is not None
    ]
    curves.append(np.interp(grid, *zip(*known, strict=True)))
  curves = np.array(curves)
  axis.plot(grid / 1000, curves.mean(axis=0), color=colour, label=label, linewidth=1)
  low, high = curves.min(axis=0), curves.max(axis=0)
  axis.fill_between(grid / 1000, low, high, color=colour, alpha=0.12, linewidth=0)
