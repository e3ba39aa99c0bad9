"""A configuration's section `data` to its source."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sejax import config as config_lib
from sejax.config import validation
from sejax.data import sources


def section(**fields):
  config = config_lib.default()
  config.data.update(fields)
  return config


def test_the_default_needs_no_file():
  validation.validate(config_lib.default())


@pytest.mark.parametrize("source", ["parquet", "jsonl", "tfds"])
def test_a_source_of_files_needs_a_path(source):
  config = section(source=source)
  with pytest.raises(config_lib.ConfigError, match=r"config\.data\.path='' must be a file"):
    validation.validate(config)
  with pytest.raises(ValueError, match="path='' must be a file"):
    sources.open_source(config.data)


def test_an_unknown_source_is_refused():
  config = section(source="webdataset", path="x")
  match = r"config\.data\.source='webdataset' must be one of figures, jsonl, parquet, tfds"
  with pytest.raises(config_lib.ConfigError, match=match):
    validation.validate(config)


def test_parquet_and_jsonl(tmp_path):
  (tmp_path / "pictures").mkdir()
  (tmp_path / "pictures" / "a").write_bytes(b"a")
  row = {"image": "a", "question": "What?", "answer": "A"}
  (tmp_path / "lines.jsonl").write_text(json.dumps(row))
  (tmp_path / "hub").mkdir()
  pq.write_table(pa.Table.from_pylist([row]), tmp_path / "hub" / "test.parquet")
  paths = {"jsonl": "lines.jsonl", "parquet": "hub"}
  for kind, path in paths.items():
    config = section(
      source=kind,
      path=str(tmp_path / path),
      split="test",
      name="mine",
      image_folder=str(tmp_path / "pictures"),
    )
    validation.validate(config)
    source = sources.open_source(config.data)
    assert (source.name, len(source)) == ("mine", 1)
    assert (source[0].question, source[0].images, source.gold(0)) == ("What?", (b"a",), "A")


def test_figures_open_as_configured():
  data = config_lib.default().data
  data.split = "heldout"
  data.figures.families = {"dots": 1.0}
  data.figures.levels = (0,)
  source = sources.open_source(data)
  assert len(source) == data.figures.length
  assert source[3].id == "figures/heldout/3"
  assert {source.problem(i).family for i in range(5)} == {"dots"}
  assert source.gold(3) == source.problem(3).answer
