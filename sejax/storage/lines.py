"""Files of lines that grow while a run goes on, also in a bucket, where nothing can be appended to.

In a bucket, lines are collected, and written as one object per interval to the folder
`<name>.parts` beside the file. A killed process loses the lines since the last one. When the file
is closed, and when it is rewritten, as on resume, its parts become one object under its own name,
and are removed.
"""

import contextlib
import glob
import io
import os
import time
from collections.abc import Iterable, Iterator

import fsspec

from sejax.storage.files import Path, is_remote, write_lines

# Seconds between two objects. Each costs a request, and a listing to read.
INTERVAL = 30.0


class LineFile:
  """A file of lines, to which one process appends while others may read.

  Parts are also read on a disk, where a copy of a folder in a bucket may have them.
  """

  def __init__(self, path: str | os.PathLike, *, interval: float = INTERVAL):
    """Opens nothing yet.

    Args:
      path: the file; its folder must exist when lines are written.
      interval: seconds between two objects in a bucket.
    """
    self.path = Path(path)
    self._is_remote = is_remote(path)
    self._parts = self.path.with_name(f"{self.path.name}.parts")
    self._interval, self._waiting = interval, b""
    self._flushed = time.monotonic()
    self._next: int | None = None  # number of the next part

  def append(self, text: str) -> None:
    """Appends lines; a local file has them when this returns.

    Args:
      text: whole lines, with their line breaks.
    """
    if not self._is_remote:
      with open(self.path, "ab") as file:
        file.write(text.encode())
      return
    self._waiting += text.encode()
    if time.monotonic() - self._flushed >= self._interval:
      self.flush()

  def flush(self) -> None:
    """Writes all lines that wait."""
    self._flushed = time.monotonic()
    if not self._waiting:
      return
    if self._next is None:
      self._next = max((int(part.stem) for part in self._found()), default=-1) + 1
    self._parts.mkdir(parents=True, exist_ok=True)
    (self._parts / f"{self._next:08}.jsonl").write_bytes(self._waiting)
    self._waiting, self._next = b"", self._next + 1

  def close(self) -> None:
    """Writes all lines that wait, and merges the parts into the file; more lines may follow."""
    self.flush()
    if self._next is not None:  # Else the parts, if any, are not of this process.
      self.rewrite(line for _, line in self.read())

  def exists(self) -> bool:
    """Whether there is a file, or a part of one."""
    return self.path.is_file() or bool(self._found())

  def read(self) -> Iterator[tuple[str, bytes]]:
    """Yields each line with where it stands: the name of its file, and its number there.

    The last line of a file may lack its line break: it is being written, or its writer was killed.
    """
    # Parts first: what another process merges and removes meanwhile is then in the file.
    try:
      parts = self._read_parts()
    except FileNotFoundError:  # removed since they were listed
      parts = self._read_parts()
    # A process that was killed while it merged has left parts whose lines are in the file.
    unread = {line for _, lines in parts for line in lines}
    if self.path.exists():
      with self.path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
          unread.discard(line)
          yield f"{self.path}:{number}", line
    for part, lines in parts:
      for number, line in enumerate(lines, 1):
        if line in unread:
          yield f"{part}:{number}", line

  def rewrite(self, lines: Iterable[bytes]) -> None:
    """Replaces all lines; lines that wait are lost.

    Args:
      lines: with their line breaks; they may be read from this file meanwhile.
    """
    parts, self._waiting, self._next = self._found(), b"", None
    write_lines(self.path, lines)
    if parts:
      self._remove(parts)

  def _found(self) -> list[Path]:
    """Returns the parts in their order."""
    try:
      return sorted(self._parts.iterdir(), key=os.fspath)
    except FileNotFoundError:
      return []

  def _read_parts(self) -> list[tuple[Path, list[bytes]]]:
    """Returns the parts in their order, each with its lines.

    Raises:
      FileNotFoundError: one was removed since they were listed.
    """
    found = self._found()
    if self._is_remote and found:
      # Not `cat`, which takes brackets in a name for a pattern.
      contents = self._system().cat_ranges([os.fspath(part) for part in found], None, None)
    else:
      contents = [part.read_bytes() for part in found]
    for content in contents:
      if isinstance(content, Exception):
        raise content
    return [(part, [*io.BytesIO(text)]) for part, text in zip(found, contents, strict=True)]

  def _remove(self, parts: list[Path]) -> None:
    """Removes parts, and a local folder that is empty then."""
    if self._is_remote:
      # Escaped, as `rm` takes brackets and asterisks in a name for a pattern.
      self._system().rm([glob.escape(os.fspath(part)) for part in parts])
      return
    for part in parts:
      part.unlink()
    with contextlib.suppress(OSError):
      self._parts.rmdir()

  def _system(self) -> fsspec.AbstractFileSystem:
    return fsspec.core.url_to_fs(os.fspath(self.path))[0]
