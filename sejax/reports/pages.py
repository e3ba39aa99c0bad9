"""Renders the HTML pages, which are self-contained: they load no other file and run no script.

The jinja2 templates are in `templates/`. Every value is escaped, unless a template rendered it
itself. Pages follow the reader's light or dark mode and the width of the screen, and all that opens
or scrolls can be reached by keyboard.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jinja2
import markupsafe
import PIL.Image

from sejax import storage
from sejax.data import images

_THUMBNAIL = 320  # pixels of a thumbnail's longer side

_TEMPLATES = jinja2.Environment(
  loader=jinja2.PackageLoader("sejax.reports"),
  autoescape=True,
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
  lstrip_blocks=True,
)


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


def percent(share: float, error: float | None, sign: str = "") -> str:
  """Returns a share in percent with its standard error, on one line.

  Args:
    share: a fraction.
    error: None where it is not known.
    sign: "+" also shows that of a positive share.
  """
  text = f"{100 * share:{sign}.1f}"
  return text if error is None else f"{text} ± {100 * error:.1f}".replace(" ", "\N{NBSP}")
