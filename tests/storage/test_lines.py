"""Files of lines that grow: nothing is lost but what waits, and nothing is read twice."""

import fsspec
import pytest

from sejax import storage
from sejax.evaluation import results
from sejax.monitoring import writers


@pytest.fixture(params=["disk", "bucket"])
def path(request, tmp_path):
  """A file of each kind of storage."""
  if request.param == "disk":
    return storage.Path(tmp_path) / "a.jsonl"
  return request.getfixturevalue("bucket") / "run" / "a.jsonl"


def lines(path):
  return [line.decode() for _, line in storage.LineFile(path).read()]


def test_lines_are_read_in_their_order(path):
  file = storage.LineFile(path, interval=0.0)
  assert not file.exists()
  assert lines(path) == []
  for number in range(12):
    file.append(f"{number}\n")
  assert file.exists()
  assert lines(path) == [f"{number}\n" for number in range(12)]
  again = storage.LineFile(path)
  again.append("12\n")
  again.close()
  assert lines(path)[-2:] == ["11\n", "12\n"]


def test_rewriting_leaves_one_file(path):
  file = storage.LineFile(path, interval=0.0)
  for number in range(4):
    file.append(f"{number}\n")
  file.rewrite(line for _, line in file.read() if line != b"1\n")
  assert lines(path) == ["0\n", "2\n", "3\n"]
  assert path.read_text() == "0\n2\n3\n"
  assert not list(path.parent.glob("*/*"))
  file.append("4\n")
  assert lines(path)[-1] == "4\n"


def test_closing_leaves_one_file(path):
  file = storage.LineFile(path, interval=0.0)
  for number in range(3):
    file.append(f"{number}\n")
  file.close()
  assert path.read_text() == "0\n1\n2\n"
  assert not list(path.parent.glob("*/*"))
  file.append("3\n")
  file.close()
  assert path.read_text() == "0\n1\n2\n3\n"
  assert [file.name for file in path.parent.iterdir()] == ["a.jsonl"]


def test_names_are_no_patterns(bucket):
  other, path = bucket / "run1" / "a.jsonl", bucket / "run[1]*" / "a.jsonl"
  for place in (other, path):
    storage.LineFile(place, interval=0.0).append("0\n")
  file = storage.LineFile(path, interval=0.0)
  file.append("1\n")
  file.close()
  assert path.read_text() == "0\n1\n"
  assert not storage.LineFile(path)._found()
  assert lines(other) == ["0\n"]


def test_parts_that_another_process_left_are_not_merged_by_who_wrote_none(bucket):
  storage.LineFile(bucket / "a.jsonl", interval=0.0).append("0\n")
  storage.LineFile(bucket / "a.jsonl").close()
  assert not (bucket / "a.jsonl").exists()
  assert lines(bucket / "a.jsonl") == ["0\n"]


def test_parts_are_read_at_once_while_another_process_merges(bucket, monkeypatch):
  path = bucket / "a.jsonl"
  writer = storage.LineFile(path, interval=0.0)
  for number in range(3):
    writer.append(f"{number}\n")
  reader, calls = storage.LineFile(path), []
  find = reader._found

  def found():
    parts = find()
    calls.append(len(parts))
    if len(calls) == 1:
      writer.close()
    return parts

  monkeypatch.setattr(reader, "_found", found)
  assert [line for _, line in reader.read()] == [b"0\n", b"1\n", b"2\n"]
  assert calls == [3, 0]


def test_a_copy_on_a_disk_is_read_with_its_parts(bucket, tmp_path):
  path = bucket / "run" / "a.jsonl"
  storage.write_text(path, "0\n")
  storage.LineFile(path, interval=0.0).append("1\n")
  fsspec.core.url_to_fs(str(path))[0].get(str(path.parent), str(tmp_path / "copy"), recursive=True)
  (copy,) = tmp_path.rglob("a.jsonl")
  file = storage.LineFile(copy)
  assert lines(copy) == ["0\n", "1\n"]
  file.rewrite(line for _, line in file.read())
  file.append("2\n")
  assert copy.read_text() == "0\n1\n2\n"
  assert [file.name for file in copy.parent.iterdir()] == ["a.jsonl"]


def test_in_a_bucket_lines_wait_for_the_interval(bucket):
  path = bucket / "a.jsonl"
  file = storage.LineFile(path, interval=3600.0)
  file.append("0\n")
  file.append("1\n")
  assert lines(path) == []
  file.flush()
  assert lines(path) == ["0\n", "1\n"]
  assert len(list(path.parent.glob("a.jsonl.parts/*"))) == 1


def test_lines_that_a_killed_process_left_in_a_part_too_are_read_once(bucket):
  """It had merged them into the file, and not yet removed all of them."""
  path = bucket / "metrics.jsonl"
  storage.write_text(path, "".join(f'{{"step": {n}, "x": {n}}}\n' for n in range(5)))
  for part, steps in ((0, (3, 4)), (1, (5, 6))):
    text = "".join(f'{{"step": {n}, "x": {n}}}\n' for n in steps)
    (bucket / "metrics.jsonl.parts" / f"{part:08}.jsonl").write_text(text)
  assert [record["x"] for record in writers.read(path)] == [0, 1, 2, 3, 4, 5, 6]


def test_evaluated_samples_that_a_killed_process_left_in_a_part_too_are_read_once(bucket):
  path = bucket / "problems.jsonl"
  texts = [f'{{"id": "{n}", "sample": 0}}\n' for n in range(3)]
  storage.write_text(path, "".join(texts[:2]))
  (bucket / "problems.jsonl.parts" / "00000001.jsonl").write_text("".join(texts[1:]))
  assert lines(path) == texts
  assert [record["id"] for record in results._records(storage.LineFile(path))] == ["0", "1", "2"]
