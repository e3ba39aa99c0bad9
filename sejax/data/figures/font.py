"""The pixel font: characters of five rows and three columns, the degree sign of two."""

import functools

import numpy as np
from jaxtyping import Bool

# Rows of a glyph from the top, a line for each character.
_ROWS = {
  "0": "### #.# #.# #.# ###",
  "1": ".#. ##. .#. .#. ###",
  "2": "### ..# ### #.. ###",
  "3": "### ..# .## ..# ###",
  "4": "#.# #.# ### ..# ..#",
  "5": "### #.. ### ..# ###",
  "6": "### #.. ### #.# ###",
  "7": "### ..# ..# .#. .#.",
  "8": "### #.# ### #.# ###",
  "9": "### #.# ### ..# ###",
  "A": ".#. #.# ### #.# #.#",
  "B": "##. #.# ##. #.# ##.",
  "C": ".## #.. #.. #.. .##",
  "D": "##. #.# #.# #.# ##.",
  "E": "### #.. ##. #.. ###",
  "x": "... #.# .#. #.# ...",
  "?": "### ..# .## ... .#.",
  "+": "... .#. ### .#. ...",
  "-": "... ... ### ... ...",
  "=": "... ### ... ### ...",
  "°": "## ## .. .. ..",
}


@functools.cache
def glyph(character: str) -> Bool[np.ndarray, "5 width"]:
  """Returns a character's pixels.

  Raises:
    ValueError: the font does not have it.
  """
  if character not in _ROWS:
    raise ValueError(f"the font has no {character!r}, only {''.join(_ROWS)}")
  return np.array([[pixel == "#" for pixel in row] for row in _ROWS[character].split()])
