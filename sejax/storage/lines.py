"""Files of lines that grow while a run goes on, also in a bucket, where nothing can be appended to.

In a bucket, lines are collected, and written as one object per interval to the folder
`<name>.parts` beside the file. A killed process loses the lines since the last one. When the file
is rewritten, as on resume, its parts become one object under its own name, and are removed.
"""

import os
import time
from collections.abc import Iterable, Iterator

from sejax.storage.files import Path, is_remote, write_lines

# Seconds between two objects. Each costs a request, and a listing to read.
INTERVAL = 30.0


class LineFile:
  """A file of lines, to which one process appends.

  Whoever reads must take care of lines that occur twice: a process that is killed while it rewrites
  the file may leave parts whose lines are in it.
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
    """Writes all lines that wait; more may follow."""
    self.flush()

  def exists(self) -> bool:
    """Whether any line was written."""
    return self.path.exists() or bool(self._found())

  def read(self) -> Iterator[tuple[str, bytes]]:
    """Yields each line with where it stands: the name of its file, and its number there.

    The last line of a file may lack its line break: it is being written, or its writer was killed.
    """
    for file in [self.path] * self.path.exists() + self._found():
      with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
          yield f"{file}:{number}", line

  def rewrite(self, lines: Iterable[bytes]) -> None:
    """Replaces all lines; lines that wait are lost.

    Args:
      lines: with their line breaks; they may be read from this file meanwhile.
    """
    parts, self._waiting, self._next = self._found(), b"", None
    write_lines(self.path, lines)
    for part in parts:
      part.unlink()

  def _found(self) -> list[Path]:
    """Returns the parts in a bucket, in their order."""
    if not self._is_remote or not self._parts.exists():
      return []
    return sorted(self._parts.iterdir(), key=os.fspath)
