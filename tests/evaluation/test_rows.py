"""Rows of every kind of file, and the images of problems as the model's pipeline reads them."""

import base64
import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sejax import storage
from sejax.data import columns
from sejax.evaluation import rows
from sejax.evaluation.benchmarks import BENCHMARKS
from tests import real_data

PICTURE = bytes(range(256)) * 2
ROW = {"question": 'Which?\nSay "a"', "answer": "A", "skill": "spatial"}


def problems(path, name="logicvista", protocol="authors"):
  benchmark = BENCHMARKS[name]
  return rows.read_problems([path], benchmark, benchmark.protocol(protocol)[1])


def test_one_problem_in_four_kinds_of_files(tmp_path):
  image = {"bytes": PICTURE, "path": "1.png"}
  path = tmp_path / "set"
  path.with_suffix(".jsonl").write_text(json.dumps({**ROW, "id": "1", "image": "1.png"}) + "\n\n")
  path.with_suffix(".json").write_text(json.dumps({"1": {**ROW, "image": "1.png"}}))
  quoted = ROW["question"].replace('"', '""')
  path.with_suffix(".tsv").write_text(
    f'index\timage\tquestion\tanswer\tskill\n1\t{base64.b64encode(PICTURE).decode()}\t"{quoted}"'
    "\tA\tspatial\n"
  )
  table = {name: [value] for name, value in {**ROW, "id": "1", "images": [image]}.items()}
  pq.write_table(pa.table(table), path.with_suffix(".parquet"))
  (tmp_path / "1.png").write_bytes(PICTURE)

  for suffix in (".jsonl", ".json", ".tsv", ".parquet"):
    (problem,) = problems(path.with_suffix(suffix))
    assert (problem.id, problem.question, problem.gold) == ("1", ROW["question"], "A")
    assert problem.tags == {"skill": "spatial"}
    record = columns.read_record(
      "1", {"question": problem.question, "images": list(problem.images)}, tmp_path
    )
    assert record.images == (PICTURE,)


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("a.txt", "", r"must end in .jsonl, .json, .tsv, .parquet"),
    ("a.jsonl", "{", "cannot be read"),
    ("a.jsonl", "[1]", "row 1 is not a JSON object"),
    ("a.jsonl", '{"question": "q"}', "needs id or key or index"),
    ("a.jsonl", '{"id": 1}\n{"id": 1}', "two problems have the id 1"),
    ("a.parquet", "x", "cannot be read"),
  ],
)
def test_files_that_hold_no_problems_are_named(name, content, message, tmp_path):
  (tmp_path / name).write_text(content)
  with pytest.raises(ValueError, match=message) as raised:
    problems(tmp_path / name)
  assert name in str(raised.value)


def test_the_first_pattern_that_is_there_counts_and_all_its_files_do(tmp_path):
  benchmark = BENCHMARKS["dynamath"]
  for number in (2, 10):
    path = tmp_path / "dynamath" / f"sample_variant{number}-00000-of-00001.parquet"
    path.parent.mkdir(exist_ok=True)
    row = {"id": "7", "question": "q", "ground_truth": "1", "answer_type": "float"}
    pq.write_table(pa.table({name: [value] for name, value in row.items()}), path)
  (tmp_path / "dynamath" / "variants.jsonl").write_text("{}")
  files = rows.find_files(str(tmp_path), benchmark)
  found = rows.read_problems(files, benchmark, benchmark.protocols["toolkit"])
  assert sorted(problem.id for problem in found) == ["7/10", "7/2"]


@pytest.mark.parametrize("place", ["bucket", "copy"])
@pytest.mark.parametrize("merged", [0, 1, 2])
def test_predictions_in_parts_are_read_whole(place, merged, bucket, monkeypatch, tmp_path):
  """`merged` lines are in the file itself; at 2, a killed process has left one in a part, too."""
  monkeypatch.setenv("SEJAX_CACHE", str(tmp_path))
  folder = bucket / "run"
  texts = [json.dumps({"id": str(n), "sample": 0, "response": "A"}) + "\n" for n in range(3)]
  file = folder / "logicvista" / "problems.jsonl"
  if merged:
    storage.write_text(file, "".join(texts[:merged]))
  part = folder / "logicvista" / "problems.jsonl.parts" / "00000000.jsonl"
  part.write_text("".join(texts[min(merged, 1) :]))
  if place == "copy":
    folder = storage.Path(storage.local_copy("config.eval.predictions", str(folder)))
  found = rows.find_predictions(str(folder), "logicvista")
  assert [row["id"] for row in rows.read(found)] == ["0", "1", "2"]
  assert [row["row"] for row in rows.read(found)] == [f"problems/{n}" for n in range(3)]


def test_a_byte_order_mark_and_blank_lines_are_skipped(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_bytes(b'\xef\xbb\xbf{"x": 1}\r\n\r\n{"x": 2}')
  assert [row["x"] for row in rows.read(path)] == [1, 2]


@real_data.needed
@pytest.mark.parametrize(
  ("name", "file", "number"),
  [
    ("mathvision", "mathvision_testmini/testmini.jsonl", 304),
    ("mathvision", "mathvision_testmini/odd.jsonl", 13),
    ("dynamath", "dynamath/variants.jsonl", 370),
    ("logicvista", "logicvista/problems.jsonl", 161),
    ("geometry3k", "geometry3k/problems.jsonl", 220),
    ("geometry3k", "geometry3k/hub_form/data/test-00000-of-00001.parquet", 40),
  ],
)
def test_every_prompt_and_picture_makes_a_record(name, file, number):
  path = pathlib.Path(real_data.DATA) / file
  found = problems(path, name, "toolkit" if name != "logicvista" else "authors")
  assert len(found) == number
  _, protocol = BENCHMARKS[name].protocol("toolkit")
  for problem in found:
    row = {"question": protocol.prompt(problem), "images": list(problem.images)}
    record = columns.read_record(problem.id, row, path.parent)
    assert len(record.images) == 1
    assert problem.question.strip()[-20:] in record.question
