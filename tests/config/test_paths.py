"""What a run reads in a bucket, and where its local copy is then."""

import os
import pathlib

import pytest

from sejax import config as config_lib


@pytest.fixture
def local(bucket, monkeypatch, tmp_path):
  """Returns what makes a local copy of what a field names; other fields are given by name."""
  monkeypatch.setenv("SEJAX_CACHE", str(tmp_path / "cache"))

  def copy(name, path, **fields):
    config = config_lib.default()
    config.update_from_flattened_dict({name: os.fspath(path)} | fields)
    copied = config_lib.with_local_inputs(config, [name], {})
    section, field = name.split(".")
    return pathlib.Path(copied[section][field])

  return copy


def put(folder, *names):
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(name)


@pytest.mark.long
def test_pictures_come_with_the_file_that_names_them(local, bucket):
  put(bucket / "set", "a.jsonl", "pictures/1.png")
  file = local("data.path", bucket / "set" / "a.jsonl", **{"data.source": "jsonl"})
  assert file.read_text() == "a.jsonl"
  assert (file.parent / "pictures" / "1.png").exists()
  own = {"data.source": "jsonl", "data.image_folder": "elsewhere"}
  file = local("data.path", bucket / "set" / "a.jsonl", **own)
  assert [path.name for path in file.parent.iterdir()] == ["a.jsonl"]


def test_no_bucket_is_copied_whole(local, bucket):
  put(bucket, "a.jsonl")
  with pytest.raises(ValueError, match="lies at the top of its bucket, all of which would be cop"):
    local("data.path", bucket / "a.jsonl", **{"data.source": "jsonl"})


def test_one_built_data_set_is_copied_of_many(local, bucket):
  put(bucket / "built", "geometry3k/1.0.0/features.json", "geoqa/1.0.0/features.json")
  fields = {"data.source": "tfds", "data.name": "geometry3k"}
  folder = local("data.path", bucket / "built", **fields)
  assert [path.name for path in folder.iterdir()] == ["geometry3k"]
  assert (folder / "geometry3k" / "1.0.0" / "features.json").exists()


def test_predictions_come_with_the_lines_that_wait_beside_them(local, bucket):
  put(bucket / "run", "problems.jsonl", "scores.json")
  assert os.listdir(local("eval.predictions", bucket / "run" / "problems.jsonl").parent) == [
    "problems.jsonl"
  ]
  put(bucket / "run", "problems.jsonl.parts/00000000.jsonl")
  file = local("eval.predictions", bucket / "run" / "problems.jsonl")
  assert (file.parent / "problems.jsonl.parts" / "00000000.jsonl").exists()
