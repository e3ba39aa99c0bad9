"""Makes standard output and error robust to any character and to a reader that goes away."""

import errno
import io
import os
import sys
from typing import TextIO

# Errors of writing to a closed pipe (EPIPE) or to a terminal that is gone (EIO).
_READER_GONE = (errno.EPIPE, errno.EIO)


def prepare() -> None:
  r"""Makes standard output and error robust, for the rest of this process.

  Characters that the encoding of a stream lacks are written as escapes such as \u221a. Output after
  the reader has gone (`| head`, a lost connection) is discarded instead of raising an error.
  """
  sys.stdout, sys.stderr = map(_tolerant, (sys.stdout, sys.stderr))


def _tolerant(stream: TextIO | None) -> TextIO | None:
  # Other streams are None, those of a notebook, or already wrapped.
  if not isinstance(stream, io.TextIOWrapper):
    return stream
  stream.reconfigure(errors="backslashreplace")
  return _TolerantStream(stream)


class _TolerantStream:
  """Wraps a text stream; discards output once its reader has gone."""

  def __init__(self, stream: TextIO):
    self._stream = stream

  def __getattr__(self, name: str) -> object:
    return getattr(self._stream, name)

  def write(self, text: str) -> int:
    try:
      return self._stream.write(text)
    except OSError as error:
      self._discard_output(error)
      return len(text)

  def writelines(self, lines: list[str]) -> None:
    for line in lines:
      self.write(line)

  def flush(self) -> None:
    try:
      self._stream.flush()
    except OSError as error:
      self._discard_output(error)

  def _discard_output(self, error: OSError) -> None:
    """Redirects the stream to the null device; raises errors other than of a lost reader."""
    if error.errno not in _READER_GONE:
      raise error
    with open(os.devnull, "wb") as null:
      os.dup2(null.fileno(), self._stream.fileno())
