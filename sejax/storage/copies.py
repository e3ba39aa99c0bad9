"""Local copies of what lies in a bucket, made once per host.

Model directories, data sets and pictures are read in many small pieces, for which requests to a
bucket would cost more than the bytes. So a folder or file is copied once to this host's cache, as a
repository of the hub is. What changed since is copied anew, beside the old copy.

Why not fsspec's own caches (`filecache`): they keep files under hashed names, without the folders
that tokenizers and data sets need.
"""

import contextlib
import hashlib
import json
import os
import posixpath
import shutil
import tempfile
from collections.abc import Iterator

import filelock
import fsspec
from fsspec.callbacks import TqdmCallback

from sejax.errors import one_line, quoted, shortened
from sejax.storage.files import Path, is_remote

_CACHE = "SEJAX_CACHE"  # variable that names the folder of copies


def cache_folder() -> Path:
  """Returns the folder of this user's copies: $SEJAX_CACHE, or `~/.cache/sejax`."""
  if given := os.environ.get(_CACHE):
    return Path(given)
  return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sejax"


def local_copy(name: str, path: str) -> str:
  """Returns a local path with the content of a path in a bucket; any other path as it is.

  Of the processes of a host one copies, and the others wait.

  Args:
    name: flag or field that gives the path, for messages.
    path: a file or folder; may be empty.

  Raises:
    ValueError: it cannot be read.
  """
  if not path or not is_remote(path):
    return path
  try:
    return os.fspath(_copy(path))
  except Exception as error:  # Clients of buckets raise errors of any type.
    raise ValueError(
      f"{name}={quoted(path)} cannot be read ({one_line(error, 120)}); check that it is there and"
      " that this host may read it"
    ) from None


def _copy(path: str) -> Path:
  system, root = fsspec.core.url_to_fs(path)
  root = root.rstrip("/")
  found = system.find(root, detail=True)
  if not found:
    raise FileNotFoundError("there is nothing")
  # Relative names; that of a single file is empty.
  names = {file: file.removeprefix(root).lstrip("/") for file in found}
  for name in names.values():
    if ".." in name.split("/"):
      raise ValueError(f"{shortened(name)} leads out of its folder")
  versions = sorted((names[file], info["size"], _version(info)) for file, info in found.items())
  key = hashlib.sha256(json.dumps([path, versions]).encode()).hexdigest()[:16]
  cache = cache_folder()
  cache.mkdir(parents=True, exist_ok=True)
  folder = cache / key
  with filelock.FileLock(os.fspath(cache / f"{key}.lock")):
    if not folder.exists():
      partial = cache / f"{key}.partial"
      shutil.rmtree(partial, ignore_errors=True)
      top = partial / posixpath.basename(root)
      local = [os.fspath(top / name) if name else os.fspath(top) for name in names.values()]
      for file in local:
        os.makedirs(os.path.dirname(file), exist_ok=True)
      with TqdmCallback({"desc": f"copying {path}", "delay": 2, "leave": False}) as progress:
        system.get(list(names), local, callback=progress)
      partial.rename(folder)
  return folder / posixpath.basename(root)


@contextlib.contextmanager
def written_locally(folder: Path) -> Iterator[str]:
  """Lends a local folder to what cannot write to buckets; its files are moved to `folder` then.

  Args:
    folder: lent itself if it is local.
  """
  if not is_remote(folder):
    yield os.fspath(folder)
    return
  with tempfile.TemporaryDirectory() as local:
    yield local
    for root, _, names in os.walk(local):
      for name in names:
        file = os.path.join(root, name)
        upload(file, folder / os.path.relpath(file, local))


def upload(file: str | os.PathLike, path: Path) -> None:
  """Moves a local file to a path in a bucket."""
  fsspec.core.url_to_fs(os.fspath(path))[0].put_file(os.fspath(file), os.fspath(path))
  os.remove(file)


def _version(info: dict) -> str:
  """Returns what changes with an object's content, by the names that clients give it."""
  return next((str(info[key]) for key in ("etag", "ETag", "md5Hash") if info.get(key)), "")
