"""Which columns make a record, row by row, and what may stand in them."""

import decimal
import pathlib
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sejax.data import columns, parquet
from sejax.data.records import BadRecord

NO_FOLDER = pathlib.Path("nowhere")
NONE = {"bytes": None, "path": None}  # as the hub writes an image that is not there


def record(**row):
  return columns.read_record("r/1", {"question": "What?"} | row, NO_FOLDER)


def gold(**row):
  return columns.read_gold("r/1", row)


def refused(kind, match, call, **row):
  with pytest.raises(BadRecord, match=match) as caught:
    call(**row)
  assert caught.value.kind == kind
  assert len(str(caught.value)) <= 300


@pytest.mark.parametrize("nothing", [None, "", " ", [], NONE, [None], [NONE], float("nan"), b""])
def test_a_column_without_a_value_hides_no_other(nothing):
  assert record(images=nothing, image=b"png").images == (b"png",)
  assert record(image=nothing, images=[b"png"]).images == (b"png",)
  assert record(problem=nothing).question == "What?"
  assert gold(answer=nothing, solution="7") == "7"
  assert gold(answer=nothing, solution=nothing) is None


def test_each_row_of_a_file_has_its_own_columns(tmp_path):
  rows = [
    {"images": None, "image": b"1", "problem": None, "question": "a", "answer": None},
    {"images": [b"2"], "image": None, "problem": "b", "question": None, "answer": "B"},
  ]
  rows[0]["solution"], rows[1]["solution"] = "A", None
  pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set.parquet")
  source = parquet.ParquetSource.open(tmp_path / "set.parquet", split="train")
  assert [source[i].question for i in range(2)] == ["a", "b"]
  assert [source[i].images for i in range(2)] == [(b"1",), (b"2",)]
  assert [source.gold(i) for i in range(2)] == ["A", "B"]


def test_a_list_of_nulls_alone_is_a_missing_image():
  for name in columns.IMAGES:
    refused("missing image", "null or empty", record, **{name: [None]})
    refused("missing image", "null or empty", record, **{name: [NONE]})
  refused("missing image", "null or empty", record, images=None, image=[NONE])


@pytest.mark.parametrize(
  ("value", "text"),
  [
    (["7"], "7"),
    (("7",), "7"),
    ({"value": "7"}, "7"),
    ({"value": "7", "unit": None}, "7"),
    ([["7"]], "7"),
    ([{"value": [7]}], "7"),
    ([None, "7"], "7"),
    (["<answer> 7 </answer>"], "7"),
    (np.array(["7"]), "7"),
    (np.array([[7]]), "7"),
    (np.array("7"), "7"),
    ([], None),
    ({"value": None}, None),
    ([""], None),
    (7, "7"),
    (7.0, "7"),
    (-0.0, "0"),
    (0.25, "0.25"),
    (np.int64(7), "7"),
    (np.float32(0.1), "0.1"),
    (np.float64(7), "7"),
    (2**70, str(2**70)),
    (decimal.Decimal("7.50"), "7.50"),
    (True, "True"),
    (np.bool_(False), "False"),
    (0, "0"),
    (False, "False"),
    (float("nan"), None),
    (np.float32("nan"), None),
    ("['7']", "['7']"),
  ],
)
def test_a_gold_answer_is_the_only_entry(value, text):
  for name in columns.ANSWER:
    assert gold(**{name: value}) == text


@pytest.mark.parametrize(
  "value",
  [
    ["7", "8"],
    ["7", "7"],
    {"value": "7", "aliases": ["seven"]},
    [["7", "8"]],
    np.array(["7", "8"]),
    ["x" * 1000] * 100,
    b"7",
    object(),
  ],
)
def test_any_other_gold_answer_is_refused_by_its_column(value):
  for name in columns.ANSWER:
    refused("bad answer", f"record r/1: its {name} is ", gold, **{name: value})


def test_gold_answers_of_lists_in_a_file(tmp_path):
  rows = [{"image": b"1", "question": "?", "answer": value} for value in (["7"], ["7", "8"], [])]
  pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set.parquet")
  source = parquet.ParquetSource.open(tmp_path / "set.parquet", split="train")
  assert (source.gold(0), source.gold(2)) == ("7", None)
  with pytest.raises(BadRecord, match=r"record set/1: its answer is \['7', '8'\], with 2 entries"):
    source.gold(1)


