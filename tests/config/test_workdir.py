"""Which folders can be a workdir."""

import pathlib

import pytest

from sejax import storage
from sejax.config import workdir as workdir_lib


@pytest.mark.parametrize(
  "value",
  [
    "az://bucket/run",
    "hf://bucket/run",
    "file:///tmp/run",
    "gs:/bucket",
    "GS://b",
    "https://a.b/c",
  ],
)
def test_remote_paths_of_other_kinds_are_refused(value):
  with pytest.raises(ValueError, match=r"--workdir=.* is of no known kind; give a path of this"):
    workdir_lib.locate(value, checkpoints=False)


@pytest.mark.parametrize("value", ["/gs/bucket/run", "/s3/run", "//gs/b"])
def test_folders_that_would_be_taken_for_buckets_are_refused(value):
  with pytest.raises(ValueError, match="would be taken for a bucket; give it by a link of another"):
    workdir_lib.locate(value, checkpoints=False)


@pytest.mark.parametrize("value", ["runs/a", "/tmp/a:b", "a:b/c", "C", "gs", "./gs:x"])
def test_local_paths_stay_as_they_are(value):
  assert workdir_lib.locate(value, checkpoints=True) == pathlib.Path(value)


def test_home_is_found(monkeypatch, tmp_path):
  monkeypatch.setenv("HOME", str(tmp_path))
  assert workdir_lib.locate("~/runs/a", checkpoints=True) == tmp_path / "runs" / "a"
  assert storage.expand("config.data.path", "~") == str(tmp_path)
  assert storage.expand("config.data.path", "a~b") == "a~b"
  assert storage.expand("config.data.path", "") == ""


@pytest.mark.parametrize("name", ["[a]", "a[0", "a\\b", "a\udcff", "gs:", "s3:"])
def test_folders_that_checkpoints_cannot_be_read_from_are_refused(name, tmp_path, monkeypatch):
  """The character may be anywhere in the absolute path."""
  expected = "is a path that checkpoints cannot be read back from"
  with pytest.raises(ValueError, match=expected):
    workdir_lib.locate(str(tmp_path / name / "run"), checkpoints=True)
  (tmp_path / name).mkdir()
  monkeypatch.chdir(tmp_path / name)
  with pytest.raises(ValueError, match=expected):
    workdir_lib.locate("run", checkpoints=True)
  assert workdir_lib.locate("run", checkpoints=False) == pathlib.Path("run")


@pytest.mark.parametrize("name", ["[a]", "a*", "a?", "a]"])
def test_patterns_are_no_folders_of_a_bucket(name):
  with pytest.raises(ValueError, match="would be taken for a pattern by clients of buckets"):
    workdir_lib.locate(f"gs://bucket/{name}/run", checkpoints=False)


def test_no_folder_is_refused():
  with pytest.raises(ValueError, match="--workdir is empty"):
    workdir_lib.locate("", checkpoints=False)
