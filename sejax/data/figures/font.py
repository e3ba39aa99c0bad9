"""A pixel font: characters are five rows by three columns, the degree sign has two columns."""

import functools

import numpy as np
from jaxtyping import Bool

# The rows of each glyph from top to bottom.
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
  """Returns the pixels of a character.

  Raises:
    ValueError: the font lacks the character.
  """
  if character not in _ROWS:
    raise ValueError(f"the font has no {character!r}, only {''.join(_ROWS)}")
  return np.array([[pixel == "#" for pixel in row] for row in _ROWS[character].split()])