@pytest.mark.parametrize("form", ["image_{}", "image{}", "images_{}", "image-{}", "image_0{}"])
def test_numbered_columns_are_read_in_the_order_of_their_numbers(form):
  row = {form.format(n): b"%d" % n for n in (10, 2, 1)}
  assert record(**row).images == (b"1", b"2", b"10")


def test_numbered_columns_as_mmmu_has_them():
  row = {f"image_{n}": NONE if n > 2 else {"bytes": b"%d" % n, "path": "x"} for n in range(1, 8)}
  assert record(**row, images=None).images == (b"1", b"2")
  assert record(image_0=b"0", image_1=None, image_2=[b"2"]).images == (b"0", b"2")
  assert record(image_1=None, image_2=NONE).images == ()


def test_numbered_columns_of_a_file(tmp_path):
  rows = [
    {"question": "<image 1> or <image 2>?", "image_2": b"2", "image_1": b"1", "image_3": None},
    {"question": "What?", "image_2": None, "image_1": b"1", "image_3": None},
  ]
  pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set.parquet")
  source = parquet.ParquetSource.open(tmp_path / "set.parquet", split="train")
  assert source[0].question == "<image> or <image>?"
  assert [source[i].images for i in range(2)] == [(b"1", b"2"), (b"1",)]


@pytest.mark.parametrize(
  "row",
  [
    {"image": b"a", "image_1": b"b"},
    {"images": [b"a"], "image2": b"b"},
    {"image_1": b"a", "image1": b"b"},
  ],
)
def test_columns_in_no_clear_order_are_refused(row):
  refused("wrong number of images", f"images in {', '.join(row)};", record, **row)


@pytest.mark.parametrize(
  ("question", "row", "text"),
  [
    ("<image 1> or <image 2>?", {"image_1": b"1", "image_2": b"2"}, "<image> or <image>?"),
    ("<image1> or <image_2>?", {"image_1": b"1", "image_2": b"2"}, "<image> or <image>?"),
    ("<|image_1|> or <|image_2|>?", {"image_1": b"1", "image_2": b"2"}, "<image> or <image>?"),
    ("<image 2>?", {"image_1": None, "image_2": b"2"}, "<image>?"),
    ("<image 0>?", {"image_0": b"0"}, "<image>?"),
    ("<image 1> or <image 2>?", {"images": [b"1", b"2"]}, "<image> or <image>?"),
    ("<image 1>?", {"image": b"1"}, "<image>?"),
    ("What?", {"image_1": b"1", "image_2": b"2"}, "What?"),
    # MathVision's one image has parts of these names.
    ("<image1> or <image2>?", {"image": b"1"}, "<image1> or <image2>?"),
  ],
)
def test_numbered_places_become_places(question, row, text):
  assert record(question=question, **row).question == text


@pytest.mark.parametrize(
  ("question", "row"),
  [
    ("<image 2> or <image 1>?", {"image_1": b"1", "image_2": b"2"}),
    ("<image 1> and <image 1>?", {"image_1": b"1", "image_2": b"2"}),
    ("<image 1>?", {"image_1": b"1", "image_2": b"2"}),
    ("<image 3>?", {"image_1": b"1"}),
    ("<image 1> or <image>?", {"image_1": b"1", "image_2": b"2"}),
    ("<image 1>?", {"image": None}),
    ("<image 2>?", {"image": b"1"}),
    ("<image1>?", {"image_2": b"2"}),
  ],
)
def test_numbered_places_that_do_not_fit_are_refused(question, row):
  named = re.search(r"<image ?\d>", question)[0]
  refused("wrong number of images", f"says {named}", record, question=question, **row)


def test_values_of_any_size_are_quoted_in_short():
  long = "x" * 700_000
  for kind, row in (
    ("bad question", {"problem": [long]}),
    ("bad question", {"question": None, long: 1}),
    ("missing image", {"image": long}),
    ("missing image", {"image": f"{'a' * 200}/{'b' * 200}.png"}),
    ("path outside the folder", {"image": f"../{long}"}),
    ("bad image value", {"image": {"url": long}}),
    ("wrong number of images", {"question": "<image 1>" * 9000, "image": b"1"}),
  ):
    refused(kind, "record r/1: ", record, **row)
  refused("bad answer", "its answer is ", gold, answer=[long, long])
  with pytest.raises(BadRecord) as caught:
    columns.read_record(long, {"question": 5}, NO_FOLDER)
  assert len(str(caught.value)) < 300
