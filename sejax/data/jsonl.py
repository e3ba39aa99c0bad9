"""Sets of one JSON object per line, with image files beside them."""

import json
import pathlib
from typing import Any

import numpy as np

from sejax.data import columns
from sejax.data.records import BadRecord, Record
from sejax.errors import shortened


class JsonlSource:
  """Records of a JSON lines file; keeps only where its lines begin.

  A line holds the fields of `columns.read_record` and `read_gold`, and perhaps `id`, without which
  a record's id is `<file's stem>/<line number>`. Blank lines are no records.
  """

  def __init__(self, path: pathlib.Path, *, name: str = "", folder: pathlib.Path | None = None):
    """Reads through the file once, to find its lines.

    Args:
      path: the file.
      name: the set's name; by default the file's stem.
      folder: what image paths are relative to; by default the file's own folder.

    Raises:
      ValueError: there is no such file.
    """
    if not path.is_file():
      raise ValueError(
        f"{shortened(path)} is no file; config.data.path must name one of JSON lines for"
        " source='jsonl'"
      )
    self.name = name or path.stem
    self._path, self._folder = path, folder or path.parent
    self._offsets, self._lines = _find_lines(path)

  def __len__(self) -> int:
    return len(self._offsets)

  def __repr__(self) -> str:
    return f"JsonlSource(name={self.name!r}, records={len(self)})"

  def __getitem__(self, index: int) -> Record:
    row = self._row(index)
    return columns.read_record(self._id(index, row), row, self._folder)

  def gold(self, index: int) -> str | None:
    """Returns the answer of a record, see `columns.read_gold`; None where there is none."""
    row = self._row(index)
    return columns.read_gold(self._id(index, row), row)

  def _id(self, index: int, row: dict[str, Any]) -> str:
    given = row.get("id")
    return self._line_id(index) if given is None else str(given)

  def _line_id(self, index: int) -> str:
    return f"{self._path.stem}/{self._lines[index]}"

  def _row(self, index: int) -> dict[str, Any]:
    if not 0 <= index < len(self):
      raise IndexError(f"{self!r} has no record {index}")
    with self._path.open("rb") as file:
      file.seek(self._offsets[index])
      line = file.readline()
    try:
      row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
      raise BadRecord(
        "unreadable line",
        f"record {shortened(self._line_id(index))}: the line is no JSON: {shortened(error)}",
      ) from None
    if not isinstance(row, dict):
      raise BadRecord(
        "unreadable line", f"record {shortened(self._line_id(index))}: the line is no object"
      )
    return row


def _find_lines(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
  """Returns offset and number, from 1, of each line that is not blank."""
  offsets, numbers, offset = [], [], 0
  with path.open("rb") as file:
    for number, line in enumerate(file, start=1):
      if line.strip():
        offsets.append(offset)
        numbers.append(number)
      offset += len(line)
  return np.array(offsets, np.int64), np.array(numbers, np.int64)
