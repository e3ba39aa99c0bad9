"""A canvas that draws in integer arithmetic, so that images are identical on any machine.

Everything is drawn on a grid of 224 x 224 points. A smaller image averages over blocks of points,
so every size shows the same drawing. Letters consist of squares of 4 x 4 points, aligned to
multiples of 4: each is one pixel of the smallest image, in which text therefore stays sharp.
"""

import functools
import math
import struct
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8

from sejax.data.figures import font

SIZES = (56, 112, 224)
POINTS = 224
UNIT = POINTS // SIZES[0]

PAPER, INK, PALE, RED, BLUE, GREEN, ORANGE, PURPLE = range(8)
COLOURS = {"red": RED, "blue": BLUE, "green": GREEN, "orange": ORANGE, "purple": PURPLE}
TINTS = ((250, 244, 228), (240, 246, 232), (236, 244, 250), (250, 238, 238))

_COLOURS = (
  *((36, 36, 48), (190, 188, 184), (214, 40, 40), (36, 84, 214)),
  *((20, 146, 60), (240, 146, 16), (140, 56, 176)),
)
_SUB = 16  # polygons are computed in sixteenths of a point
_FIELD = 20  # bits per channel in packed colours, enough to sum over all points of a block


class Board:
  """A canvas; x runs to the right and y down, in points from 0 to 224.

  Args:
    tint: background colour, an index into `TINTS`.
  """

  def __init__(self, tint: int = 0):
    self._inks = _inks(tint)
    self.grid = np.full((POINTS, POINTS), self._inks[PAPER])

  def rect(self, left: int, top: int, right: int, bottom: int, ink: int) -> None:
    """Fills a rectangle; right and bottom are excluded."""
    self.grid[top:bottom, left:right] = self._inks[ink]

  def frame(self, left: int, top: int, right: int, bottom: int, ink: int, width: int = 4) -> None:
    """Draws a rectangle's outline, inside its bounds."""
    self.rect(left, top, right, top + width, ink)
    self.rect(left, bottom - width, right, bottom, ink)
    self.rect(left, top, left + width, bottom, ink)
    self.rect(right - width, top, right, bottom, ink)

  def disc(self, x: int, y: int, radius: int, ink: int) -> None:
    """Fills a disc around a point."""
    window = self.grid[y - radius : y + radius, x - radius : x + radius]
    window[_disc(radius)] = self._inks[ink]

  def ring(self, x: int, y: int, radius: int, ink: int, width: int = 4) -> None:
    """Draws a circle; the line lies inside the radius."""
    window = self.grid[y - radius : y + radius, x - radius : x + radius]
    window[_ring(radius, width)] = self._inks[ink]

  def polygon(self, corners: Sequence[tuple[int, int]], ink: int) -> None:
    """Fills a convex polygon: all points whose centre is inside."""
    self._fill([(x * _SUB, y * _SUB) for x, y in corners], ink)

  def line(self, x0: int, y0: int, x1: int, y1: int, ink: int, width: int = 4) -> None:
    """Draws a straight line with square ends."""
    dx, dy = x1 - x0, y1 - y0
    length = math.isqrt((dx * dx + dy * dy) * _SUB * _SUB) or 1  # in sixteenths
    across_x = -dy * width * _SUB * _SUB // (2 * length)
    across_y = dx * width * _SUB * _SUB // (2 * length)
    ends = ((x0, y0, 1), (x0, y0, -1), (x1, y1, -1), (x1, y1, 1))
    self._fill([(x * _SUB + s * across_x, y * _SUB + s * across_y) for x, y, s in ends], ink)

  def outline(self, corners: Sequence[tuple[int, int]], ink: int, width: int = 4) -> None:
    """Draws the sides of a closed polygon with rounded corners."""
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
      self.line(x0, y0, x1, y1, ink, width)
      self.disc(x0, y0, width // 2, ink)

  def text(self, x: int, y: int, text: str, ink: int = INK) -> None:
    """Writes a line of text centred at a point, rounded to the grid on which letters are sharp.

    Raises:
      ValueError: the text does not fit the board.
    """
    mask = _stamp(text)
    height, width = mask.shape
    left = (x - width // 2 + UNIT // 2) // UNIT * UNIT
    top = (y - height // 2 + UNIT // 2) // UNIT * UNIT
    if min(left, top) < 0 or left + width > POINTS or top + height > POINTS:
      raise ValueError(f"the text {text!r} at ({x}, {y}) does not fit the board")
    self.grid[top : top + height, left : left + width][mask] = self._inks[ink]

  def image(self, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Renders the canvas as an RGB image; `size`, one of `SIZES`, is its side in pixels."""
    step = POINTS // size
    rows = sum(self.grid[start::step] for start in range(step))
    sums = sum(rows[:, start::step] for start in range(step))
    mask = (1 << _FIELD) - 1
    channels = [(sums >> (shift * _FIELD)) & mask for shift in (2, 1, 0)]
    points = step * step
    return ((np.stack(channels, axis=-1) + points // 2) // points).astype(np.uint8)

  def _fill(self, corners: Sequence[tuple[int, int]], ink: int) -> None:
    ys = [y for _, y in corners]
    half = _SUB // 2
    top, bottom = -((half - min(ys)) // _SUB), -((half - max(ys)) // _SUB)
    top, bottom = max(top, 0), min(bottom, POINTS)
    if top >= bottom:
      return
    lefts = np.full(bottom - top, POINTS * _SUB)
    rights = np.zeros(bottom - top, np.int64)
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
      if y0 == y1:
        continue
      if y0 > y1:
        x0, y0, x1, y1 = x1, y1, x0, y0
      first, last = max(-((half - y0) // _SUB), top), min(-((half - y1) // _SUB), bottom)
      centres = np.arange(first, last) * _SUB + half
      crossings = x0 + (centres - y0) * (x1 - x0) // (y1 - y0)
      rows = slice(first - top, last - top)
      lefts[rows] = np.minimum(lefts[rows], crossings)
      rights[rows] = np.maximum(rights[rows], crossings)
    colour = self._inks[ink]
    # The first point whose centre is not left of a crossing.
    firsts, ends = ((-((half - edge) // _SUB)).tolist() for edge in (lefts, rights))
    for row, first, end in zip(range(top, bottom), firsts, ends, strict=True):
      self.grid[row, max(first, 0) : max(end, 0)] = colour


def bmp(image: UInt8[np.ndarray, "height width 3"]) -> bytes:
  """Encodes an RGB image as an uncompressed BMP file (24 bits, bottom row first)."""
  height, width, _ = image.shape
  rows = image[::-1, :, ::-1].reshape(height, width * 3)
  data = np.pad(rows, ((0, 0), (0, -width * 3 % 4))).tobytes()
  header = struct.pack("<2sIHHI", b"BM", 54 + len(data), 0, 0, 54)
  about = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(data), 2835, 2835, 0, 0)
  return header + about + data


@functools.cache
def _inks(tint: int) -> np.ndarray:
  """Returns the palette as integers that pack three channels, so that one sum adds all of them."""
  colours = (TINTS[tint], *_COLOURS)
  return np.array([r << 2 * _FIELD | g << _FIELD | b for r, g, b in colours], np.int64)


@functools.cache
def _disc(radius: int) -> Bool[np.ndarray, "side side"]:
  centres = 2 * np.arange(-radius, radius) + 1
  return centres[:, None] ** 2 + centres**2 <= (2 * radius) ** 2


@functools.cache
def _ring(radius: int, width: int) -> Bool[np.ndarray, "side side"]:
  return _disc(radius) & ~np.pad(_disc(radius - width), width)


@functools.lru_cache(maxsize=1024)
def _stamp(text: str) -> Bool[np.ndarray, "height width"]:
  glyphs = [np.pad(font.glyph(character), ((0, 0), (0, 1))) for character in text]
  mask = np.concatenate(glyphs, axis=1)[:, :-1]
  return mask.repeat(UNIT, axis=0).repeat(UNIT, axis=1)
