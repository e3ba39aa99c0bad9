"""Where real problems are, for tests that need them."""

import os
import pathlib

import pytest

DATA = os.environ.get("SEJAX_DATA")
needed = pytest.mark.skipif(
  DATA is None, reason="SEJAX_DATA, the folder of real problems, is not set"
)


def image_files() -> list[pathlib.Path]:
  """Returns every image file."""
  files = sorted(pathlib.Path(DATA).rglob("*"))
  return [path for path in files if path.suffix in (".png", ".jpg", ".jpeg")]
