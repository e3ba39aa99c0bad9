"""Checks of local paths and of the workdir."""

import pathlib
import re
import tempfile

from sejax.errors import quoted, shortened

# "gs://bucket/run", "s3://...", "file:///..."
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
# orbax reads "[" as a pattern and "\" as "/", and then does not find the checkpoints it has saved.
_UNREADABLE = "[\\"
_REMOTE_PARTS = {"gs:", "s3:"}  # orbax takes paths with a folder of this name for remote ones


def local_path(name: str, value: str) -> str:
  """Returns a path with `~` replaced by the home directory.

  Args:
    name: flag or field that gives the path, for messages.
    value: the path; may be empty.

  Raises:
    ValueError: the path is remote, or names the home directory of an unknown user.
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
  """Returns the path of the workdir.

  Args:
    value: value of `--workdir`.
    checkpoints: whether checkpoints are saved in it, which orbax supports only for some paths.

  Raises:
    ValueError: the path is empty or remote, or orbax cannot read checkpoints back from it.
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
  """Creates the workdir if it is missing, and checks that files can be written in it.

  Raises:
    ValueError: the workdir cannot be created or written.
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
