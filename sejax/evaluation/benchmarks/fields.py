"""Reading fields of rows whose form varies: names by which they go, pictures, options."""

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
PLACE = ("file", "row")  # fields that say where a row was read


def first(row: Row, *names: str) -> Any:
  """Returns the first named field that is there and is neither null nor NaN.

  Raises:
    ValueError: there is none.
  """
  for name in names:
    value = row.get(name)
    if value is not None and value == value:  # NaN, which tables have for empty cells, is not
      return value
  has = shortened(", ".join(str(name) for name in row if name not in PLACE))
  raise ValueError(f"it has the fields {has}; it needs {' or '.join(names)}")


def text(row: Row, *names: str, default: str | None = None) -> str:
  """Returns the first named field that is there as a text; `default`, if given, where none is.

  Raises:
    ValueError: there is none, and no default.
  """
  try:
    return str(first(row, *names))
  except ValueError:
    if default is None:
      raise
    return default


def images(row: Row, *names: str) -> tuple[Any, ...]:
  """Returns a row's pictures for `sejax.data.columns`, the first field with any; perhaps none.

  A toolkit's table holds pictures in base64, one or a list as text.
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
  """Returns a list of texts that may be written as a list in Python or JSON.

  Raises:
    ValueError: it is a text that is neither.
  """
  if isinstance(value, str):
    value = parsed(value) if value.strip() else []
  if not isinstance(value, Sequence):
    value = list(value)
  return [str(item) for item in value]


def parsed(value: str) -> Any:
  """Returns what a text says in JSON or as a Python literal.

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
  """Returns options by their letters from A on."""
  return dict(zip(LETTERS, texts, strict=False))


def options_of_columns(row: Row, letters: str = LETTERS[:8]) -> dict[str, str]:
  """Returns the options that a table has in columns A, B, ..."""
  found = {letter: text(row, letter, default="") for letter in letters}
  return {letter: option for letter, option in found.items() if option.strip()}


def _decoded(value: str) -> str | bytes:
  """Returns a picture in base64 as bytes; a path, which is short or has a dot, as it is."""
  if len(value) < 256 or "." in value:
    return value
  try:
    return base64.b64decode(value, validate=True)
  except binascii.Error:
    return value
