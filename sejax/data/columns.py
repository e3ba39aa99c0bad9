"""Rows of published sets to records: what their columns are called and what may stand in them."""

import decimal
import math
import numbers
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sejax.data import image_files
from sejax.data.records import BadRecord, Record
from sejax.errors import quoted, shortened

# Names in the order in which they are looked for. Each row has its own first: sets that were joined
# have a column of every name, and nulls in those that a row does not use.
QUESTION = ("problem", "question")
IMAGES = ("images", "image")
ANSWER = ("answer", "solution")

# image_1, Image1, img-01 or "image 1": columns of an image each, as MMMU's.
_NUMBERED = re.compile(r"(?:images?|imgs?)[ _-]?(\d+)", re.IGNORECASE)
# Where MMMU puts an image. Other spellings are a place only beside numbered columns: in MathVision
# `<image1>` is a part of the one picture.
_PLACE = re.compile(r"<image (\d+)>")
_ANY_PLACE = re.compile(r"<\|?image[ _-]?(\d+)\|?>")
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_LARGEST_EXACT = 2**53  # whole floats from here on do not say which number was meant


def wanted(names: Iterable[str]) -> list[str]:
  """Returns the columns that a record may be made of."""
  known = (*QUESTION, *IMAGES, *ANSWER)
  return [name for name in names if name in known or _NUMBERED.fullmatch(name)]


def missing(names: Iterable[str]) -> tuple[str, ...]:
  """Returns what no record can be made without, as the names of which one is needed."""
  names = set(names)
  if names.isdisjoint(QUESTION):
    return QUESTION
  if names.isdisjoint(IMAGES) and not any(map(_NUMBERED.fullmatch, names)):
    return IMAGES
  return ()


def read_record(record_id: str, row: Mapping[str, Any], folder: pathlib.Path) -> Record:
  """Makes a record of a row.

  Args:
    record_id: the record's id.
    row: `problem` or `question`, a text that says `<image>` once for each image or nowhere, and
      `images` or `image`: one or a list of encoded files, texts for `image_files.read`, `{bytes,
      path}` (bytes go first) or, alone, null or an empty text for none. Of both names the first
      that holds anything counts. Or `image_1`, `image_2` and so on, an image each, null where the
      row has none; the text may then say `<image 1>`, `<image 2>` and so on, each once and in
      order.
    folder: what paths are relative to; they may not lead out of it.

  Raises:
    BadRecord: of kind `bad question`, `bad image value`, `missing image`, `path outside the
      folder`, or `wrong number of images`; the message names the record.
  """
  try:
    numbered = _numbered_images(row)
    images = numbered or _images(row)
    question = _with_places(_question(row), [number for number, _ in images], bool(numbered))
    files = tuple(_image_bytes(value, folder) for _, value in images)
    _check_number(question, len(files))
  except BadRecord as error:
    raise BadRecord(error.kind, f"record {shortened(record_id)}: {error}") from None
  return Record(record_id, question, files)


def read_gold(record_id: str, row: Mapping[str, Any]) -> str | None:
  """Returns a row's answer.

  Args:
    record_id: the record's id.
    row: `answer` or `solution`, the first that holds anything: a text, of which the content of the
      last pair of `<answer>` tags is taken if there is one; a number; or a list or struct whose
      only entry that is not null is one of these.

  Returns:
    The answer without surrounding blanks; None where the row has none.

  Raises:
    BadRecord: of kind `bad answer`: it is none of these; the message names record and column.
  """
  name = _first(row, ANSWER)
  if name is None or _is_blank(row[name]):
    return None
  try:
    text = _text_of(_only_entry(row[name]))
  except ValueError as error:
    said = f"record {shortened(record_id)}: its {name} {error}"
    raise BadRecord("bad answer", said) from None
  tagged = _TAGGED.findall(text)
  return (tagged[-1] if tagged else text).strip() or None


def _question(row: Mapping[str, Any]) -> str:
  name = _first(row, QUESTION)
  if name is None:
    listed = shortened(", ".join(sorted(map(str, row))) or "no columns")
    raise BadRecord(
      "bad question", f"it has {listed}, but no {' or '.join(QUESTION)}, which is its text"
    )
  question = row[name]
  if not isinstance(question, str):
    raise BadRecord("bad question", f"its {name} is {quoted(question)}, which is no text")
  try:
    question.encode()
  except UnicodeEncodeError:
    raise BadRecord("bad question", f"its {name} holds half a surrogate pair") from None
  return question


def _images(row: Mapping[str, Any]) -> list[tuple[int, Any]]:
  """Returns the images of `images` or `image`, of whatever kind, with their numbers from 1."""
  name = _first(row, IMAGES)
  return list(enumerate(() if name is None else _listed(row[name]), start=1))


