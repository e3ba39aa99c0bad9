"""Charts as SVG in HTML: curves over steps, shares before and after, and histograms."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import markupsafe

from sejax.reports import pages
from sejax.reports.curves import Curve

_MAX_TOOLTIPS = 200  # points of a curve that still gets tooltips with its values
_INTERVAL = 1.96  # standard errors of a 95% interval


class _Plot(NamedTuple):
  """Size of a chart and position of its axes, in SVG units; y grows downwards."""

  width: int = 320
  height: int = 150
  left: int = 60
  top: int = 8
  right: int = 312
  bottom: int = 128


_PLOT = _Plot()


class _Bar(NamedTuple):
  """A bar of a histogram, in SVG units, and its tooltip."""

  x: float
  y: float
  width: float
  height: float
  text: str


class _Scale(NamedTuple):
  """How steps and values become coordinates.

  Attributes:
    first: step at the left.
    low: value at the bottom.
    high: value at the top.
    right: SVG units of a step.
    up: SVG units of one.
  """

  first: int
  low: float
  high: float
  right: float
  up: float

  @classmethod
  def of(cls, first: int, last: int, values: Sequence[float]) -> "_Scale":
    low, high = _range(min(values), max(values))
    right = (_PLOT.right - _PLOT.left) / max(1, last - first)
    return cls(first, low, high, right, (_PLOT.bottom - _PLOT.top) / (high - low))

  def point(self, step: int, value: float) -> tuple[float, float]:
    return (
      _PLOT.left + self.right * (step - self.first),
      _PLOT.bottom - self.up * (value - self.low),
    )


def chart(name: str, curve: Curve, explanation: str = "") -> markupsafe.Markup:
  """Returns a line chart of a metric over steps; empty if the metric has no values.

  Args:
    name: name of the metric, shown with its last value.
    curve: a step without a value interrupts the line.
    explanation: shown below the name.
  """
  known = [value for value in curve.values if value is not None]
  if not known:
    return markupsafe.Markup()
  steps = curve.steps
  scale = _Scale.of(steps[0], steps[-1], known)
  points = _points(curve, scale)
  tooltips = [
    (*point, f"step {step}: {value:.4g}")
    for point, step, value in zip(points, steps, curve.values, strict=True)
    if point
  ]
  drawn = pages.render(
    "chart.html",
    plot=_PLOT,
    name=name,
    last=known[-1],
    label=f"{name} over steps {steps[0]} to {steps[-1]}, from {known[0]:.4g} to {known[-1]:.4g}",
    explanation=explanation,
    ticks=_ticks(scale.low, scale.high),
    first_step=steps[0],
    last_step=steps[-1],
    curve=_path(points),
    dots=_path(points, 1),
    tooltips=tooltips if len(points) <= _MAX_TOOLTIPS else (),
  )
  return markupsafe.Markup(drawn)


class Band(NamedTuple):
  """A metric of several runs that differ in their seed alone.

  Attributes:
    name: of what these runs have in common.
    mean: mean of the runs, at the steps that all of them have.
    low: smallest value of a run, at each of these steps.
    high: largest value.
  """

  name: str
  mean: Curve
  low: list[float | None]
  high: list[float | None]


def overlay(name: str, bands: Sequence[Band], explanation: str = "") -> markupsafe.Markup:
  """Returns a chart with a line for each of several kinds of runs; empty if none has a value.

  Args:
    name: name of the metric.
    bands: the place of each gives its colour.
    explanation: shown below the name.
  """
  values = [x for band in bands for x in (*band.low, *band.high) if x is not None]
  steps = [step for band in bands for step in band.mean.steps]
  if not values:
    return markupsafe.Markup()
  scale = _Scale.of(min(steps), max(steps), values)
  drawn = pages.render(
    "overlay.html",
    plot=_PLOT,
    name=name,
    label=f"{name} over steps {min(steps)} to {max(steps)}, of " + ", ".join(b.name for b in bands),
    explanation=explanation,
    ticks=_ticks(scale.low, scale.high),
    first_step=min(steps),
    last_step=max(steps),
    bands=[
      {
        "name": band.name,
        "area": _area(band, scale),
        "curve": _path(_points(band.mean, scale)),
        "dots": _path(_points(band.mean, scale), 1),
      }
      for band in bands
    ],
  )
  return markupsafe.Markup(drawn)


def before_after(
  before: Mapping[str, float], after: Mapping[str, float], names: Mapping[str, str]
) -> markupsafe.Markup:
  """Returns a chart of shares before and after, with 95% intervals.

  Args:
    before: shares by name, and their standard errors as `NAME_error`, where these are known.
    after: the same.
    names: what to show each name as.
  """
  plot = _PLOT._replace(width=400, left=70, right=384)
  right = (plot.right - plot.left) / 100
  rows = []
  for number, (name, shown) in enumerate(names.items()):
    top, marks = 14 + 34 * number, []
    for place, (when, shares) in enumerate((("before", before), ("after", after))):
      share, error = 100 * shares[name], 100 * _INTERVAL * shares.get(f"{name}_error", 0.0)
      low, high = max(share - error, 0.0), min(share + error, 100.0)
      marks.append(
        {
          "when": when,
          "y": top + 12 * place,
          "x": plot.left + right * share,
          "low": plot.left + right * low,
          "high": plot.left + right * high,
          "text": f"{shown} {when}: {share:.1f}%, from {low:.1f} to {high:.1f}",
        }
      )
    rows.append({"name": shown, "y": top + 6, "marks": marks})
  drawn = pages.render(
    "before_after.html",
    width=plot.width,
    height=34 * len(rows) + 30,
    label="; ".join(mark["text"] for row in rows for mark in row["marks"]),
    ticks=[(plot.left + right * percent, f"{percent}%") for percent in range(0, 101, 20)],
    rows=rows,
  )
  return markupsafe.Markup(drawn)


def histogram(name: str, counts: Sequence[int], width: int, caption: str) -> markupsafe.Markup:
  """Returns a histogram of whole numbers.

  Args:
    name: title, which says what is counted.
    counts: height of each bar; the first bin starts at 0.
    width: width of a bin.
    caption: text under the bars.
  """
  high = max(5, *counts)  # With less than 5, grid lines would lie at fractions.
  right, up = (_PLOT.right - _PLOT.left) / len(counts), (_PLOT.bottom - _PLOT.top) / high
  bars = [
    _Bar(
      x=_PLOT.left + right * n + 0.5,
      y=_PLOT.bottom - up * count,
      width=right - 1,
      height=up * count,
      text=f"{n * width} to {(n + 1) * width - 1}: {count}",
    )
    for n, count in enumerate(counts)
    if count
  ]
  drawn = pages.render(
    "histogram.html",
    plot=_PLOT,
    name=name,
    ticks=_ticks(0, high),
    largest=len(counts) * width - 1,
    bars=bars,
    caption=caption,
  )
  return markupsafe.Markup(drawn)


def _points(curve: Curve, scale: _Scale) -> list[tuple[float, float] | None]:
  """Returns the point of each step; None where it has no value."""
  return [
    None if value is None else scale.point(step, value)
    for step, value in zip(curve.steps, curve.values, strict=True)
  ]


def _area(band: Band, scale: _Scale) -> str:
  """Returns an SVG path around a band; empty where all runs are alike, or there is one."""
  known = [
    (step, low, high)
    for step, low, high in zip(band.mean.steps, band.low, band.high, strict=True)
    if low is not None
  ]
  if all(low == high for _, low, high in known):
    return ""
  around = [scale.point(step, high) for step, _, high in known]
  around += [scale.point(step, low) for step, low, _ in reversed(known)]
  return _path(around) + "Z"


def _range(low: float, high: float) -> tuple[float, float]:
  """Returns the ends of the vertical axis, widened if all values are nearly equal."""
  if high - low <= 1e-6 * max(abs(low), abs(high)):
    margin = abs(low) / 2 or 1.0
    return low - margin, high + margin
  return low, high


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
  """Returns two to six grid lines at round values: y coordinate and label of each.

  The values are 1, 2 or 5 times a power of ten apart.
  """
  power = 10.0 ** math.floor(math.log10((high - low) / 5))
  distance = next(m * power for m in (1, 2, 5, 10, 20) if m * power * 5 >= high - low)
  up = (_PLOT.bottom - _PLOT.top) / (high - low)
  return [
    (_PLOT.bottom - up * (n * distance - low), f"{n * distance:,.6g}")
    for n in range(math.ceil(low / distance), math.floor(high / distance) + 1)
  ]


def _path(points: Sequence[tuple[float, float] | None], longest: int | None = None) -> str:
  """Returns an SVG path along the points, interrupted where a point is None.

  A single point becomes a line of length zero, which is drawn as a dot.

  Args:
    points: coordinates in SVG units.
    longest: leaves out uninterrupted pieces of more points; None draws all.
  """
  parts = []
  for has_values, piece in itertools.groupby(points, key=lambda point: point is not None):
    corners = [f"{x:.1f} {y:.1f}" for x, y in piece] if has_values else []
    if corners and (longest is None or len(corners) <= longest):
      parts.append("M" + "L".join(corners if len(corners) > 1 else corners * 2))
  return "".join(parts)
