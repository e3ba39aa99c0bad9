"""Files of lines that grow: nothing is lost but what waits, and nothing is read twice."""

import pytest

from sejax import storage
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
  """It had rewritten the file on resume, and not yet removed what went into it."""
  path = bucket / "metrics.jsonl"
  storage.write_text(path, "".join(f'{{"step": {n}, "x": {n}}}\n' for n in range(5)))
  for part, steps in ((0, (3, 4)), (1, (5, 6))):
    text = "".join(f'{{"step": {n}, "x": {n}}}\n' for n in steps)
    (bucket / "metrics.jsonl.parts" / f"{part:08}.jsonl").write_text(text)
  assert [record["x"] for record in writers.read(path)] == [0, 1, 2, 3, 4, 5, 6]