def _numbered_images(row: Mapping[str, Any]) -> list[tuple[int, Any]]:
  """Returns the images of `image_1` and so on with their numbers, in the numbers' order.

  Raises:
    BadRecord: it is not clear which are the row's images, and in which order.
  """
  names = {
    name: int(match[1])
    for name in row
    if (match := _NUMBERED.fullmatch(name)) and not _is_blank(row[name])
  }
  if not names:
    return []
  plain = [name for name in IMAGES if not _is_blank(row.get(name))]
  if plain or len(set(names.values())) < len(names):
    raise BadRecord(
      "wrong number of images",
      f"it has images in {shortened(', '.join([*plain, *names]))}; it must have them in images, in"
      " image, or in columns of different numbers",
    )
  return [
    (number, value)
    for name, number in sorted(names.items(), key=lambda item: item[1])
    for value in _listed(row[name])
  ]


def _listed(value: Any) -> list[Any]:
  if isinstance(value, np.ndarray):
    value = value.tolist()
  if isinstance(value, (list, tuple)):
    return list(value)
  return [] if _is_empty(value) else [value]


def _with_places(question: str, image_numbers: list[int], is_numbered: bool) -> str:
  """Returns the question with `<image>` for each `<image 1>`.

  Raises:
    BadRecord: it names the images otherwise than each once and in order, so `<image>` would say
      something else.
  """
  pattern = _ANY_PLACE if is_numbered else _PLACE
  places = [match[0] for match in pattern.finditer(question)]
  if not places:
    return question
  if "<image>" in question or [int(pattern.match(p)[1]) for p in places] != image_numbers:
    there = ", ".join(map(str, image_numbers)) or "none"
    raise BadRecord(
      "wrong number of images",
      f"its text says {shortened(', '.join(places))}, and its images are {there}; it must name"
      " each once and in order, or none",
    )
  return pattern.sub("<image>", question)


def _image_bytes(value: Any, folder: pathlib.Path) -> bytes:
  if isinstance(value, Mapping) and not {"bytes", "path"}.isdisjoint(value):
    content, path = value.get("bytes"), value.get("path")
    value = path if _is_empty(content) else content
  if _is_empty(value) or value == {}:
    raise BadRecord("missing image", "an image is null or empty; it needs bytes or a path")
  if isinstance(value, bytes):
    return value
  if isinstance(value, str):
    return image_files.read(value, folder)
  raise BadRecord(
    "bad image value",
    f"an image is {quoted(value)}; it must be bytes, a path, base64 or {{bytes, path}}",
  )


def _check_number(question: str, num_images: int) -> None:
  places = question.count("<image>")
  if places and places != num_images:
    raise BadRecord(
      "wrong number of images", f"its text says <image> {places} times for {num_images} images"
    )
  if not (question.strip() or num_images):
    raise BadRecord("bad question", "it has neither a text nor an image")


def _only_entry(value: Any) -> Any:
  """Returns what a list or struct holds beside nulls, or a value that is neither.

  Raises:
    ValueError: it holds more.
  """
  inner = value
  while (entries := _entries(inner)) is not None:
    filled = [entry for entry in entries if not _is_blank(entry)]
    if len(filled) != 1:
      raise ValueError(f"is {quoted(value)}, with {len(filled)} entries; it must have one")
    (inner,) = filled
  return inner


def _text_of(value: Any) -> str:
  """Returns a text or number as it would be written by hand: 7.0, as tables have 7, becomes 7."""
  if isinstance(value, str):
    return value
  if isinstance(value, (bool, np.bool_, decimal.Decimal, numbers.Integral)):
    return str(value)
  if isinstance(value, numbers.Real):
    whole = math.isfinite(value) and value == int(value) and abs(value) < _LARGEST_EXACT
    return str(int(value)) if whole else str(value)
  raise ValueError(f"is {quoted(value)}, which is neither a text nor a number")


def _first(row: Mapping[str, Any], names: Iterable[str]) -> str | None:
  """Returns the first name under which the row holds anything; failing that, one it has at all."""
  there = [name for name in names if name in row]
  filled = [name for name in there if not _is_blank(row[name])]
  # A list of nulls says more than null does: there should be an image.
  listed = [name for name in there if _entries(row[name])]
  return next(iter(filled or listed or there), None)


def _is_blank(value: Any) -> bool:
  """Whether a value holds nothing, however deep its lists and structs are."""
  waiting = [value]
  while waiting:
    value = waiting.pop()
    entries = _entries(value)
    if entries is not None:
      waiting += entries
    elif not _is_empty(value):
      return False
  return True


def _is_empty(value: Any) -> bool:
  if isinstance(value, str):
    return not value.strip()
  if isinstance(value, (float, np.floating)):
    return math.isnan(value)  # what tables have for null
  return value is None or value == b""


def _entries(value: Any) -> list[Any] | None:
  """Returns the entries of a list or struct; None for what is neither."""
  if isinstance(value, Mapping):
    return list(value.values())
  if isinstance(value, np.ndarray):
    return value.ravel().tolist()
  return list(value) if isinstance(value, (list, tuple)) else None
