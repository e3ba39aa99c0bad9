"""Files on a disk and in a bucket do the same."""

import pathlib
import threading
import time

import pytest

from sejax import storage


@pytest.fixture(params=["disk", "bucket"])
def folder(request, tmp_path):
  """A folder of each kind."""
  if request.param == "disk":
    return storage.Path(tmp_path)
  return request.getfixturevalue("bucket") / "folder"


def test_a_text_replaces_another(folder):
  path = folder / "a.txt"
  for text in ("ä\n", "", "\ud800 is escaped"):
    storage.write_text(path, text)
  assert path.read_bytes() == b"\\ud800 is escaped"
  assert [file.name for file in folder.iterdir()] == ["a.txt"]


def test_one_of_many_creates_a_file(folder):
  path, won = folder / "lock", []

  def create(number):
    if storage.create(path, str(number)):
      won.append(number)

  threads = [threading.Thread(target=create, args=(n,)) for n in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(won) == 1
  assert path.read_text() == str(won[0])


def test_a_file_ages_until_it_is_renewed(folder):
  path = folder / "lock"
  storage.write_text(path, "owner")
  time.sleep(0.5)
  assert 0.4 < storage.age(path) < 5
  storage.renew(path)
  assert storage.age(path) < 0.4
  assert path.read_text() == "owner"
  path.unlink()
  with pytest.raises(FileNotFoundError):
    storage.age(path)
  assert list(folder.glob("*")) == []


@pytest.mark.parametrize("name", ["plain", "q[1]", "st*", "wh?t", "deep/q[1]"])
def test_a_pattern_is_of_what_lies_in_a_folder_not_of_its_name(folder, name):
  files = ("a.parquet", ".b.parquet", "data/c.parquet", ".cache/d.parquet", "x/y/e.parquet")
  for place in (name, "stone", "what", "q1", "deep/q1"):
    for file in files:
      path = folder / place / file
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(place)
  expected = {
    "a.parquet": ["a.parquet"],
    "*": ["a.parquet", "data", "x"],
    "*.parquet": ["a.parquet"],
    "*/*.parquet": ["data/c.parquet"],
    "[a-d]*/c.parquet": ["data/c.parquet"],
    "**/*.parquet": ["a.parquet", "data/c.parquet", "x/y/e.parquet"],
    "x/**/[!a].parquet": ["x/y/e.parquet"],
    ".cache/*": [".cache/d.parquet"],
    "none*": [],
  }
  for pattern, names in expected.items():
    assert storage.glob(folder / name, pattern) == [folder / name / n for n in names], pattern


def test_a_missing_folder_has_nothing_that_matches(folder):
  assert storage.glob(folder / "none", "*") == []


def test_paths_of_this_machine_may_be_given_as_pathlib_has_them(tmp_path):
  storage.write_text(pathlib.Path(tmp_path / "a"), "text")
  assert (tmp_path / "a").read_text() == "text"


@pytest.mark.parametrize(
  ("scheme", "package", "extra"), [("gs", "gcsfs", "gcs"), ("s3", "s3fs", "s3")]
)
def test_a_missing_package_is_named_with_what_installs_it(monkeypatch, scheme, package, extra):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  message = (
    rf"config.data.path={scheme}://bucket/set needs the package {package}, which is not installed;"
    rf" run `pip install 'sejax\[{extra}\]'`"
  )
  with pytest.raises(ValueError, match=message):
    storage.expand("config.data.path", f"{scheme}://bucket/set")
