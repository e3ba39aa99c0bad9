"""Reads fields of benchmark rows, whose names and value formats vary between publications."""

import ast
import base64
import binascii
import json
import string
from collections.abc import Mapping, Sequence
from typing import Any

from sejax.errors import quoted, shortened

Row = Mapping[str, Any]

LETTERS = string.ascii_uppercase
PLACE = ("file", "row")  # fields that `rows.read` adds to say where a row comes from


def first(row: Row, *names: str) -> Any:
  """Returns the value of the first of these fields that is neither null nor NaN.

  Raises:
    ValueError: the row has none of them.
  """
  for name in names:
    value = row.get(name)
    is_nan = value != value  # tables have NaN for empty cells
    if value is not None and not is_nan:
      return value
  present = shortened(", ".join(str(name) for name in row if name not in PLACE))
  raise ValueError(f"it has the fields {present}; it needs {' or '.join(names)}")


def text(row: Row, *names: str, default: str | None = None) -> str:
  """Returns the value of the first of these fields as a text, see `first`.

  Args:
    row: the row.
    *names: field names in order of preference.
    default: returned if the row has none of the fields; None raises instead.

  Raises:
    ValueError: the row has none of them, and there is no default.
  """
  try:
    return str(first(row, *names))
  except ValueError:
    if default is None:
      raise
    return default


def images(row: Row, *names: str) -> tuple[Any, ...]:
  """Returns the images in the first of these fields that has any, in forms `data.columns` takes.

  In the toolkit's tables a field holds one image in base64, or a list of them as Python source.
  """
  for name in names:
    value = row.get(name)
    if isinstance(value, list | tuple) and value:
      return tuple(value)
    if isinstance(value, str) and value.startswith("["):
      return tuple(map(_decoded, ast.literal_eval(value)))
    if isinstance(value, str) and value:
      return (_decoded(value),)
    if isinstance(value, bytes | Mapping) and value:
      return (value,)
  return ()


def listed(value: Any) -> list[str]:
  """Converts a sequence, or the text of a list in JSON or Python, to a list of texts.

  Raises:
    ValueError: a text is neither JSON nor Python.
  """
  if isinstance(value, str):
    value = parsed(value) if value.strip() else []
  if not isinstance(value, Sequence):
    value = list(value)
  return [str(item) for item in value]


def parsed(value: str) -> Any:
  """Parses a text as JSON or as a Python literal.

  Raises:
    ValueError: it is neither.
  """
  try:
    return json.loads(value)
  except ValueError:
    pass
  try:
    return ast.literal_eval(value)
  except (SyntaxError, TypeError, MemoryError, RecursionError) as error:
    raise ValueError(f"{quoted(value)} is neither JSON nor a Python literal: {error}") from None


def options(texts: Sequence[str]) -> dict[str, str]:
  """Labels options with the letters A, B, ..."""
  return dict(zip(LETTERS, texts, strict=False))


def options_of_columns(row: Row, letters: str = LETTERS[:8]) -> dict[str, str]:
  """Returns the options in the columns A, B, ... of a table; empty ones are left out."""
  found = {letter: text(row, letter, default="") for letter in letters}
  return {letter: option for letter, option in found.items() if option.strip()}


def _decoded(value: str) -> str | bytes:
  """Decodes an image in base64; returns a path, which is short or contains a dot, unchanged."""
  if len(value) < 256 or "." in value:
    return value
  try:
    return base64.b64decode(value, validate=True)
  except binascii.Error:
    return value
