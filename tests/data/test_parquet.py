"""Parquet sources: the forms of the published sets, and every bad kind named."""

import os
import pathlib
import pickle
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sejax.data import images, parquet
from sejax.data.records import BadRecord
from tests import real_data


def write(path: pathlib.Path, rows: list[dict], row_group_size: int | None = None) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_size)
  return path


def opened(path: pathlib.Path, rows: list[dict], **options) -> parquet.ParquetSource:
  return parquet.ParquetSource.open(write(path, rows), split="train", **options)


def file(content: bytes | None, path: str | None = None) -> dict:
  return {"bytes": content, "path": path}


def numbered(count: int, start: int = 0) -> list[dict]:
  return [
    {"images": [file(b"image %d" % i)], "problem": f"<image>{i}?", "answer": str(i)}
    for i in range(start, start + count)
  ]


def refused(source: parquet.ParquetSource, index: int, kind: str, match: str) -> None:
  with pytest.raises(BadRecord, match=match) as caught:
    source[index]
  assert caught.value.kind == kind


@pytest.mark.parametrize(
  "value",
  [
    [file(b"png")],
    file(b"png"),
    file(b"png", "ignored/when/there/are/bytes"),
    [b"png"],
    b"png",
    ["a.png"],
    "a.png",
    file(None, "a.png"),
    [file(None, "sub/../a.png")],
  ],
)
@pytest.mark.parametrize("column", ["images", "image"])
def test_images_of_every_form(tmp_path, column, value):
  (tmp_path / "a.png").write_bytes(b"png")
  (tmp_path / "sub").mkdir()
  source = opened(tmp_path / "set.parquet", [{column: value, "question": "What?"}])
  assert source[0].images == (b"png",)
  assert (source[0].id, source[0].question) == ("set/0", "What?")


def test_rows_without_images(tmp_path):
  rows = [
    {"images": None, "problem": "1+1?"},
    {"images": [], "problem": "1+1?"},
    {"images": [file(b"png")], "problem": "1?"},
  ]
  source = opened(tmp_path / "set.parquet", rows)
  assert [len(source[i].images) for i in range(3)] == [0, 0, 1]


def test_several_images_keep_their_order(tmp_path):
  rows = [{"images": [file(b"1"), file(b"2")], "problem": "<image> and <image>"}]
  source = opened(tmp_path / "set.parquet", rows)
  assert source[0].images == (b"1", b"2")


@pytest.mark.parametrize(
  ("column", "value", "gold"),
  [
    ("answer", "8.94", "8.94"),
    ("answer", "4 \\sqrt { 2 } ", "4 \\sqrt { 2 }"),
    ("solution", "<answer> 145° </answer>", "145°"),
    ("solution", "So <answer>1</answer>, no, <answer>\n2\n</answer>", "2"),
    ("answer", 7, "7"),
    ("answer", None, None),
    ("answer", "", None),
    ("other", "8", None),
  ],
)
def test_gold(tmp_path, column, value, gold):
  rows = [{"image": file(b"png"), "problem": "?", column: value}]
  assert opened(tmp_path / "set.parquet", rows).gold(0) == gold


def test_the_first_of_two_names_counts(tmp_path):
  row = {"images": [b"1"], "image": b"2", "problem": "p", "question": "q"}
  row |= {"answer": "a", "solution": "s"}
  source = opened(tmp_path / "set.parquet", [row])
  assert (source[0].question, source[0].images, source.gold(0)) == ("p", (b"1",), "a")


@pytest.mark.parametrize("number", [1, 3])
def test_a_wrong_number_of_images_is_refused(tmp_path, number):
  rows = [{"images": [file(b"png")] * number, "problem": "<image> or <image>?"}]
  source = opened(tmp_path / "train-00000-of-00001.parquet", rows)
  refused(source, 0, "wrong number of images", f"train/0: .*<image> 2 times for {number} images")


def test_bad_values_are_refused_and_the_others_kept(tmp_path):
  rows = [
    {"images": [file(None)], "problem": "?"},
    {"images": [file(b"")], "problem": "?"},
    {"images": [None], "problem": "?"},
    {"images": [file(None, "absent.png")], "problem": "?"},
    {"images": [file(b"png")], "problem": None},
    {"images": [], "problem": " "},
    {"images": [file(b"png")], "problem": "?"},
  ]
  source = opened(tmp_path / "set.parquet", rows)
  for index in range(3):
    refused(source, index, "missing image", f"record set/{index}: .*null or empty")
  refused(source, 3, "missing image", "no file 'absent.png'")
  refused(source, 4, "bad question", "set/4: its problem is None")
  refused(source, 5, "bad question", "neither a text nor an image")
  assert source[6].images == (b"png",)


