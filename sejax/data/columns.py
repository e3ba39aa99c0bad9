"""Converts rows of published data sets, whose column names and value types vary, to records."""

import decimal
import math
import numbers
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sejax import storage
from sejax.data import image_files
from sejax.data.records import BadRecord, Record
from sejax.errors import quoted, shortened

# Column names in order of preference. The choice is made per row: concatenated data sets have the
# columns of all their parts, with nulls in those that a row does not use.
QUESTION = ("problem", "question")
IMAGES = ("images", "image")
ANSWER = ("answer", "solution")

# Columns with one image each, as in MMMU: image_1, Image1, img-01 or "image 1".
_NUMBERED = re.compile(r"(?:images?|imgs?)[ _-]?(\d+)", re.IGNORECASE)
# MMMU's placeholder for an image. Other spellings count only beside numbered columns: in MathVision
# `<image1>` refers to a part of the only image.
_PLACEHOLDER = re.compile(r"<image (\d+)>")
_ANY_PLACEHOLDER = re.compile(r"<\|?image[ _-]?(\d+)\|?>")
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_LARGEST_EXACT = 2**53  # from here on, float64 does not represent every integer


def record_columns(names: Iterable[str]) -> list[str]:
  """Returns the columns that `read_record` and `read_gold` may use."""
  known = (*QUESTION, *IMAGES, *ANSWER)
  return [name for name in names if name in known or _NUMBERED.fullmatch(name)]


def missing_columns(names: Iterable[str]) -> tuple[str, ...]:
  """Returns the accepted names of a required column that is missing; empty if none is."""
  names = set(names)
  if names.isdisjoint(QUESTION):
    return QUESTION
  if names.isdisjoint(IMAGES) and not any(map(_NUMBERED.fullmatch, names)):
    return IMAGES
  return ()


def read_record(record_id: str, row: Mapping[str, Any], folder: storage.Path) -> Record:
  """Converts a row to a record.

  Columns:

  - `problem` or `question`: a text that holds `<image>` once per image, or never.
  - `images` or `image`: one image or a list of images. An image is an encoded file, a text for
    `image_files.read`, or `{bytes, path}`, of which bytes are preferred. A null or an empty text
    instead of a list means that there is no image.
  - Or `image_1`, `image_2` and so on: one image each, null if the row has none. The text may then
    hold `<image 1>`, `<image 2>` and so on, each once and in order.

  Where both names of a pair exist, the first one that is not null is used.

  Args:
    record_id: used for the record and in error messages.
    row: values by column name; other columns are ignored.
    folder: base of relative image paths; no path may lead out of it.

  Raises:
    BadRecord: of kind `bad question`, `bad image value`, `missing image`, `path outside the
      folder`, or `wrong number of images`.
  """
  try:
    numbered = _numbered_images(row)
    images = numbered or _images(row)
    question = _with_plain_placeholders(
      _question(row), [number for number, _ in images], bool(numbered)
    )
    files = tuple(_image_bytes(value, folder) for _, value in images)
    _check_num_images(question, len(files))
  except BadRecord as error:
    raise BadRecord(error.kind, error.message, record_id) from None
  return Record(record_id, question, files)


def read_gold(record_id: str, row: Mapping[str, Any]) -> str | None:
  """Reads the gold answer of a row from the column `answer` or `solution`.

  The value is a text, a number, or a list or struct that holds one of these and nulls. If a text
  has `<answer>` tags, the content of the last pair is the answer.

  Args:
    record_id: used in error messages.
    row: values by column name; other columns are ignored.

  Returns:
    The answer without surrounding white space, or None if the row has none.

  Raises:
    BadRecord: of kind `bad answer`: the value has another form.
  """
  name = _first_filled(row, ANSWER)
  if name is None or _is_all_null(row[name]):
    return None
  try:
    text = _answer_text(_only_entry(row[name]))
  except ValueError as error:
    raise BadRecord("bad answer", f"its {name} {error}", record_id) from None
  tagged = _TAGGED.findall(text)
  return (tagged[-1] if tagged else text).strip() or None


def _question(row: Mapping[str, Any]) -> str:
  name = _first_filled(row, QUESTION)
  if name is None:
    listed = shortened(", ".join(sorted(map(str, row))) or "no columns")
    raise BadRecord(
      "bad question", f"it has {listed}, but no {' or '.join(QUESTION)}, which is its text"
    )
  question = row[name]
  if not isinstance(question, str):
    raise BadRecord("bad question", f"its {name} is {quoted(question)}, which is not text")
  try:
    question.encode()
  except UnicodeEncodeError:
    raise BadRecord("bad question", f"its {name} holds half a surrogate pair") from None
  return question


def _images(row: Mapping[str, Any]) -> list[tuple[int, Any]]:
  """Returns the values in `images` or `image`, numbered from 1."""
  name = _first_filled(row, IMAGES)
  return list(enumerate(() if name is None else _as_list(row[name]), start=1))


