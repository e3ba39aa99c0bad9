"""Paths that a user gives: which can be a workdir, and whether it can be written."""

import pathlib
import re
import tempfile

from sejax.errors import quoted, shortened

# "gs://bucket/run", "s3://...", "file:///..."
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
# orbax takes "[" for a pattern and "\" for "/", and then does not find what it has written.
_UNREADABLE = "[\\"
_REMOTE_PARTS = {"gs:", "s3:"}  # for which it takes a path that has a folder of this name


def local_path(name: str, value: str) -> str:
  """Returns a path with `~` replaced by the home directory.

  Args:
    name: of the flag or field that gives it, for messages.
    value: as given; an empty one stays empty.

  Raises:
    ValueError: it is of another machine, or its home directory is not known.
  """
  if _SCHEME.match(value):
    raise ValueError(
      f"{name}={shortened(value)} is a remote path; give a folder or file of this machine, such as"
      " one that the bucket is mounted on"
    )
  try:
    return str(pathlib.Path(value).expanduser()) if value.startswith("~") else value
  except RuntimeError:
    raise ValueError(
      f"{name}={shortened(value)} cannot be expanded, as there is no such user; give the whole path"
    ) from None


def locate(value: str, *, checkpoints: bool) -> pathlib.Path:
  """Returns the folder that `--workdir` names.

  Args:
    value: of the flag.
    checkpoints: whether checkpoints are kept in it.

  Raises:
    ValueError: it is a remote path, or checkpoints could not be read back from it.
  """
  if not value:
    raise ValueError("--workdir is empty; give the folder that the run writes to")
  workdir = pathlib.Path(local_path("--workdir", value))
  absolute = str(workdir.resolve())
  if checkpoints and (
    any(c in absolute for c in _UNREADABLE)
    or not _REMOTE_PARTS.isdisjoint(pathlib.Path(absolute).parts)
    or not _is_unicode(absolute)
  ):
    raise ValueError(
      f"--workdir={quoted(absolute)} is a path that checkpoints cannot be read back from; give one"
      r" of valid UTF-8, without [, \, and folders named gs: or s3:"
    )
  return workdir


def make(workdir: pathlib.Path) -> None:
  """Makes the folder if it is missing, and checks that a file can be written in it.

  Raises:
    ValueError: it cannot.
  """
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=workdir):
      pass
  except OSError as error:
    raise ValueError(
      f"--workdir={shortened(workdir)} cannot be written ({error.strerror}); give a folder that can"
    ) from None


def _is_unicode(text: str) -> bool:
  try:
    text.encode()
  except UnicodeEncodeError:
    return False
  return True
