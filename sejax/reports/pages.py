"""Renders the HTML pages, which are self-contained: they load no other file and run no script.

The jinja2 templates are in `templates/`. Every value is escaped, unless a template rendered it
itself. Pages follow the reader's light or dark mode and the width of the screen, and all that opens
or scrolls can be reached by keyboard.
"""

import base64
import io
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jinja2
import markupsafe
import PIL.Image

from sejax import storage
from sejax.data import images

_THUMBNAIL = 320  # pixels of a thumbnail's longer side
_MAX_TOOLTIPS = 200  # points of a curve that still gets tooltips with its values

_TEMPLATES = jinja2.Environment(
  loader=jinja2.PackageLoader("sejax.reports"),
  autoescape=True,
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
  lstrip_blocks=True,
)


class _Plot(NamedTuple):
  """Size of a chart and position of its axes, in SVG units; y grows downwards."""

  width: int = 320
  height: int = 150
  left: int = 60
  top: int = 8
  right: int = 312
  bottom: int = 128


_PLOT = _Plot()


class Thumbnail(NamedTuple):
  """A thumbnail of an image.

  Attributes:
    size: original size in pixels, as `width x height`.
    width: displayed width in CSS pixels.
    png: thumbnail as a PNG file in base64.
  """

  size: str
  width: int
  png: str


class _Bar(NamedTuple):
  """A bar of a histogram, in SVG units, and its tooltip."""

  x: float
  y: float
  width: float
  height: float
  text: str


def render(template: str, **values: object) -> str:
  """Renders a file of `templates/` to HTML; values are escaped unless they are `Markup`."""
  return _TEMPLATES.get_template(template).render(values)


def table(name: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> markupsafe.Markup:
  """Returns a table in the style of the pages, for notebooks.

  Args:
    name: describes the table to screen readers; not shown.
    head: titles of the columns; empty for a table without a head.
    rows: cells of each row; the first is the row's heading.
  """
  return _macros().table(name, head, [list(row) for row in rows])


def thumbnail(file: bytes) -> markupsafe.Markup:
  """Returns a thumbnail of an image file as HTML, for notebooks; see `make_thumbnail`."""
  return _macros().thumbnail(make_thumbnail(file))


def _macros() -> Any:
  return _TEMPLATES.get_template("macros.html").module


def write(path: storage.Path, page: str) -> None:
  """Writes a page as UTF-8; lone surrogates, which JSON allows and UTF-8 does not, are escaped."""
  storage.write_text(path, page)


def make_thumbnail(file: bytes) -> Thumbnail:
  """Returns a thumbnail of an image file, at most 320 pixels a side; small images are enlarged.

  Raises:
    BadRecord: the file cannot be decoded, see `images.decode`.
  """
  decoded = images.decode(file)
  size = f"{decoded.width} x {decoded.height}"
  decoded.thumbnail((_THUMBNAIL, _THUMBNAIL), PIL.Image.Resampling.LANCZOS)
  png = io.BytesIO()
  decoded.save(png, "PNG")
  width = decoded.width * max(1, _THUMBNAIL // 2 // max(decoded.size))
  return Thumbnail(size, width, base64.b64encode(png.getvalue()).decode())


def chart(name: str, steps: Sequence[int], values: Sequence[float | None]) -> markupsafe.Markup:
  """Returns a line chart of a metric over steps; empty if the metric has no values.

  Args:
    name: name of the metric, shown with its last value.
    steps: steps in ascending order.
    values: value at each step; None interrupts the line.
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
  tooltips = [
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
    tooltips=tooltips if len(points) <= _MAX_TOOLTIPS else (),
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