def test_image_values_of_another_kind_are_refused(tmp_path):
  source = opened(tmp_path / "set.parquet", [{"image": 5, "problem": "?"}])
  refused(source, 0, "bad image value", "an image is 5; it must be")


def test_names_of_images_do_not_leave_the_folder_and_links_may(tmp_path):
  folder = tmp_path / "set"
  (folder / "images").mkdir(parents=True)
  secret = tmp_path / "secret.png"
  secret.write_bytes(b"secret")
  (tmp_path / "set-2").mkdir()
  (tmp_path / "set-2" / "a.png").write_bytes(b"secret")
  (tmp_path / "blob").write_bytes(b"png")
  (folder / "link.png").symlink_to("../blob")
  (folder / "up").symlink_to(tmp_path)
  (folder / "images" / "a.png").write_bytes(b"png")
  (folder / "loop").symlink_to(folder / "loop")
  os.mkfifo(folder / "pipe")
  outside = ["../secret.png", str(secret), "../set-2/a.png", "images/../../secret.png"]
  unreadable = ["images", "loop", "nul\0.png", "pipe", "."]
  inside = ["link.png", "up/blob", str(folder / "images" / "a.png")]
  rows = [{"image": p, "problem": "?"} for p in (*outside, *unreadable, *inside)]
  source = opened(folder / "set.parquet", rows)
  for index in range(len(outside)):
    refused(source, index, "path outside the folder", f"set/{index}: .*leads out of")
  for index in range(len(outside), len(outside) + len(unreadable)):
    refused(source, index, "missing image", f"set/{index}: ")
  for index in range(len(outside) + len(unreadable), len(rows)):
    assert source[index].images == (b"png",)


def test_a_folder_of_images_can_be_given(tmp_path):
  (tmp_path / "pictures").mkdir()
  (tmp_path / "pictures" / "a.png").write_bytes(b"png")
  rows = [{"image": "a.png", "problem": "?"}]
  source = opened(tmp_path / "set.parquet", rows, folder=tmp_path / "pictures")
  assert source[0].images == (b"png",)


@pytest.mark.parametrize("place", ["", "data"])
def test_splits_of_a_directory(tmp_path, place):
  write(tmp_path / place / "train-00000-of-00002-0123abcd.parquet", numbered(3))
  write(tmp_path / place / "train-00001-of-00002-4567cdef.parquet", numbered(2, start=3))
  write(tmp_path / place / "test.parquet", numbered(1))
  source = parquet.ParquetSource.open(tmp_path, split="train")
  assert [source[i].id for i in range(5)] == [f"train/{i}" for i in range(5)]
  assert [source.gold(i) for i in range(5)] == list("01234")
  assert source.name == tmp_path.name
  assert len(parquet.ParquetSource.open(tmp_path, split="test", name="other")) == 1
  with pytest.raises(ValueError, match="no split 'val'; it has test, train"):
    parquet.ParquetSource.open(tmp_path, split="val")


def test_ids_do_not_depend_on_files_and_row_groups(tmp_path):
  whole = write(tmp_path / "a" / "train-00000-of-00001.parquet", numbered(10))
  for shard in range(5):
    path = tmp_path / "b" / "data" / f"train-{shard:05}-of-00005.parquet"
    write(path, numbered(2, start=2 * shard), row_group_size=1)
  sources = [
    parquet.ParquetSource.open(path, split="train")
    for path in (whole, whole.parent, tmp_path / "b")
  ]
  first, *others = [[source[i] for i in range(len(source))] for source in sources]
  assert len(first) == 10
  assert all(other == first for other in others)
  # One shard does not know the rows before its own, so its ids are its own too.
  shard = parquet.ParquetSource.open(path, split="train")
  assert shard[0].id == "train-00004-of-00005/0"


def test_incomplete_splits_are_refused(tmp_path):
  write(tmp_path / "a" / "train-00001-of-00002.parquet", numbered(1))
  with pytest.raises(ValueError, match=r"split 'train' .*train-00001-of-00002\.parquet"):
    parquet.ParquetSource.open(tmp_path / "a", split="train")
  write(tmp_path / "b" / "train.parquet", numbered(1))
  write(tmp_path / "b" / "train-00000-of-00001.parquet", numbered(1))
  with pytest.raises(ValueError, match="split 'train'"):
    parquet.ParquetSource.open(tmp_path / "b", split="train")


