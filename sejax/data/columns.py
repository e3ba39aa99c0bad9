"""Rows of published sets to records: what their columns are called and what may stand in them."""

import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sejax.data.records import BadRecord, Record

# Names in the order in which they are looked for.
QUESTION = ("problem", "question")
IMAGES = ("images", "image")
ANSWER = ("answer", "solution")

_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


def pick(names: Iterable[str], wanted: tuple[str, ...]) -> str | None:
  """Returns the first wanted name that is there, or None."""
  names = set(names)
  return next((name for name in wanted if name in names), None)


def read_record(record_id: str, row: Mapping[str, Any], folder: pathlib.Path) -> Record:
  """Makes a record of a row.

  Args:
    record_id: the record's id.
    row: `problem` or `question`, a text that says `<image>` once for each image or nowhere, and
      `images` or `image`: one or a list of encoded files, paths, `{bytes, path}` (bytes go first)
      or, alone, null or an empty path for none. Of both names the first counts.
    folder: what paths are relative to; they may not lead out of it.

  Raises:
    BadRecord: of kind `bad question`, `bad image value`, `missing image`, `path outside the
      folder`, or `wrong number of images`; the message names the record.
  """
  try:
    question = _question(row)
    images = tuple(_image_bytes(value, folder) for value in _image_values(row))
    _check_number(question, len(images))
  except BadRecord as error:
    raise BadRecord(error.kind, f"record {record_id}: {error}") from None
  return Record(record_id, question, images)


def read_gold(row: Mapping[str, Any]) -> str | None:
  """Returns a row's answer.

  Args:
    row: `answer` or `solution`, of both the first. Of a text with `<answer>` tags the content of
      the last pair is taken.

  Returns:
    The answer without surrounding blanks; None where the row has none.
  """
  name = pick(row, ANSWER)
  value = None if name is None else row[name]
  if value is None:
    return None
  tagged = _TAGGED.findall(str(value))
  return (tagged[-1] if tagged else str(value)).strip() or None


def _question(row: Mapping[str, Any]) -> str:
  name = pick(row, QUESTION)
  if name is None:
    raise BadRecord(
      "bad question", f"it has {_listed(row)}, but no {' or '.join(QUESTION)}, which is its text"
    )
  question = row[name]
  if not isinstance(question, str):
    raise BadRecord("bad question", f"its {name} is {_shown(question)}, which is no text")
  try:
    question.encode()
  except UnicodeEncodeError:
    raise BadRecord("bad question", f"its {name} holds half a surrogate pair") from None
  return question


def _image_values(row: Mapping[str, Any]) -> list[Any]:
  """Returns the row's images, of whatever kind, as a list."""
  name = pick(row, IMAGES)
  value = None if name is None else row[name]
  if value is None or value == "":
    return []
  return list(value) if isinstance(value, (list, tuple)) else [value]


def _image_bytes(value: Any, folder: pathlib.Path) -> bytes:
  if isinstance(value, Mapping) and not {"bytes", "path"}.isdisjoint(value):
    content, path = value.get("bytes"), value.get("path")
    value = path if content is None else content
  if isinstance(value, bytes) and value:
    return value
  if isinstance(value, str) and value:
    return _read_inside(folder, value)
  if not value:
    raise BadRecord("missing image", "an image is null or empty; it needs bytes or a path")
  raise BadRecord(
    "bad image value", f"an image is {_shown(value)}; it must be bytes, a path or {{bytes, path}}"
  )


def _read_inside(folder: pathlib.Path, path: str) -> bytes:
  """Reads a file of the folder; symbolic links are followed before the place is checked."""
  try:
    root = folder.resolve()
    target = (root / path).resolve()
    if pathlib.PurePath(path).is_absolute() or not target.is_relative_to(root):
      raise BadRecord(
        "path outside the folder", f"the image path {path!r} leads out of {folder}; it must not"
      )
    if not target.is_file():  # a pipe or a device would block
      raise BadRecord("missing image", f"there is no file {path!r} in {folder}")
    return target.read_bytes()
  except BadRecord:
    raise
  except (OSError, ValueError, RuntimeError) as error:  # a loop of links, a NUL, no permission
    raise BadRecord("missing image", f"the image path {path!r} cannot be read: {error}") from None


def _check_number(question: str, num_images: int) -> None:
  places = question.count("<image>")
  if places and places != num_images:
    raise BadRecord(
      "wrong number of images", f"its text says <image> {places} times for {num_images} images"
    )
  if not (question.strip() or num_images):
    raise BadRecord("bad question", "it has neither a text nor an image")


def _listed(names: Iterable[str]) -> str:
  return ", ".join(sorted(map(str, names))) or "no columns"


def _shown(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 60 else text[:57] + "..."
