"""Renders the HTML pages, which are self-contained: they load nothing and run no script.

What a page looks like is in `templates/`, filled in by jinja2, which escapes every value; only
what a template made is taken as HTML. Colours follow the reader's light or dark mode, widths the
screen; whatever opens or scrolls is reached by keyboard.
"""

import base64
import io
import itertools
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jinja2
import markupsafe
import PIL.Image

from sejax.data import images

_THUMBNAIL = 320  # pixels of its longer side
_HOVERED = 200  # points at most that show their values under the pointer

_TEMPLATES = jinja2.Environment(
  loader=jinja2.PackageLoader("sejax.reports"),
  autoescape=True,
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
  lstrip_blocks=True,
)


class _Plot(NamedTuple):
  """Where a chart's axes are, in units of the drawing, whose y grows downwards."""

  width: int = 320
  height: int = 150
  left: int = 60
  top: int = 8
  right: int = 312
  bottom: int = 128


_PLOT = _Plot()


class Picture(NamedTuple):
  """A thumbnail of an image.

  Attributes:
    size: of the image itself, as `width x height`.
    width: at which the thumbnail is shown, in CSS pixels.
    png: in base64.
  """

  size: str
  width: int
  png: str


class _Bar(NamedTuple):
  """A bar of a histogram, and what the pointer shows on it."""

  x: float
  y: float
  width: float
  height: float
  text: str


def render(template: str, **values: object) -> str:
  """Returns the HTML of a file of `templates/`; values are escaped unless they are `Markup`."""
  return _TEMPLATES.get_template(template).render(values)


def table(name: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> markupsafe.Markup:
  """Returns a table as the pages have them, for notebooks.

  Args:
    name: of what it holds; it is read aloud, not shown.
    head: titles of the columns; empty for none.
    rows: cells; the first cell of a row says what the row is.
  """
  return _macros().table(name, head, [list(row) for row in rows])


def thumbnail(data: bytes) -> markupsafe.Markup:
  """Returns an image file as the pages show it, for notebooks; see `picture`."""
  return _macros().picture(picture(data))


def _macros() -> Any:
  return _TEMPLATES.get_template("macros.html").module


def write(path: pathlib.Path, page: str) -> None:
  """Writes a page; lone surrogates, which JSON can bring in and UTF-8 cannot hold, as escapes."""
  path.write_text(page, encoding="utf-8", errors="backslashreplace")


def picture(data: bytes) -> Picture:
  """Returns a thumbnail of at most 320 pixels a side of an image file; small images are enlarged.

  Raises:
    BadRecord: the file cannot be decoded, see `images.decode`.
  """
  decoded = images.decode(data)
  size = f"{decoded.width} x {decoded.height}"
  decoded.thumbnail((_THUMBNAIL, _THUMBNAIL), PIL.Image.Resampling.LANCZOS)
  file = io.BytesIO()
  decoded.save(file, "PNG")
  width = decoded.width * max(1, _THUMBNAIL // 2 // max(decoded.size))
  return Picture(size, width, base64.b64encode(file.getvalue()).decode())


def chart(name: str, steps: Sequence[int], values: Sequence[float | None]) -> markupsafe.Markup:
  """Returns a line chart over steps, with its name and last value; empty without any value.

  Args:
    name: the metric's.
    steps: ascending.
    values: one for each step; None interrupts the line.
  """
  known = [value for value in values if value is not None]
  if not known:
    return markupsafe.Markup()
  low, high = _range(min(known), max(known))
  right = (_PLOT.right - _PLOT.left) / max(1, steps[-1] - steps[0])
  up = (_PLOT.bottom - _PLOT.top) / (high - low)
  points = [
    None
    if value is None
    else (_PLOT.left + right * (step - steps[0]), _PLOT.bottom - up * (value - low))
    for step, value in zip(steps, values, strict=True)
  ]
  hovers = [
    (*point, f"step {step}: {value:.4g}")
    for point, step, value in zip(points, steps, values, strict=True)
    if point
  ]
  drawn = render(
    "chart.html",
    plot=_PLOT,
    name=name,
    last=known[-1],
    label=f"{name} over steps {steps[0]} to {steps[-1]}, from {known[0]:.4g} to {known[-1]:.4g}",
    ticks=_ticks(low, high),
    first_step=steps[0],
    last_step=steps[-1],
    curve=_path(points),
    dots=_path(points, 1),
    hovers=hovers if len(points) <= _HOVERED else (),
  )
  return markupsafe.Markup(drawn)


def histogram(name: str, counts: Sequence[int], width: int, caption: str) -> markupsafe.Markup:
  """Returns a histogram.

  Args:
    name: what the sizes are of.
    counts: how many there are in each bin; the first bin begins at size 0.
    width: sizes in a bin.
    caption: text under the bars.
  """
  high = max(5, *counts)  # Grid lines are then whole numbers.
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
  drawn = render(
    "histogram.html",
    plot=_PLOT,
    name=name,
    ticks=_ticks(0, high),
    largest=len(counts) * width - 1,
    bars=bars,
    caption=caption,
  )
  return markupsafe.Markup(drawn)


def _range(low: float, high: float) -> tuple[float, float]:
  """Returns the ends of the vertical axis, apart even where values differ by rounding alone."""
  if high - low <= 1e-6 * max(abs(low), abs(high)):
    margin = abs(low) / 2 or 1.0
    return low - margin, high + margin
  return low, high


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
  """Returns heights of two to six round values, 1, 2 or 5 times a power of ten apart."""
  power = 10.0 ** math.floor(math.log10((high - low) / 5))
  apart = next(m * power for m in (1, 2, 5, 10, 20) if m * power * 5 >= high - low)
  up = (_PLOT.bottom - _PLOT.top) / (high - low)
  return [
    (_PLOT.bottom - up * (n * apart - low), f"{n * apart:,.6g}")
    for n in range(math.ceil(low / apart), math.floor(high / apart) + 1)
  ]


def _path(points: Sequence[tuple[float, float] | None], longest: int | None = None) -> str:
  """Returns an SVG path along the points, or along only its pieces of at most `longest` points.

  A point without neighbours is a line of no length, which shows as a dot.
  """
  parts = []
  for known, run in itertools.groupby(points, key=lambda point: point is not None):
    corners = [f"{x:.1f} {y:.1f}" for x, y in run] if known else []
    if corners and (longest is None or len(corners) <= longest):
      parts.append("M" + "L".join(corners if len(corners) > 1 else corners * 2))
  return "".join(parts)
