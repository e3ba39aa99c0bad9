"""Standard output and error that no run dies of: any character, and a reader that may go away."""

import errno
import io
import os
import sys
from typing import TextIO

# What writing to a closed pipe, or to a terminal that is gone, fails with.
_NOBODY_READS = (errno.EPIPE, errno.EIO)


def prepare() -> None:
  r"""Lets standard output and error take all that is printed, for the rest of this process.

  Characters that a stream's encoding lacks are written as escapes, such as \u221a. What is written
  after the reader has gone (`| head`, a connection that broke) goes nowhere.
  """
  sys.stdout, sys.stderr = map(_tolerant, (sys.stdout, sys.stderr))


def _tolerant(stream: TextIO | None) -> TextIO | None:
  if not isinstance(stream, io.TextIOWrapper):  # none, one of a notebook, or prepared already
    return stream
  stream.reconfigure(errors="backslashreplace")
  return _Tolerant(stream)


class _Tolerant:
  """A text stream whose reader may go away."""

  def __init__(self, stream: TextIO):
    self._stream = stream

  def __getattr__(self, name: str) -> object:
    return getattr(self._stream, name)

  def write(self, text: str) -> int:
    try:
      return self._stream.write(text)
    except OSError as error:
      self._leave(error)
      return len(text)

  def writelines(self, lines: list[str]) -> None:
    for line in lines:
      self.write(line)

  def flush(self) -> None:
    try:
      self._stream.flush()
    except OSError as error:
      self._leave(error)

  def _leave(self, error: OSError) -> None:
    """Sends what is still to be written nowhere."""
    if error.errno not in _NOBODY_READS:
      raise error
    with open(os.devnull, "wb") as nowhere:
      os.dup2(nowhere.fileno(), self._stream.fileno())
