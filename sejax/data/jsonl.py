"""Data sets in a JSON lines file, with image files beside it."""

import json
from typing import Any

import numpy as np

from sejax import storage
from sejax.data import columns
from sejax.data.records import BadRecord, Record
from sejax.errors import shortened


class JsonlSource:
  """Source of the records in a JSON lines file, of which only the line offsets stay in memory.

  Each line is an object with the fields that `columns.read_record` and `columns.read_gold` take. A
  field `id` is optional; the default id is `<file stem>/<line number>`. Blank lines are skipped.
  """

  def __init__(self, path: storage.Path, *, name: str = "", folder: storage.Path | None = None):
    """Scans the file once for its lines.

    Args:
      path: the file.
      name: name of the data set; by default the file's stem.
      folder: base of relative image paths; by default the file's folder.

    Raises:
      ValueError: there is no such file.
    """
    if not path.is_file():
      raise ValueError(
        f"{shortened(path)} is not a file; config.data.path must name one of JSON lines for"
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
    """Returns the gold answer of a record, or None if it has none; see `columns.read_gold`."""
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
      message = f"the line is not JSON: {shortened(error)}"
      raise BadRecord("unreadable line", message, self._line_id(index)) from None
    if not isinstance(row, dict):
      raise BadRecord("unreadable line", "the line is not an object", self._line_id(index))
    return row


def _find_lines(path: storage.Path) -> tuple[np.ndarray, np.ndarray]:
  """Returns the byte offset and the number (from 1) of each line that is not blank."""
  offsets, numbers, offset = [], [], 0
  with path.open("rb") as file:
    for number, line in enumerate(file, start=1):
      if line.strip():
        offsets.append(offset)
        numbers.append(number)
      offset += len(line)
  return np.array(offsets, np.int64), np.array(numbers, np.int64)
