"""A source of small problems, some of them bad, and what prepares them; importable by workers."""

import dataclasses
import io
import pathlib

import numpy as np
import PIL.Image

from sejax.data.prepare import Preparer
from sejax.data.records import BadRecord, Record
from sejax.text import prompts


def random_png(width: int, height: int, seed: int = 0) -> bytes:
  """Returns a PNG of random pixels."""
  pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
  file = io.BytesIO()
  PIL.Image.fromarray(pixels).save(file, "PNG")
  return file.getvalue()


@dataclasses.dataclass(frozen=True)
class Problems:
  """Problems with 0, 1 or 2 images in turn; the index says which are bad."""

  size: int
  bad: frozenset[int] = frozenset()
  name: str = "problems"

  def __len__(self) -> int:
    return self.size

  def __getitem__(self, index: int) -> Record:
    if index in self.bad:
      raise BadRecord("broken", "it is broken", f"p/{index}")
    image_files = tuple(random_png(28 + 28 * (index % 3), 56, n) for n in range(index % 3))
    return Record(f"p/{index}", f"What is {index} + 1?", image_files)

  def gold(self, index: int) -> str:
    return str(index + 1)


def preparer(source: Problems, directory: pathlib.Path, **changes) -> Preparer:
  """Returns a preparer with generous limits and short prompts."""
  options = {
    "source": source,
    "directory": str(directory),
    "min_pixels": None,
    "max_pixels": None,
    "prompt_limit": 200,
    "judge_limit": 400,
    "patch_limit": 64,
    "instruction": "Box it.",
    "judge_system": prompts.JUDGE_SYSTEM_SHORT,
  }
  return Preparer(**options | changes)
