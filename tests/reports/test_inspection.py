"""The page about a data set: sample records, histograms, and records that were dropped."""

import html.parser
import json
import re

import pytest

from sejax import config as config_lib
from sejax import main
from sejax.config import modes
from sejax.data import batches
from sejax.reports import charts, inspection
from tests.data.problems import random_png


class _Page(html.parser.HTMLParser):
  """Collects a page's text, its images and every file that it would load."""

  def __init__(self, text):
    super().__init__()
    self.text, self.thumbnails, self.loaded = "", 0, []
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    source = dict(attrs).get("src") or dict(attrs).get("href") or ""
    self.thumbnails += source.startswith("data:image/png;base64,")
    if (source and not source.startswith("data:")) or tag == "script":
      self.loaded.append((tag, source))

  def handle_data(self, data):
    self.text += data


@pytest.fixture
def config(tmp_path, model_directory):
  (tmp_path / "a.png").write_bytes(random_png(56, 84))
  (tmp_path / "cut.png").write_bytes(random_png(56, 84)[:-30])
  lines = [
    {"id": "good", "question": "<b>How many</b> & why?", "image": "a.png", "answer": "4"},
    {"id": "plain", "question": "What is 2 + 2?"},
    {"id": "cut", "question": "What?", "image": "cut.png"},
    {"id": "long", "question": "why " * 1100},
  ]
  path = tmp_path / "set.jsonl"
  path.write_text("\n".join(map(json.dumps, lines)))
  config = config_lib.default()
  config.model.path = str(model_directory)
  config.data.update(source="jsonl", path=str(path), min_pixels=None)
  return config


def test_the_page_shows_records_and_why_some_were_dropped(config, tmp_path, capsys):
  modes.inspect(config, tmp_path)
  assert "2 of 4 records can be used (1 truncated image, 1 too long)" in capsys.readouterr().out
  page = _Page((tmp_path / "inspect.html").read_text(encoding="utf-8"))
  for said in ("<b>How many</b> & why?", "What is 2 + 2?", "24 patches, with an answer"):
    assert said in page.text
  assert "0 patches, without an answer" in page.text
  assert "1 truncated image" in page.text
  assert "1 too long" in page.text
  assert (page.thumbnails, page.loaded) == (1, [])


def test_answers_that_cannot_be_read_are_listed(config, tmp_path, capsys):
  answers = [["4"], ["4", "5"], None, {"value": {"of": [1, 2]}}]
  lines = [{"id": f"r{n}", "question": "?", "answer": a} for n, a in enumerate(answers)]
  config.data.path = str(tmp_path / "answers.jsonl")
  (tmp_path / "answers.jsonl").write_text("\n".join(map(json.dumps, lines)))
  modes.inspect(config, tmp_path)
  assert "4 of 4 records can be used; 2 answers cannot be read;" in capsys.readouterr().out
  page = _Page((tmp_path / "inspect.html").read_text(encoding="utf-8"))
  assert "with an answer (for metrics)1" in page.text
  assert "with an answer that cannot be read2" in page.text
  assert "record r1: its answer is ['4', '5'], with 2 entries; it must have one" in page.text
  assert "record r3: its answer is" in page.text


def test_bars_are_as_high_as_there_are_records_of_their_sizes():
  drawn = charts.histogram("Patches", [0, 2, 10], 5, "longest 14")
  bars = re.findall(r'height="([^"]+)"><title>([^<]+)', drawn)
  assert bars == [("24.0", "5 to 9: 2"), ("120.0", "10 to 14: 10")]
  assert re.findall(r"<text[^>]*>([^<]+)", drawn) == ["0", "2", "4", "6", "8", "10", "0", "14"]
  assert 'aria-label="Patches: longest 14"' in drawn


@pytest.mark.parametrize(("batch_size", "number"), [(1, 3), (2, 6), (3, 7), (8, 7)])
def test_a_batch_may_take_each_size_from_another_row(batch_size, number):
  buckets = batches.Buckets((1, 2), (1, 2))
  statistics = inspection.Statistics(
    actor=[2, 1, 1],
    judge=[1, 2, 1],
    patches=[1, 1, 2],
    golds=set(),
    dropped=[],
    shown=[],
    unreadable=[],
  )
  assert inspection.count_shapes(statistics, buckets, batch_size) == number


def test_ids_and_messages_that_are_no_unicode_do_not_stop_the_page(config, tmp_path):
  lines = [{"id": "a\ud800", "question": "x"}, {"id": "b\ud800", "image": "none.png"}]
  config.data.path = str(tmp_path / "half.jsonl")
  (tmp_path / "half.jsonl").write_text("\n".join(map(json.dumps, lines)))
  modes.inspect(config, tmp_path)
  assert "records read2" in _Page((tmp_path / "inspect.html").read_text(encoding="utf-8")).text


def test_the_limits_on_what_is_counted_and_shown(config, tmp_path):
  config.data.update(inspect_limit=2, inspect_records=1)
  modes.inspect(config, tmp_path)
  page = _Page((tmp_path / "inspect.html").read_text(encoding="utf-8"))
  assert "What is 2 + 2?" not in page.text
  assert "records read2" in page.text


@pytest.mark.long
def test_the_command_line_runs_it(config, tmp_path, capsys):
  def command(model):
    (tmp_path / "plain.py").write_text(
      "from sejax import config as config_lib\ndef get_config():\n"
      "  config = config_lib.default()\n"
      f"  config.data.update(source='jsonl', path={config.data.path!r})\n"
      f"  config.model.path = {model!r}\n  return config\n"
    )
    flags = [f"--config={tmp_path / 'plain.py'}", f"--workdir={tmp_path / 'out'}"]
    return main.main(["sejax", "--mode=inspect", *flags])

  assert command("") == 2
  assert "config.model.path is empty" in capsys.readouterr().err
  assert command(config.model.path) == 0
  assert (tmp_path / "out" / "inspect.html").exists()
