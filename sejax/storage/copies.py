"""Local copies of what lies in a bucket, made once per host.

Model directories, data sets and pictures are read in many small pieces, for which requests to a
bucket would cost more than the bytes. So a folder or file is copied once to this host's cache, as a
repository of the hub is. What changed since is copied anew, beside the old copy.

Why not fsspec's own caches (`filecache`): they keep files under hashed names, without the folders
that tokenizers and data sets need.
"""

import contextlib
import errno
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
from sejax.storage.files import Path, absolute, is_remote

_CACHE = "SEJAX_CACHE"  # variable that names the folder of copies

# What gives this host credentials, by the scheme of a path.
_LOGIN = {
  "gs": "run `gcloud auth application-default login`",
  "s3": "give AWS credentials, as by `aws configure`",
}

# Errors of google.auth and botocore, which are imported only where they are needed.
_NO_CREDENTIALS = {
  "CredentialRetrievalError",
  "DefaultCredentialsError",
  "NoCredentialsError",
  "PartialCredentialsError",
  "RefreshError",
  "SSOError",
}


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
    ValueError: it cannot be read; the message says whether there is nothing, or no permission.
    OSError: the copy cannot be written, as the disk is full; it names the folder of copies.
  """
  if not path or not is_remote(path):
    return path
  try:
    return os.fspath(_copy(path))
  except Exception as error:  # Clients of buckets raise errors of any type.
    if _is_of_this_machine(error):
      folder = os.fspath(cache_folder())
      raise OSError(error.errno, os.strerror(error.errno), folder) from error
    raise ValueError(f"{name}={quoted(path)} cannot be read: {_reason(path, error)}") from None


def _is_of_this_machine(error: Exception) -> bool:
  """Whether an error is of the folder of copies, not of the bucket."""
  if not isinstance(error, OSError) or error.errno is None:
    return False
  if error.errno in (errno.ENOSPC, errno.EDQUOT):  # `write` names no file.
    return True
  if not isinstance(error.filename, (str, os.PathLike)):
    return False
  return absolute(error.filename).is_relative_to(absolute(cache_folder()))


def _reason(path: str, error: Exception) -> str:
  """Returns why a path in a bucket cannot be read, and what helps."""
  code = str(getattr(error, "code", ""))
  if isinstance(error, FileNotFoundError) or code == "404":
    return "there is nothing at that path; check the names of the bucket and of what is in it"
  kinds = {kind.__name__ for kind in type(error).__mro__}
  # gcsfs has no type of its own for 403.
  forbidden = isinstance(error, PermissionError) or str(error).startswith("Forbidden")
  if forbidden or code in ("401", "403") or kinds & _NO_CREDENTIALS:
    login = _LOGIN[path.partition(":")[0]]
    return f"no credentials that may read it ({one_line(error, 50)}); {login}"
  return f"{one_line(error, 100)}; check that this host reaches the bucket"


def _copy(path: str) -> Path:
  system, root = fsspec.core.url_to_fs(path)
  root = root.rstrip("/")
  found = system.find(root, detail=True)
  if not found:
    raise FileNotFoundError(path)
  # Relative names; that of a single file is empty.
  names = {file: file.removeprefix(root).lstrip("/") for file in found}
  for name in names.values():
    if ".." in name.split("/"):
      raise ValueError(f"{shortened(name)} leads out of its folder")
  versions = sorted((names[file], info["size"], _version(info)) for file, info in found.items())
  key = hashlib.sha256(json.dumps([path.rstrip("/"), versions]).encode()).hexdigest()[:16]
  cache = cache_folder()
  cache.mkdir(parents=True, exist_ok=True)
  folder = cache / key
  with filelock.FileLock(os.fspath(cache / f"{key}.lock")):
    if not folder.exists():
      partial = cache / f"{key}.partial"
      shutil.rmtree(partial, ignore_errors=True)
      top = partial / posixpath.basename(root)
      local = [os.fspath(top / name) if name else os.fspath(top) for name in names.values()]
      try:
        for file in local:
          os.makedirs(os.path.dirname(file), exist_ok=True)
        with TqdmCallback({"desc": f"copying {path}", "delay": 2, "leave": False}) as progress:
          system.get(list(names), local, callback=progress)
        partial.rename(folder)
      finally:
        shutil.rmtree(partial, ignore_errors=True)
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
