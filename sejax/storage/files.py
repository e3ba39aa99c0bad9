"""Paths, and what a local file and an object in a bucket do differently.

An object is written whole, and appears at once; it cannot be appended to, and takes the place of an
earlier one. A local file is written beside its place and then renamed.
"""

import contextlib
import glob as glob_lib
import importlib.util
import os
import re
import uuid
from collections.abc import Iterable

import fsspec
from etils import epath

from sejax.errors import shortened

Path = epath.Path

# Package that fsspec needs for a scheme, and the extra that installs it.
_PACKAGES = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}
_TAKEN_FOR_BUCKETS = re.compile("/+(gs|s3|az|hf)(/|$)")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
# By default, a folder that was listed once is never listed again, but other processes write to it.
for _scheme in ("gs", "gcs", "s3"):
  fsspec.config.conf.setdefault(_scheme, {}).setdefault("use_listings_cache", False)


def is_remote(path: str | os.PathLike) -> bool:
  """Whether a path is in a bucket."""
  return os.fspath(path).startswith(tuple(f"{scheme}://" for scheme in _PACKAGES))


def absolute(path: str | os.PathLike) -> Path:
  """Returns the absolute path, without following links."""
  path = Path(path)
  return path if is_remote(path) else Path(os.path.abspath(path))


def glob(folder: Path, pattern: str) -> list[Path]:
  """Returns what matches a pattern in a folder, sorted.

  Why not `Path.glob`: it takes `*`, `?` and brackets in the folder's own name for a pattern.

  Args:
    pattern: relative to the folder; `**/` is any folders. As in a shell, only what itself begins
      with a dot matches names that do.
  """
  if not is_remote(folder):
    found = glob_lib.glob(pattern, root_dir=folder, recursive=True)
    return sorted(Path(folder) / name for name in found)
  system, root = fsspec.core.url_to_fs(os.fspath(folder))
  root = root.rstrip("/")
  found = [
    name.removeprefix(f"{root}/") for name in system.glob(f"{glob_lib.escape(root)}/{pattern}")
  ]
  if not _has_hidden_part(pattern):  # fsspec lets `*` match names that begin with a dot.
    found = [name for name in found if not _has_hidden_part(name)]
  return sorted(folder / name for name in found)


def _has_hidden_part(path: str) -> bool:
  return any(part.startswith(".") for part in path.split("/"))


def expand(name: str, value: str) -> str:
  """Checks the scheme of a path, and replaces `~` by the home directory.

  Args:
    name: flag or field that gives the path, for messages.
    value: the path; may be empty.

  Raises:
    ValueError: the scheme is unknown or its package is missing, the path names the home directory
      of an unknown user, or etils takes it for a bucket, as it does with /gs/bucket.
  """
  if scheme := _SCHEME.match(value):
    _require_package(name, value, scheme[1])
    return value
  expanded = os.path.expanduser(value)
  if expanded.startswith("~"):
    raise ValueError(
      f"{name}={shortened(value)} cannot be expanded, as there is no such user; give the whole path"
    )
  if _TAKEN_FOR_BUCKETS.match(expanded):
    raise ValueError(
      f"{name}={shortened(value)} would be taken for a bucket; give it by a link of another name"
    )
  return expanded


def _require_package(name: str, value: str, scheme: str) -> None:
  """Checks that paths of a scheme can be reached.

  Args:
    name: flag or field that gives the path, for messages.

  Raises:
    ValueError: the scheme is unknown, or its package is not installed.
  """
  if scheme not in _PACKAGES or not value.startswith(f"{scheme}://"):
    known = " or ".join(f"{known}://" for known in _PACKAGES)
    raise ValueError(
      f"{name}={shortened(value)} is of no known kind; give a path of this machine, or {known}"
    )
  package, extra = _PACKAGES[scheme]
  if importlib.util.find_spec(package) is None:
    raise ValueError(
      f"{name}={shortened(value)} needs the package {package}, which is not installed; run"
      f" `pip install 'sejax[{extra}]'`"
    )


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes a text file, which replaces an earlier one at once; its folder must exist.

  Lone surrogates, which JSON allows and UTF-8 does not, are escaped.
  """
  write_lines(path, [text.encode(errors="backslashreplace")])


def write_lines(path: str | os.PathLike, lines: Iterable[bytes]) -> None:
  """Writes a file of lines, which replaces an earlier one at once; its folder must exist.

  Args:
    lines: with their line breaks. They may be read from the earlier file meanwhile.
  """
  path = Path(path)
  if is_remote(path):
    path.write_bytes(b"".join(lines))
    return
  new = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.new")
  try:
    with open(new, "wb") as file:
      file.writelines(lines)
    new.replace(path)
  finally:
    new.unlink(missing_ok=True)


def create(path: Path, text: str) -> bool:
  """Creates a file, if there is none; returns whether it did, of several processes to one alone."""
  try:
    if is_remote(path):
      _file_system(path).pipe_file(os.fspath(path), text.encode(), mode="create")
    else:
      with open(path, "x", encoding="utf-8") as file:
        file.write(text)
  except FileExistsError:
    return False
  return True


def renew(path: Path) -> None:
  """Sets a file's time to now, by the clock of its storage."""
  if is_remote(path):
    path.write_bytes(path.read_bytes())
  else:
    os.utime(path)


def probe(folder: Path) -> None:
  """Writes a file to a folder and removes it; raises what the storage raises."""
  path = folder / f".{uuid.uuid4().hex}"
  path.write_bytes(b"")
  path.unlink()


def age(path: Path) -> float:
  """Returns seconds since a file was written or renewed, by the clock of its storage.

  Raises:
    FileNotFoundError: there is no such file.
  """
  probe = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
  try:
    probe.write_bytes(b"")
    return _modified(probe) - _modified(path)
  finally:
    with contextlib.suppress(FileNotFoundError):
      probe.unlink()


def _modified(path: Path) -> float:
  if is_remote(path):
    return _file_system(path).modified(os.fspath(path)).timestamp()
  return os.stat(path).st_mtime


def _file_system(path: Path) -> fsspec.AbstractFileSystem:
  """Returns the file system of a path in a bucket."""
  return fsspec.core.url_to_fs(os.fspath(path))[0]
