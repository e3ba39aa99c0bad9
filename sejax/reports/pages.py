"""Parts of self-contained HTML pages, which load nothing and run no script.

Whatever is said of a run or a data set is escaped here. Colours follow the reader's light or dark
mode, widths the screen; whatever opens or scrolls is reached by keyboard.
"""

import base64
import html
import io
import itertools
import math
from collections.abc import Iterable, Sequence

import PIL.Image

from sejax.data import images

_THUMBNAIL = 320  # pixels of its longer side
_WIDTH, _HEIGHT = 320, 150  # of a chart, in its own units
_LEFT, _TOP, _RIGHT, _BOTTOM = 60, 8, 312, 128  # of its axes
_HOVERED = 200  # points at most that show their values under the pointer


def page(title: str, sections: Iterable[str]) -> str:
  """Returns the page; the sections are HTML, the title is text."""
  return _PAGE.format(title=html.escape(title), style=_STYLE, body="\n".join(sections))


def table(name: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
  """Returns a table of texts, which scrolls where it is wider than the screen.

  Args:
    name: of what it holds; it is read aloud, not shown.
    head: what its columns are; empty for none.
    rows: of each the first cell says what the row is.
  """

  def cell(text, tag):
    return f"<{tag}>{html.escape(str(text))}</{tag.partition(' ')[0]}>"

  top = "".join(cell(text, "th scope=col") for text in head)
  body = "".join(
    "<tr>" + cell(first, "th scope=row") + "".join(cell(text, "td") for text in rest) + "</tr>"
    for first, *rest in rows
  )
  return (
    f'<div class=scroll role=region tabindex=0 aria-label="{html.escape(name)}"><table>'
    f"{f'<thead><tr>{top}</tr></thead>' if top else ''}<tbody>{body}</tbody></table></div>"
  )


def picture(data: bytes) -> str:
  """Returns an encoded image file as a picture of at most 320 pixels a side; small ones enlarged.

  Raises:
    BadRecord: it cannot be decoded, see `images.decode`.
  """
  decoded = images.decode(data)
  size = f"{decoded.width} x {decoded.height}"
  decoded.thumbnail((_THUMBNAIL, _THUMBNAIL), PIL.Image.Resampling.LANCZOS)
  file = io.BytesIO()
  decoded.save(file, "PNG")
  encoded = base64.b64encode(file.getvalue()).decode()
  width = decoded.width * max(1, _THUMBNAIL // 2 // max(decoded.size))
  return (
    f'<img alt="picture of {size} pixels" title="{size}" width="{width}"'
    f' src="data:image/png;base64,{encoded}">'
  )


def chart(name: str, steps: Sequence[int], values: Sequence[float | None]) -> str:
  """Returns a curve over steps with its name and last value; empty where there is no value.

  Args:
    name: of what is drawn.
    steps: ascending.
    values: one for each step; None interrupts the curve.
  """
  known = [value for value in values if value is not None]
  if not known:
    return ""
  low, high = _range(min(known), max(known))
  across = (_RIGHT - _LEFT) / max(1, steps[-1] - steps[0])
  down = (_BOTTOM - _TOP) / (high - low)
  points = [
    None if value is None else (_LEFT + across * (step - steps[0]), _BOTTOM - down * (value - low))
    for step, value in zip(steps, values, strict=True)
  ]
  name = html.escape(name)
  said = f"{name} over steps {steps[0]} to {steps[-1]}, from {known[0]:.4g} to {known[-1]:.4g}"
  return (
    f"<figure><figcaption>{name} <b>{known[-1]:.4g}</b></figcaption>"
    f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{said}">'
    f"{_grid(low, high, down)}{_ends(steps[0], steps[-1])}"
    f'<path class=curve d="{_path(points)}"/><path class=dots d="{_path(points, 1)}"/>'
    f"{_hovers(points, steps, values)}</svg></figure>"
  )


def histogram(name: str, counts: Sequence[int], width: int, said: str) -> str:
  """Returns bars of how many there are of each size.

  Args:
    name: of the sizes.
    counts: of sizes from 0 on, each bar's.
    width: sizes that share a bar.
    said: text under the bars.
  """
  high = max(5, *counts)  # Grid lines are then whole numbers.
  across, down = (_RIGHT - _LEFT) / len(counts), (_BOTTOM - _TOP) / high
  bars = "".join(
    f'<rect x="{_LEFT + across * n + 0.5:.1f}" y="{_BOTTOM - down * count:.1f}"'
    f' width="{across - 1:.1f}" height="{down * count:.1f}">'
    f"<title>{n * width} to {(n + 1) * width - 1}: {count}</title></rect>"
    for n, count in enumerate(counts)
    if count
  )
  name, said = html.escape(name), html.escape(said)
  return (
    f"<figure><figcaption>{name}</figcaption>"
    f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}: {said}">'
    f"{_grid(0, high, down)}{_ends(0, len(counts) * width - 1)}{bars}</svg><p>{said}</p></figure>"
  )


def _range(low: float, high: float) -> tuple[float, float]:
  """Returns the ends of the axis; values that differ by rounding alone are one value."""
  if high - low <= 1e-6 * max(abs(low), abs(high)):
    margin = abs(low) / 2 or 1.0
    return low - margin, high + margin
  return low, high


def _grid(low: float, high: float, down: float) -> str:
  """Returns lines at two to six round values, which are 1, 2 or 5 times a power of ten apart."""
  power = 10.0 ** math.floor(math.log10((high - low) / 5))
  apart = next(m * power for m in (1, 2, 5, 10, 20) if m * power * 5 >= high - low)
  lines = []
  for n in range(math.ceil(low / apart), math.floor(high / apart) + 1):
    y = _BOTTOM - down * (n * apart - low)
    lines.append(
      f'<path class=grid d="M{_LEFT} {y:.1f}H{_RIGHT}"/>'
      f'<text x="{_LEFT - 5}" y="{y + 4:.1f}" class=end>{n * apart:,.6g}</text>'
    )
  return "".join(lines)


def _ends(first: int, last: int) -> str:
  """Returns the ends of the axis across."""
  y = _HEIGHT - 6
  end = f'<text x="{_RIGHT}" y="{y}" class=end>{last}</text>' if last != first else ""
  return f'<text x="{_LEFT}" y="{y}">{first}</text>{end}'


def _path(points: Sequence[tuple[float, float] | None], longest: int | None = None) -> str:
  """Returns the curve, or its pieces of so many points at most.

  A point without neighbours is a line of no length, which shows as a dot.
  """
  parts = []
  for known, run in itertools.groupby(points, key=lambda point: point is not None):
    corners = [f"{x:.1f} {y:.1f}" for x, y in run] if known else []
    if corners and (longest is None or len(corners) <= longest):
      parts.append("M" + "L".join(corners if len(corners) > 1 else corners * 2))
  return "".join(parts)


def _hovers(points, steps, values) -> str:
  if len(points) > _HOVERED:
    return ""
  return "".join(
    f'<circle cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="6"><title>step {step}: {value:.4g}'
    "</title></circle>"
    for point, step, value in zip(points, steps, values, strict=True)
    if point
  )


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{style}</style></head>
<body><main><h1>{title}</h1>
{body}
</main></body></html>
"""

_STYLE = """
:root { color-scheme: light dark; --line: #ccc; --mark: #2a6f97; --shade: #0003 }
@media (prefers-color-scheme: dark) { :root { --line: #555; --mark: #7cc0e8; --shade: #fff3 } }
body { font: 16px/1.4 system-ui, sans-serif; margin: 1rem auto; max-width: 75rem; padding: 0 1rem }
h1, h2, h3, summary { overflow-wrap: anywhere }
:focus-visible { outline: 2px solid var(--mark); outline-offset: 2px }
/* Shadows at the sides that have more; at an end the cover, which moves along, hides the shadow. */
.scroll {
  background:
    linear-gradient(to right, Canvas 50%, transparent) left / 2rem 100% no-repeat local,
    linear-gradient(to left, Canvas 50%, transparent) right / 2rem 100% no-repeat local,
    linear-gradient(to right, var(--shade), transparent) left / 1rem 100% no-repeat,
    linear-gradient(to left, var(--shade), transparent) right / 1rem 100% no-repeat;
  margin: .6rem 0; overflow-x: auto
}
table { border-collapse: collapse }
td, th {
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; overflow-wrap: normal;
  padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top
}
td:last-child, th:last-child { padding-right: 0 }
th[scope=row] { font-weight: normal }
@media (max-width: 30rem) { td, th { font-size: .8rem; padding-right: .4rem } }
.wide td:nth-child(2) { min-width: 3rem; overflow-wrap: anywhere }
.records, .charts { align-items: start; display: grid; gap: 1rem }
.records { grid-template-columns: repeat(auto-fill, minmax(min(100%, 16rem), 1fr)) }
.charts { grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)) }
.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)) }
article {
  border: 1px solid var(--line); border-radius: .4rem; min-width: 0; overflow-wrap: anywhere;
  padding: .6rem
}
article :is(h3, h4) { font-size: 1rem; margin: 0 0 .4rem }
article :is(p, h4) { margin: .8rem 0 .4rem }
img { max-width: 100% }
pre, .question { overflow-wrap: anywhere; white-space: pre-wrap }
pre { border-left: 3px solid var(--line); margin: .3rem 0; padding-left: .5rem }
figure { margin: 0; min-width: 0 }
figcaption { overflow-wrap: anywhere }
svg { display: block; overflow: visible; width: 100% }
svg text { fill: currentColor; font-size: 12px; opacity: .75 }
.end { text-anchor: end }
.grid { stroke: var(--line) }
.curve, .dots {
  fill: none; stroke: var(--mark); stroke-linecap: round; stroke-linejoin: round; stroke-width: 2
}
.dots { stroke-width: 6 }
rect { fill: var(--mark) }
circle { fill: transparent }
circle:hover { fill: var(--mark) }
"""
