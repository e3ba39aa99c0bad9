"""What lies in a bucket is copied to this machine once."""

import os
import pathlib
from concurrent import futures

import pytest

from sejax import storage


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


def test_what_is_missing_is_named(bucket):
  url = os.fspath(bucket / "none")
  with pytest.raises(ValueError, match=rf"config.data.path='{url}' cannot be read \(there is"):
    storage.local_copy("config.data.path", url)


def test_files_that_were_written_locally_are_moved(bucket):
  with storage.written_locally(bucket / "logs") as local:
    fill(pathlib.Path(local))
  assert (bucket / "logs" / "sub" / "a.bin").read_bytes() == b"\0" * 1000
  assert not pathlib.Path(local).exists()
