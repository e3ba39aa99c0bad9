"""What lies in a bucket is copied to this machine once."""

import errno
import os
import pathlib
from concurrent import futures

import fsspec
import google.auth.exceptions
import pytest

from sejax import storage


class NoCredentialsError(Exception):
  """As botocore's, which is installed with the extra s3 alone."""


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
  monkeypatch.setenv("SEJAX_CACHE", str(tmp_path / "cache"))
  return tmp_path / "cache"


def fill(folder):
  (folder / "config.json").write_text("{}")
  if isinstance(folder, pathlib.Path):
    (folder / "sub").mkdir()
  (folder / "sub" / "a.bin").write_bytes(b"\0" * 1000)


def test_local_paths_stay_as_they_are(cache):
  assert storage.local_copy("config.data.path", "runs/x") == "runs/x"
  assert storage.local_copy("config.data.path", "") == ""
  assert not cache.exists()


def test_a_folder_is_copied_once_until_it_changes(bucket, cache):
  fill(bucket / "model")
  url = os.fspath(bucket / "model")
  with futures.ThreadPoolExecutor(4) as pool:
    found = {*pool.map(lambda _: storage.local_copy("config.model.path", url), range(4))}
  assert len(found) == 1
  copy = pathlib.Path(found.pop())
  assert copy.name == "model"
  assert (copy / "config.json").read_text() == "{}"
  assert (copy / "sub" / "a.bin").stat().st_size == 1000
  (copy / "config.json").write_text("mine")  # It is not copied again.
  assert storage.local_copy("config.model.path", url) == os.fspath(copy)
  assert (copy / "config.json").read_text() == "mine"
  (bucket / "model" / "config.json").write_text("[]")
  changed = pathlib.Path(storage.local_copy("config.model.path", f"{url}/"))
  assert (changed / "config.json").read_text() == "[]"


def test_a_file_keeps_its_name(bucket):
  (bucket / "sets" / "a.jsonl").write_text("line\n")
  copy = pathlib.Path(storage.local_copy("config.data.path", os.fspath(bucket / "sets/a.jsonl")))
  assert copy.name == "a.jsonl"
  assert copy.read_text() == "line\n"


def test_a_trailing_slash_makes_no_other_copy(bucket, cache):
  fill(bucket / "model")
  url = os.fspath(bucket / "model")
  assert storage.local_copy("x", url) == storage.local_copy("x", f"{url}/")
  assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


@pytest.mark.parametrize("place", ["none", "../no-such-bucket/model"])
def test_what_is_missing_is_named(bucket, place):
  url = os.path.normpath(bucket / place).replace(":/", "://")
  message = rf"^config.data.path='{url}' cannot be read: there is nothing at that path"
  with pytest.raises(ValueError, match=message):
    storage.local_copy("config.data.path", url)


@pytest.mark.parametrize(
  ("scheme", "error"),
  [
    ("gs", "HttpError"),
    ("gs", OSError("Forbidden: https://storage.googleapis.com/storage/v1/b/x/o\nno access")),
    ("gs", google.auth.exceptions.RefreshError("Reauthentication is needed.")),
    ("s3", PermissionError("Access Denied")),
    ("s3", NoCredentialsError("Unable to locate credentials")),
  ],
)
def test_without_permission_it_says_how_to_get_it(monkeypatch, bucket, scheme, error):
  if (
    error == "HttpError"
  ):  # Imported after `bucket`, whose variables gcsfs reads as it is imported.
    from gcsfs.retry import HttpError

    error = HttpError({"code": 401, "message": "Anonymous caller " * 20})

  def refuse(*_, **__):
    raise error

  monkeypatch.setattr("fsspec.core.url_to_fs", refuse)
  hint = {"gs": "run `gcloud auth application-default login`", "s3": "AWS credentials"}[scheme]
  with pytest.raises(ValueError, match=hint) as caught:
    storage.local_copy("config.eval.sets_path", f"{scheme}://bucket/{'long' * 50}")
  message = str(caught.value)
  assert "cannot be read: no credentials that may read it (" in message
  assert "\n" not in message
  assert len(message) <= 300


def test_a_full_disk_is_told_from_a_bucket(bucket, cache, monkeypatch):
  fill(bucket / "model")
  url = os.fspath(bucket / "model")
  system = fsspec.core.url_to_fs(url)[0]

  def fill_disk(remote, local, **_):
    pathlib.Path(local[0]).write_text("begun")
    raise OSError(errno.ENOSPC, "No space left on device")

  with monkeypatch.context() as patched:
    patched.setattr(system, "get", fill_disk)
    with pytest.raises(OSError, match="No space left on device") as caught:
      storage.local_copy("config.model.path", url)
  assert caught.value.errno == errno.ENOSPC
  assert caught.value.filename == os.fspath(cache)
  assert not list(cache.glob("*.partial"))
  assert pathlib.Path(storage.local_copy("config.model.path", url), "config.json").exists()


def test_a_folder_of_copies_that_cannot_be_made_is_named(bucket, cache):
  fill(bucket / "model")
  cache.write_text("a file")
  with pytest.raises(FileExistsError) as caught:
    storage.local_copy("config.model.path", os.fspath(bucket / "model"))
  assert caught.value.filename == os.fspath(cache)


def test_files_that_were_written_locally_are_moved(bucket):
  with storage.written_locally(bucket / "logs") as local:
    fill(pathlib.Path(local))
  assert (bucket / "logs" / "sub" / "a.bin").read_bytes() == b"\0" * 1000
  assert not pathlib.Path(local).exists()