SUBSETS = [
  "{}/train-00000-of-00001.parquet",
  "{}/train-00000-of-00001-0123abcd.parquet",
  "{}/train.parquet",
  "data/{}/train-00000-of-00001.parquet",
  "{}/data/train-00000-of-00001.parquet",
  "{}/train/0000.parquet",
  "data/{}/train/0000.parquet",
]


@pytest.mark.parametrize("form", SUBSETS)
def test_splits_of_subsets(tmp_path, form):
  write(tmp_path / form.format("en"), numbered(3))
  alone = parquet.ParquetSource.open(tmp_path, split="train")
  assert (len(alone), alone[2].id, alone.gold(2)) == (3, "en/train/2", "2")
  write(tmp_path / form.format("de"), numbered(5))
  write(tmp_path / form.format("de").replace("train", "test"), numbered(2))
  for split, length in (("en/train", 3), ("de/train", 5), ("de/test", 2), ("test", 2)):
    assert len(parquet.ParquetSource.open(tmp_path, split=split)) == length
  match = r"'train' in 2 subsets: de/train, en/train; name one as config\.data\.split"
  with pytest.raises(ValueError, match=match):
    parquet.ParquetSource.open(tmp_path, split="train")
  with pytest.raises(ValueError, match="no split 'en'; it has de/test, de/train, en/train"):
    parquet.ParquetSource.open(tmp_path, split="en")


def test_a_subset_is_chosen_by_its_folder_too(tmp_path):
  for subset, count in (("en", 3), ("de", 5)):
    write(tmp_path / subset / "train-00000-of-00001.parquet", numbered(count))
    write(tmp_path / f"converted-{subset}" / "train" / "0000.parquet", numbered(count))
  for folder, count in (("en", 3), ("de", 5), ("converted-en", 3), ("converted-de", 5)):
    source = parquet.ParquetSource.open(tmp_path / folder, split="train")
    assert (len(source), source.name, source[0].id) == (count, folder, "train/0")


@pytest.mark.parametrize("place", ["default", "default/train", "data/train", "train"])
def test_folders_that_stand_for_no_subset(tmp_path, place):
  name = "0000.parquet" if place.endswith("train") else "train-00000-of-00001.parquet"
  write(tmp_path / place / name, numbered(3))
  source = parquet.ParquetSource.open(tmp_path, split="train")
  assert (len(source), source[0].id) == (3, "train/0")


def test_the_set_itself_goes_before_its_subsets_and_hidden_folders_do_not_count(tmp_path):
  write(tmp_path / "data" / "train-00000-of-00001.parquet", numbered(3))
  write(tmp_path / "old" / "train-00000-of-00002.parquet", numbered(5))  # not even complete
  write(tmp_path / ".cache" / "test.parquet", numbered(5))
  assert parquet.split_files(tmp_path).keys() == {"train", "old/train"}
  assert len(parquet.ParquetSource.open(tmp_path, split="train")) == 3
  with pytest.raises(ValueError, match=r"split 'old/train' .*should be complete"):
    parquet.ParquetSource.open(tmp_path, split="old/train")


def test_numbered_files_are_read_in_order_and_must_be_complete(tmp_path):
  for shard in range(3):
    path = tmp_path / "en" / "train" / f"{shard:04}.parquet"
    write(path, numbered(2, start=2 * shard))
  source = parquet.ParquetSource.open(tmp_path, split="train")
  assert [source.gold(i) for i in range(6)] == list("012345")
  (tmp_path / "en" / "train" / "0001.parquet").unlink()
  with pytest.raises(ValueError, match=r"complete .* it has 0000\.parquet, 0002\.parquet"):
    parquet.ParquetSource.open(tmp_path, split="train")


def test_a_number_may_name_a_split(tmp_path):
  for name in ("2023", "2024"):
    write(tmp_path / f"{name}.parquet", numbered(3))
  source = parquet.ParquetSource.open(tmp_path, split="2024")
  assert (len(source), source[0].id) == (3, "2024/0")


