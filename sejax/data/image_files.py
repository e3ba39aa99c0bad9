"""What a record gives for an image, to the bytes of the image file: a path, a data URI or base64.

Paths come from whoever made the set, so a path must not reach other files of the machine. Its
names decide that, before any file is touched: a path whose names lead out of the set's folder
(`..`, an absolute path elsewhere, a drive of Windows) is refused. Links are followed wherever they
lead, since whoever owns the folder has put them there; in the hub's cache every picture is a link
to a file outside the snapshot. The folder itself may be a link, too. `~` is a name like any other.
"""

import base64
import binascii
import os
import pathlib
import re
import urllib.parse

from sejax.data.records import BadRecord
from sejax.errors import quoted, shortened

_DATA_URI = re.compile(r"\s*data:([^,]*),", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]++=*+")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
# How the formats that `images.decode` reads begin; 12 bytes, 16 characters of base64, tell them.
_BEGINNING = re.compile(
  rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP|BM.{4}\0{4}|II\*\0|MM\0\*|P[1-7]\s",
  re.DOTALL,
)


def read(text: str, folder: pathlib.Path) -> bytes:
  """Returns the bytes that a text stands for.

  Args:
    text: a data URI, an image file in base64, or the path of a file in the folder; a backslash
      separates names as a slash does.
    folder: what paths are relative to; an absolute path must lead into it.

  Raises:
    BadRecord: of kind `bad image value`, `missing image` or `path outside the folder`.
  """
  inline = of_text(text)
  return _read_inside(folder, text) if inline is None else inline


def of_text(text: str) -> bytes | None:
  """Returns the image file that a text holds, as a data URI or in base64; None where it is neither.

  Raises:
    BadRecord: of kind `bad image value`: it is one of them, and broken.
  """
  if header := _DATA_URI.match(text):
    content = urllib.parse.unquote_to_bytes(text[header.end() :])
    is_base64 = header[1].rstrip().lower().endswith(";base64")
    return _of_base64(content, text) if is_base64 else content
  text = text.strip()
  beginning = "".join(text[:64].split())[:16]
  if len(beginning) < 16 or not _BASE64.fullmatch(text):
    return None
  if not _BEGINNING.match(_of_base64(beginning.encode(), text)):
    return None
  return _of_base64(text.encode(), text)


def _of_base64(content: bytes, text: str) -> bytes:
  """Decodes base64 of either alphabet, with or without padding and white space."""
  packed = content.translate(_URL_SAFE, b" \t\r\n\v\f").rstrip(b"=")
  try:
    return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
  except binascii.Error as error:
    raise BadRecord("bad image value", f"the base64 {quoted(text)} is broken: {error}") from None


def _read_inside(folder: pathlib.Path, path: str) -> bytes:
  target = _inside(folder, path)
  try:
    if not target.is_file():  # a pipe or a device would block
      raise BadRecord("missing image", f"there is no file {quoted(path)} in {shortened(folder)}")
    return target.read_bytes()
  except OSError as error:  # no permission, or a name that is too long
    raise BadRecord(
      "missing image", f"the image path {quoted(path)} cannot be read: {error.strerror}"
    ) from None


def _inside(folder: pathlib.Path, path: str) -> pathlib.Path:
  """Returns the file that a path names, by its names alone; see the module."""
  if "\0" in path:
    raise BadRecord("missing image", f"the image path {quoted(path)} holds a NUL")
  names = path.replace("\\", "/")
  if names.startswith("/"):
    names = _relative(os.path.normpath(f"/{names.lstrip('/')}"), folder)
  elif _DRIVE.match(path):
    names = None
  if names is None or pathlib.PurePosixPath(os.path.normpath(names)).parts[:1] == ("..",):
    raise BadRecord(
      "path outside the folder",
      f"the image path {quoted(path)} leads out of {shortened(folder)}; it must not",
    )
  return folder / os.path.normpath(names)


def _relative(path: str, folder: pathlib.Path) -> str | None:
  """Returns an absolute path's names below the folder, which may be a link; None if it is not."""
  for root in (os.path.abspath(folder), os.path.realpath(folder)):
    if pathlib.PurePosixPath(path).is_relative_to(root):
      return os.path.relpath(path, root)
  return None
