"""Reads an image file that a record gives as a path, a data URI or base64.

Paths come from whoever published the data set, so they must not reach other files of the machine.
A path that leads out of the data set's folder (by `..`, as an absolute path, or by a Windows drive)
is refused before any file is opened. This is decided by the text of the path alone. Symbolic links
are followed wherever they lead, as only the owner of the folder can create them: in the Hugging
Face cache every file is a link to a place outside the snapshot. The folder itself may be a link.
`~` is not expanded.
"""

import base64
import binascii
import os
import re
import urllib.parse

from sejax import storage
from sejax.data.records import BadRecord
from sejax.errors import quoted, shortened

_DATA_URI = re.compile(r"\s*data:([^,]*),", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]++=*+")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
# First bytes of the formats that `images.decode` reads; 12 bytes (16 base64 characters) suffice.
_SIGNATURES = re.compile(
  rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF.{4}WEBP|BM.{4}\0{4}|II\*\0|MM\0\*|P[1-7]\s",
  re.DOTALL,
)


def read(text: str, folder: storage.Path) -> bytes:
  """Returns the image file that a text contains or points to.

  Args:
    text: a data URI, an image file in base64, or the path of a file in `folder`. A backslash in a
      path is read as a slash.
    folder: base of relative paths; an absolute path must lead into it.

  Raises:
    BadRecord: of kind `bad image value`, `missing image` or `path outside the folder`.
  """
  inline = decode_inline(text)
  return _read_inside(folder, text) if inline is None else inline


def decode_inline(text: str) -> bytes | None:
  """Decodes an image file that is given as a data URI or in base64; None if it is neither.

  Raises:
    BadRecord: of kind `bad image value`: the base64 is broken.
  """
  if header := _DATA_URI.match(text):
    content = urllib.parse.unquote_to_bytes(text[header.end() :])
    is_base64 = header[1].rstrip().lower().endswith(";base64")
    return _decode_base64(content, text) if is_base64 else content
  text = text.strip()
  signature = "".join(text[:64].split())[:16]
  if len(signature) < 16 or not _BASE64.fullmatch(text):
    return None
  if not _SIGNATURES.match(_decode_base64(signature.encode(), text)):
    return None
  return _decode_base64(text.encode(), text)


def _decode_base64(content: bytes, text: str) -> bytes:
  """Decodes standard or URL-safe base64, with or without padding and white space."""
  packed = content.translate(_URL_SAFE, b" \t\r\n\v\f").rstrip(b"=")
  try:
    return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
  except binascii.Error as error:
    raise BadRecord("bad image value", f"the base64 {quoted(text)} is broken: {error}") from None


def _read_inside(folder: storage.Path, path: str) -> bytes:
  target = _resolve_inside(folder, path)
  try:
    if not target.is_file():  # a pipe or a device would block
      raise BadRecord("missing image", f"there is no file {quoted(path)} in {shortened(folder)}")
    return target.read_bytes()
  except OSError as error:  # no permission, or a name that is too long
    raise BadRecord(
      "missing image", f"the image path {quoted(path)} cannot be read: {error.strerror}"
    ) from None


def _resolve_inside(folder: storage.Path, path: str) -> storage.Path:
  """Returns the file of a path in the folder, judging the path by its text; see the module."""
  if "\0" in path:
    raise BadRecord("missing image", f"the image path {quoted(path)} holds a NUL")
  names = path.replace("\\", "/")
  if names.startswith("/"):
    names = _relative_to_folder(os.path.normpath(f"/{names.lstrip('/')}"), folder)
  elif _DRIVE.match(path):
    names = None
  if names is None or os.path.normpath(names).split("/")[0] == "..":
    raise BadRecord(
      "path outside the folder",
      f"the image path {quoted(path)} leads out of {shortened(folder)}; it must not",
    )
  return folder / os.path.normpath(names)


def _relative_to_folder(path: str, folder: storage.Path) -> str | None:
  """Returns an absolute path relative to the folder or what it links to; None if outside."""
  for root in (os.path.abspath(folder), os.path.realpath(folder)):
    if os.path.commonpath([path, root]) == root:
      return os.path.relpath(path, root)
  return None