def _numbered_images(row: Mapping[str, Any]) -> list[tuple[int, Any]]:
  """Returns the values in `image_1` and so on, with their numbers and sorted by these.

  Raises:
    BadRecord: the images are ambiguous: `image` or `images` has some too, or numbers repeat.
  """
  names = {
    name: int(match[1])
    for name in row
    if (match := _NUMBERED.fullmatch(name)) and not _is_all_null(row[name])
  }
  if not names:
    return []
  plain = [name for name in IMAGES if not _is_all_null(row.get(name))]
  if plain or len(set(names.values())) < len(names):
    raise BadRecord(
      "wrong number of images",
      f"it has images in {shortened(', '.join([*plain, *names]))}; it must have them in images, in"
      " image, or in columns of different numbers",
    )
  return [
    (number, value)
    for name, number in sorted(names.items(), key=lambda item: item[1])
    for value in _as_list(row[name])
  ]


def _as_list(value: Any) -> list[Any]:
  if isinstance(value, np.ndarray):
    value = value.tolist()
  if isinstance(value, (list, tuple)):
    return list(value)
  return [] if _is_null(value) else [value]


def _with_plain_placeholders(question: str, image_numbers: list[int], is_numbered: bool) -> str:
  """Replaces numbered placeholders, such as `<image 1>`, by `<image>`.

  Args:
    question: the row's text.
    image_numbers: numbers of the row's images, in order.
    is_numbered: whether the images come from numbered columns.

  Raises:
    BadRecord: the placeholders are not the images' numbers in order, each once, so that `<image>`
      would stand for the wrong images.
  """
  pattern = _ANY_PLACEHOLDER if is_numbered else _PLACEHOLDER
  placeholders = list(pattern.finditer(question))
  if not placeholders:
    return question
  if "<image>" in question or [int(match[1]) for match in placeholders] != image_numbers:
    listed = shortened(", ".join(match[0] for match in placeholders))
    numbers = ", ".join(map(str, image_numbers)) or "none"
    raise BadRecord(
      "wrong number of images",
      f"its text says {listed}, and its images are {numbers}; it must name each once and in order,"
      " or none",
    )
  return pattern.sub("<image>", question)


def _image_bytes(value: Any, folder: storage.Path) -> bytes:
  if isinstance(value, Mapping) and not {"bytes", "path"}.isdisjoint(value):
    content, path = value.get("bytes"), value.get("path")
    value = path if _is_null(content) else content
  if _is_null(value) or value == {}:
    raise BadRecord("missing image", "an image is null or empty; it needs bytes or a path")
  if isinstance(value, bytes):
    return value
  if isinstance(value, str):
    return image_files.read(value, folder)
  raise BadRecord(
    "bad image value",
    f"an image is {quoted(value)}; it must be bytes, a path, base64 or {{bytes, path}}",
  )


def _check_num_images(question: str, num_images: int) -> None:
  num_placeholders = question.count("<image>")
  if num_placeholders and num_placeholders != num_images:
    raise BadRecord(
      "wrong number of images",
      f"its text says <image> {num_placeholders} times for {num_images} images",
    )
  if not (question.strip() or num_images):
    raise BadRecord("bad question", "it has neither a text nor an image")


def _only_entry(value: Any) -> Any:
  """Unwraps lists and structs that hold one value and nulls, at any depth.

  Raises:
    ValueError: one holds no value or several.
  """
  inner = value
  while (entries := _entries(inner)) is not None:
    filled = [entry for entry in entries if not _is_all_null(entry)]
    if len(filled) != 1:
      raise ValueError(f"is {quoted(value)}, with {len(filled)} entries; it must have one")
    (inner,) = filled
  return inner


def _answer_text(value: Any) -> str:
  """Converts a number or text to a text; 7.0 becomes 7, since tables store integers as floats."""
  if isinstance(value, str):
    return value
  if isinstance(value, (bool, np.bool_, decimal.Decimal, numbers.Integral)):
    return str(value)
  if isinstance(value, numbers.Real):
    whole = math.isfinite(value) and value == int(value) and abs(value) < _LARGEST_EXACT
    return str(int(value)) if whole else str(value)
  raise ValueError(f"is {quoted(value)}, which is neither a text nor a number")


def _first_filled(row: Mapping[str, Any], names: Iterable[str]) -> str | None:
  """Returns the first column that is not null; failing that, the first that exists."""
  present = [name for name in names if name in row]
  filled = [name for name in present if not _is_all_null(row[name])]
  # A list of nulls is preferred to null: it says that there should be an image.
  lists = [name for name in present if _entries(row[name])]
  return next(iter(filled or lists or present), None)


def _is_all_null(value: Any) -> bool:
  """Whether a value is null or consists of nulls, at any depth of lists and structs."""
  pending = [value]
  while pending:
    value = pending.pop()
    entries = _entries(value)
    if entries is not None:
      pending += entries
    elif not _is_null(value):
      return False
  return True


def _is_null(value: Any) -> bool:
  """Whether a scalar is null or one of the values that files use in its place."""
  if isinstance(value, str):
    return not value.strip()
  if isinstance(value, (float, np.floating)):
    return math.isnan(value)  # the null of pandas
  return value is None or value == b""


def _entries(value: Any) -> list[Any] | None:
  """Returns the entries of a list or struct, or None for any other value."""
  if isinstance(value, Mapping):
    return list(value.values())
  if isinstance(value, np.ndarray):
    return value.ravel().tolist()
  return list(value) if isinstance(value, (list, tuple)) else None
