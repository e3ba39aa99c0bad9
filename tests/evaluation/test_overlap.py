"""Held-out problems that are trained on are found by what they are, whatever holds them."""

import base64
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sejax.data import figures
from sejax.data.jsonl import JsonlSource
from sejax.data.parquet import ParquetSource
from sejax.evaluation import heldout, overlap
from tests.data.problems import Problems, random_png


def write_lines(folder, name, numbers, **changes):
  """JSON lines of numbered problems, with images beside them."""
  rows = []
  for number in numbers:
    (folder / f"{number}.png").write_bytes(random_png(28, 28, number))
    row = {"id": f"{name}-{number}", "question": "What is x?", "image": f"{number}.png"}
    rows.append(row | changes)
  path = folder / f"{name}.jsonl"
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return JsonlSource(path)


def test_same_problems_under_other_ids_and_in_another_order(tmp_path):
  training = write_lines(tmp_path, "train", range(8))
  assert overlap.count(training, write_lines(tmp_path, "test", [9, 7, 3, 10]), 4) == (2, 4)
  assert overlap.count(training, write_lines(tmp_path, "test", [9, 7, 3, 10]), 2) == (1, 2)
  assert overlap.count(training, write_lines(tmp_path, "test", range(7, -1, -1)), 8) == (8, 8)
  assert overlap.count(training, write_lines(tmp_path, "test", range(8, 12)), 4) == (0, 4)


def test_a_problem_that_occurs_twice_counts_twice(tmp_path):
  training = write_lines(tmp_path, "train", [1, 1, 2])
  assert overlap.count(training, write_lines(tmp_path, "test", [1, 1, 3]), 3) == (2, 3)


def test_question_and_pictures_both_count(tmp_path):
  training = write_lines(tmp_path, "train", range(4))
  assert overlap.count(training, write_lines(tmp_path, "q", range(4), question="Who?"), 4) == (0, 4)
  assert overlap.count(training, write_lines(tmp_path, "i", range(4), image="0.png"), 4) == (4, 4)
  assert overlap.count(training, write_lines(tmp_path, "n", range(4), image=None), 4) == (0, 4)


def test_blanks_and_places_of_images_make_no_other_question(tmp_path):
  training = write_lines(tmp_path, "train", range(4))
  for question in ("<image>What is x?", " What\nis  x? <image>"):
    assert overlap.count(training, write_lines(tmp_path, "q", [2], question=question), 1) == (1, 1)


def test_across_kinds_of_files(tmp_path):
  rows = [{"problem": "What is x?", "images": [{"bytes": random_png(28, 28, n)}]} for n in (3, 9)]
  pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set.parquet")
  other = ParquetSource.open(tmp_path / "set.parquet", split="test")
  assert overlap.count(write_lines(tmp_path, "train", range(4)), other, 2) == (1, 2)


def test_unreadable_records_are_none_of_them():
  broken = frozenset({1, 2})
  assert overlap.count(Problems(6, bad=broken), Problems(6), 6) == (4, 6)
  found = overlap.count(Problems(6), Problems(6, bad=broken), 6)
  assert found == (4, 4)
  with pytest.raises(ValueError, match="all 4 held-out problems are training problems"):
    heldout._check_overlap(found, allowed=False)
  heldout._check_overlap(found, allowed=True)


@pytest.mark.parametrize(("split", "shared"), [("train", 5), ("heldout", 0)])
def test_splits_of_figures_share_nothing(split, shared):
  assert overlap.count(figures.source("train"), figures.source(split), 5) == (shared, 5)


def test_splits_of_figures_share_nothing_in_fact():
  def contents(split):
    made = figures.source(split, length=300)
    return {
      base64.b64encode(x.images[0]) + x.question.encode() for x in map(made.__getitem__, range(300))
    }

  assert not contents("train") & contents("heldout")
