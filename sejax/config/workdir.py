"""Checks of the workdir."""

import os

from sejax import storage
from sejax.errors import one_line, quoted, shortened

# orbax reads "[" as a pattern and "\" as "/", and then does not find the checkpoints it has saved.
_UNREADABLE = "[\\"
_PATTERNS = {*"*?[]"}
_REMOTE_PARTS = {"gs:", "s3:"}  # orbax takes paths with a folder of this name for remote ones


def locate(value: str, *, checkpoints: bool) -> storage.Path:
  """Returns the path of the workdir.

  Args:
    value: value of `--workdir`.
    checkpoints: whether checkpoints are saved in it, which orbax supports only for some paths.

  Raises:
    ValueError: the path is empty, cannot be reached, has characters of patterns in a bucket, or
      orbax cannot read checkpoints back from it.
  """
  if not value:
    raise ValueError("--workdir is empty; give the folder that the run writes to")
  workdir = storage.Path(storage.expand("--workdir", value))
  absolute = os.fspath(storage.absolute(workdir))
  if checkpoints and absolute.startswith("s3://"):
    raise ValueError(
      f"--workdir={shortened(absolute)}: orbax saves checkpoints on disks and in gs:// alone; give"
      " one of these, or a folder that the bucket is mounted on"
    )
  if storage.is_remote(workdir) and _PATTERNS.intersection(absolute):
    raise ValueError(
      f"--workdir={quoted(absolute)} would be taken for a pattern by clients of buckets; give one"
      " without *, ?, [ and ]"
    )
  names = absolute.removeprefix("gs://").split("/")
  if checkpoints and (
    any(c in absolute for c in _UNREADABLE)
    or not _REMOTE_PARTS.isdisjoint(names)
    or not _is_unicode(absolute)
  ):
    raise ValueError(
      f"--workdir={quoted(absolute)} is a path that checkpoints cannot be read back from; give one"
      r" of valid UTF-8, without [, \, and folders named gs: or s3:"
    )
  return workdir


def make(workdir: storage.Path) -> None:
  """Creates the workdir if it is missing, and checks that files can be written in it.

  Raises:
    ValueError: the workdir cannot be created or written.
  """
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    storage.probe(workdir)
  except Exception as error:  # Clients of buckets raise errors of any type.
    if not (isinstance(error, OSError) or storage.is_remote(workdir)):
      raise
    reason = getattr(error, "strerror", None) or one_line(error, 120)
    raise ValueError(
      f"--workdir={shortened(workdir)} cannot be written ({reason}); give a folder that can"
    ) from None


def _is_unicode(text: str) -> bool:
  try:
    text.encode()
  except UnicodeEncodeError:
    return False
  return True
