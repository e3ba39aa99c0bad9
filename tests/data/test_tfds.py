"""The training sets built as array records, without tensorflow."""

import json
import pathlib
import pickle
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sejax import config as config_lib
from sejax.data import parquet, sources, tfds
from sejax.data.records import BadRecord
from tests import real_data


def hub_form(folder: pathlib.Path, **splits: list[dict]) -> pathlib.Path:
  (folder / "data").mkdir(parents=True)
  for split, rows in splits.items():
    path = folder / "data" / f"{split}-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
  return folder


def rows(count: int, **more) -> list[dict]:
  return [
    {"image": {"bytes": b"\xff%d" % i, "path": None}, "problem": f"é {i}?", "solution": str(i)}
    | more
    for i in range(count)
  ]


def same(built: tfds.TfdsSource, source: parquet.ParquetSource) -> bool:
  pairs = [((built[i], built.gold(i)), (source[i], source.gold(i))) for i in range(len(source))]
  return len(built) == len(source) > 0 and all(a == b for a, b in pairs)


def test_a_built_set_holds_what_the_files_hold(tmp_path):
  several = {"images": [b"1", b"2"], "problem": "<image><image>", "answer": "x"}
  none = {"images": [], "problem": "1+1?", "answer": None}
  many = [{"images": [b"%d" % i], "problem": f"{i}", "answer": f"{i}"} for i in range(30)]
  hub = hub_form(tmp_path / "hub", train=[several, none, *many], test=[none])
  info = tfds.build("geoqa", hub, tmp_path / "built")
  assert {s.name: s.num_examples for s in info.splits.values()} == {"train": 32, "test": 1}
  source = parquet.ParquetSource.open(hub, split="train")
  built = tfds.TfdsSource(tmp_path / "built", "geoqa", "train")
  assert same(built, source)
  assert same(pickle.loads(pickle.dumps(built)), source)
  assert repr(built) == "TfdsSource(name='geoqa', split='train', records=32)"
  part = tfds.TfdsSource(tmp_path / "built", "geoqa", "train[2:4]")
  assert [part[i].id for i in range(2)] == ["train/2", "train/3"]
  for index in (-1, 32):
    with pytest.raises(IndexError, match=f"no record {index}"):
      built[index]
  assert "tensorflow" not in sys.modules


def test_a_configuration_opens_it(tmp_path):
  tfds.build("geoqa", hub_form(tmp_path / "hub", train=rows(3)), tmp_path / "built")
  config = config_lib.default()
  config.data.update(source="tfds", path=str(tmp_path / "built"), name="geoqa")
  source = sources.open_source(config.data)
  assert (source.name, source[2].question, source.gold(2)) == ("geoqa", "é 2?", "2")


@pytest.mark.parametrize("name", ["geometry3k", "mmr1"])
def test_sizes_other_than_released_are_refused(tmp_path, name):
  hub = hub_form(tmp_path / "hub", train=rows(2), validation=rows(1))
  released = {"geometry3k": "test 601, train 2101, validation 300"}
  released["mmr1"] = "train 5782, validation 1451"
  with pytest.raises(ValueError, match=f"train 2, validation 1 rows; .*{released[name]}"):
    tfds.build(name, hub, tmp_path / "built")
  tfds.build(name, hub, tmp_path / "built", any_counts=True)
  assert len(tfds.TfdsSource(tmp_path / "built", name, "train")) == 2


def test_a_bad_record_stops_or_is_skipped(tmp_path, caplog):
  bad = rows(1, problem="<image><image>")
  hub = hub_form(tmp_path / "hub", train=rows(2) + bad + rows(1))
  with pytest.raises(BadRecord, match=r"record train/2: .*<image> 2 times for 1 images"):
    tfds.build("geoqa", hub, tmp_path / "built")
  with caplog.at_level("WARNING"):
    tfds.build("geoqa", hub, tmp_path / "built", on_bad_record="skip")
  assert "train/2" in caplog.text
  assert "skipped in all wrong number of images 1" in caplog.text
  built = tfds.TfdsSource(tmp_path / "built", "geoqa", "train")
  assert [built[i].id for i in range(3)] == ["train/0", "train/1", "train/3"]
  with pytest.raises(ValueError, match="on_bad_record='ignore' must be one of stop, skip"):
    tfds.Geoqa(data_dir=tmp_path, on_bad_record="ignore")


def test_a_bad_answer_stops_or_is_skipped_without_its_record(tmp_path, caplog):
  several = [{**row, "solution": ["7", "8"]} for row in rows(1)]
  lists = [{**row, "solution": ["7"]} for row in rows(1)]
  hub = hub_form(tmp_path / "hub", train=lists + several)
  with pytest.raises(BadRecord, match=r"record train/1: its solution is \['7', '8'\]"):
    tfds.build("geoqa", hub, tmp_path / "built")
  with caplog.at_level("WARNING"):
    tfds.build("geoqa", hub, tmp_path / "built", on_bad_record="skip")
  assert "skipped in all bad answer 1" in caplog.text
  built = tfds.TfdsSource(tmp_path / "built", "geoqa", "train")
  assert [(built[i].id, built.gold(i)) for i in range(2)] == [("train/0", "7"), ("train/1", None)]


def test_what_cannot_be_opened_or_built_is_said(tmp_path):
  with pytest.raises(ValueError, match=r"geoqa is not built in .*sejax\.data\.tfds --name=geoqa"):
    tfds.TfdsSource(tmp_path / "built", "geoqa", "train")
  with pytest.raises(ValueError, match="name='coco' must be one of geometry3k, geoqa, mmr1"):
    tfds.TfdsSource(tmp_path / "built", "coco", "train")
  with pytest.raises(ValueError, match=r"not a directory; Download .*GEOQA_R1V_Train_8K"):
    tfds.build("geoqa", tmp_path / "absent", tmp_path / "built")
  hub = hub_form(tmp_path / "hub", train=rows(2))
  tfds.build("geoqa", hub, tmp_path / "built")
  with pytest.raises(ValueError, match="is there already; remove it"):
    tfds.build("geoqa", hub, tmp_path / "built")
  with pytest.raises(ValueError, match="Unknown split 'val'"):
    tfds.TfdsSource(tmp_path / "built", "geoqa", "val")


def run(*arguments: object) -> subprocess.CompletedProcess:
  command = [sys.executable, "-m", "sejax.data.tfds", *map(str, arguments)]
  return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.long
@real_data.needed
def test_the_command_builds_the_real_geometry3k_sample(tmp_path):
  hub = pathlib.Path(real_data.DATA) / "geometry3k" / "hub_form"
  arguments = ["--name=geometry3k", f"--source={hub}", f"--data_dir={tmp_path}"]
  refused = run(*arguments)
  assert refused.returncode == 2
  assert "holds test 40, train 106, validation 20 rows" in refused.stderr.splitlines()[-1]
  done = run(*arguments, "--any_counts")
  assert done.returncode == 0, done.stderr
  assert "geometry3k train: 106 records" in done.stdout
  for split in ("train", "validation", "test"):
    source = parquet.ParquetSource.open(hub, split=split)
    assert same(tfds.TfdsSource(tmp_path, "geometry3k", split), source)
  info = json.loads((tmp_path / "geometry3k" / "1.0.0" / "dataset_info.json").read_text())
  assert info["redistributionInfo"] == {"license": "MIT"}
  assert "Inter-GPS" in info["citation"]