def test_many_subsets_are_listed_in_short(tmp_path):
  for number in range(100):
    write(tmp_path / f"subset-{number}" / "train.parquet", numbered(1))
  with pytest.raises(ValueError, match="in 100 subsets: subset-0/train, ") as caught:
    parquet.ParquetSource.open(tmp_path, split="train")
  assert len(str(caught.value)) <= 320  # path and subsets of 120 characters each


def test_what_is_no_set_is_refused(tmp_path):
  with pytest.raises(ValueError, match="neither a parquet file nor a directory"):
    parquet.ParquetSource.open(tmp_path, split="train")
  with pytest.raises(ValueError, match="neither a parquet file nor a directory"):
    parquet.ParquetSource.open(tmp_path / "absent", split="train")
  (tmp_path / "text.parquet").write_text("not parquet")
  with pytest.raises(ValueError, match=r"text\.parquet cannot be read as parquet"):
    parquet.ParquetSource.open(tmp_path / "text.parquet", split="train")


@pytest.mark.parametrize(
  ("row", "match"),
  [
    ({"img": b"png", "problem": "?"}, "columns img, problem; it needs images or image"),
    ({"image": b"png", "text": "?"}, "columns image, text; it needs problem or question"),
  ],
)
def test_missing_columns_are_named(tmp_path, row, match):
  with pytest.raises(ValueError, match=match):
    opened(tmp_path / "set.parquet", [row])


def test_a_damaged_row_group_costs_its_own_records_only(tmp_path):
  path = write(tmp_path / "set.parquet", numbered(4), row_group_size=2)
  place = pq.ParquetFile(path).metadata.row_group(1).column(0).dictionary_page_offset
  data = bytearray(path.read_bytes())
  data[place : place + 60] = b"\xff" * 60
  path.write_bytes(data)
  source = parquet.ParquetSource.open(path, split="train")
  assert source[1].images == (b"image 1",)
  refused(source, 2, "unreadable row group", "record set/2: ")


def test_a_sent_source_reads_the_same_and_carries_no_rows(tmp_path):
  source = opened(tmp_path / "set.parquet", numbered(50))
  before = len(pickle.dumps(source))
  records = [source[i] for i in range(50)]
  assert len(pickle.dumps(source)) == before
  sent = pickle.loads(pickle.dumps(source))
  assert [sent[i] for i in range(50)] == records
  assert repr(sent) == repr(source) == "ParquetSource(name='set', split='set', records=50)"


def test_indices_out_of_range(tmp_path):
  source = opened(tmp_path / "set.parquet", numbered(2))
  for index in (-1, 2):
    with pytest.raises(IndexError, match=f"no record {index}"):
      source[index]
  assert len(list(source)) == 2


def test_memory_is_bounded_and_a_kept_row_group_is_not_read_again(tmp_path, monkeypatch):
  rows = [{"image": bytes([i]) * 10_000, "problem": str(i)} for i in range(40)]
  path = write(tmp_path / "set.parquet", rows, row_group_size=10)
  source = parquet.ParquetSource.open(path, split="train")
  group = max(pq.ParquetFile(path).read_row_group(i).nbytes for i in range(4))
  monkeypatch.setattr(parquet, "CACHE_BYTES", 2 * group)
  reads, read = [], pq.ParquetFile.read_row_group

  def counted(self, number, *args, **options):
    reads.append(number)
    return read(self, number, *args, **options)

  monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
  order = list(range(40)) * 3
  for index in order:
    assert source[index].images == (bytes([index]) * 10_000,)
    assert source._cached_bytes() <= 2 * group
  assert reads == [0, 1, 2, 3] * 3
  random.Random(0).shuffle(order)
  for index in order:
    assert source[index].question == str(index)
  reads.clear()
  for index in (5, 15, 5, 15, 5):
    source[index]
  assert len(reads) <= 2


@real_data.needed
@pytest.mark.parametrize(("split", "rows"), [("train", 106), ("validation", 20), ("test", 40)])
def test_real_geometry3k(split, rows):
  directory = pathlib.Path(real_data.DATA) / "geometry3k" / "hub_form"
  source = parquet.ParquetSource.open(directory, split=split)
  table = pq.read_table(directory / "data" / f"{split}-00000-of-00001.parquet").to_pylist()
  assert len(source) == len(table) == rows
  for index, row in enumerate(table):
    record = source[index]
    assert record.id == f"{split}/{index}"
    assert record.question == row["problem"]
    assert record.images == (row["images"][0]["bytes"],)
    assert source.gold(index) == row["answer"].strip()
    assert images.decode(record.images[0]).mode == "RGB"
