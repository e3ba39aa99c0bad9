"""JSON lines with image files beside them."""

import json
import pathlib
import pickle

import pytest

from sejax.data import jsonl
from sejax.data.records import BadRecord
from tests import real_data


def opened(path: pathlib.Path, *lines: str | bytes | dict, **options) -> jsonl.JsonlSource:
  encoded = [json.dumps(line) if isinstance(line, dict) else line for line in lines]
  encoded = [line.encode() if isinstance(line, str) else line for line in encoded]
  path.write_bytes(b"\n".join(encoded))
  return jsonl.JsonlSource(path, **options)


def test_fields(tmp_path):
  (tmp_path / "images").mkdir()
  for name in "ab":
    (tmp_path / "images" / name).write_bytes(name.encode())
  source = opened(
    tmp_path / "set.jsonl",
    {"id": 7, "question": "é?", "image": "images/a", "answer": "A"},
    {"problem": "<image><image>", "images": ["images/b", "images/a"], "solution": 5},
    {"id": "x", "question": "1+1?", "image": "", "answer": None},
    {"question": "1+1?", "choices": ["1", "2"]},
  )
  records = [source[i] for i in range(4)]
  assert [r.id for r in records] == ["7", "set/2", "x", "set/4"]
  assert [r.question for r in records] == ["é?", "<image><image>", "1+1?", "1+1?"]
  assert [r.images for r in records] == [(b"a",), (b"b", b"a"), (), ()]
  assert [source.gold(i) for i in range(4)] == ["A", "5", None, None]
  assert (source.name, len(source)) == ("set", 4)


def test_blank_lines_marks_and_line_ends(tmp_path):
  first, second = ({"question": str(i)} for i in range(2))
  lines = [b"\xef\xbb\xbf" + json.dumps(first).encode() + b"\r", b"", b"  ", second, b""]
  source = opened(tmp_path / "set.jsonl", *lines)
  assert [(source[i].id, source[i].question) for i in range(2)] == [("set/1", "0"), ("set/4", "1")]
  assert len(source) == 2


def test_bad_lines_are_named_and_the_others_kept(tmp_path):
  bad = {
    "{broken": "unreadable line",
    "[1, 2]": "unreadable line",
    "[" * 100_000: "unreadable line",
    b"\xff\xfe": "unreadable line",
    '{"image": "a"}': "bad question",
    '{"question": 5}': "bad question",
    '{"question": "\\ud800"}': "bad question",
    '{"question": ""}': "bad question",
    '{"question": "?", "image": "absent"}': "missing image",
    '{"question": "?", "images": [""]}': "missing image",
    '{"question": "?", "image": {"url": "a"}}': "bad image value",
    '{"question": "?", "image": "../a"}': "path outside the folder",
    '{"question": "<image>?"}': "wrong number of images",
  }
  source = opened(tmp_path / "set.jsonl", *bad, {"question": "good"})
  for index, kind in enumerate(bad.values()):
    with pytest.raises(BadRecord, match=f"record set/{index + 1}: ") as caught:
      source[index]
    assert caught.value.kind == kind, caught.value
  assert source[len(bad)].question == "good"


def test_an_image_folder_can_be_given(tmp_path):
  (tmp_path / "pictures").mkdir()
  (tmp_path / "pictures" / "a").write_bytes(b"a")
  line = {"question": "?", "image": "a"}
  source = opened(tmp_path / "set.jsonl", line, name="other", folder=tmp_path / "pictures")
  assert (source[0].images, source.name) == ((b"a",), "other")


def test_a_sent_source_reads_the_same(tmp_path):
  source = opened(tmp_path / "set.jsonl", *({"question": str(i)} for i in range(9)))
  sent = pickle.loads(pickle.dumps(source))
  assert [sent[i] for i in (8, 0, 4)] == [source[i] for i in (8, 0, 4)]
  assert repr(sent) == repr(source) == "JsonlSource(name='set', records=9)"


def test_indices_out_of_range_and_absent_files(tmp_path):
  source = opened(tmp_path / "set.jsonl", {"question": "?"})
  for index in (-1, 1):
    with pytest.raises(IndexError, match=f"no record {index}"):
      source[index]
  with pytest.raises(ValueError, match=r"absent\.jsonl is not a file"):
    jsonl.JsonlSource(tmp_path / "absent.jsonl")


@pytest.mark.long
@real_data.needed
@pytest.mark.parametrize(
  ("path", "rows", "with_image"),
  [
    ("geometry3k/problems.jsonl", 366, 366),
    ("mathvision_testmini/testmini.jsonl", 304, 304),
    ("mathvision_testmini/odd.jsonl", 13, 13),
    ("mathvision_testmini/test_text_only.jsonl", 3040, 317),
    ("dynamath/variants.jsonl", 370, 370),
    ("dynamath/all_text_only.jsonl", 5010, 0),
    ("logicvista/problems.jsonl", 161, 161),
    ("mathverse_text/testmini_text_only.jsonl", 788, 0),
    ("mathverse_text/five_versions_sample.jsonl", 5, 0),
  ],
)
def test_real_sets_load_as_they_are(path, rows, with_image):
  path = pathlib.Path(real_data.DATA) / path
  source = jsonl.JsonlSource(path)
  lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
  assert len(source) == len(lines) == rows
  found = 0
  for index, line in enumerate(lines):
    image = path.parent / (line.get("image") or "")
    if line.get("image") and not image.is_file():  # the pack holds a part of the images
      with pytest.raises(BadRecord, match="no file") as caught:
        source[index]
      assert caught.value.kind == "missing image"
      continue
    record = source[index]
    assert record.question == line["question"]
    assert record.images == ((image.read_bytes(),) if line.get("image") else ())
    assert source.gold(index) == ((line["answer"] or "").strip() or None)
    found += len(record.images)
  assert found == with_image
