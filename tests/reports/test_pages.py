"""Pages escape every text: none becomes markup, and all of it can be read."""

import dataclasses
import html.parser
import json
import pathlib
import subprocess
import sys

import jinja2
import numpy as np
import pytest

from configs import tiny
from sejax import config as config_lib
from sejax.config import modes
from sejax.data.prepare import Dropped, Example
from sejax.evaluation import metrics, results
from sejax.evaluation.benchmarks import protocol
from sejax.reports import inspection, pages
from sejax.reports import training as report
from tests.data.problems import random_png
from tests.reports import test_report

ROOT = pathlib.Path(__file__).parents[2]

# Of equal length, so that pages differ only in these texts, and short enough for table cells.
PLAIN = "a plain text of 31 letters here"
HOSTILE = [
  """<script>alert(1)</script>"'&<b>""",
  """"><img src=x onerror='alert(1)'""",
  "</pre></style></title><!--&amp;",
  "{{ 7 * 7 }}{% raw %}{# & #}<i>x",
  "&lt;b&gt; &quot;<svg onload=x>'",
]
assert {len(text) for text in HOSTILE} == {len(PLAIN)}


class _Events(html.parser.HTMLParser):
  """Collects the tags, attributes and texts of a page in order."""

  def __init__(self, text):
    super().__init__()
    self.events = []
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.events.append(("start", tag, *(part or "" for attribute in attrs for part in attribute)))

  def handle_endtag(self, tag):
    self.events.append(("end", tag))

  def handle_data(self, data):
    self.events.append(("text", data))

  def handle_comment(self, data):
    self.events.append(("comment", data))

  def unknown_decl(self, data):
    self.events.append(("declaration", data))


def training_page(text, folder):
  """Returns the page of a run in which every text, also of names, is the given one."""
  test_report.leave_run(folder)
  group = test_report.group(0) | {
    "step": 0,
    "id": text,
    "question": text,
    "texts": [text, text],
    "answers": [text, text],
    "verdicts": [[text, text], []],
    "gold": text,
  }
  (folder / "groups.jsonl").write_text(json.dumps(group) + "\n")
  (folder / "metrics.jsonl").write_text(json.dumps({"step": 0, text: 1.0, "kl": 2.0}) + "\n")
  summary = json.loads((folder / "summary.json").read_text())
  for part in ("before", "after", "change"):
    summary[part][text] = 0.25
  summary["stages"][text] = 1.0
  (folder / "summary.json").write_text(json.dumps(summary))
  (folder / "config.json").write_text(text)
  return report.page(folder)


def inspect_page(text, folder):
  """Returns the page of a data set in which every text is the given one."""
  del folder
  config = config_lib.default()
  config.data.update(source=text, split=text)
  example = Example(
    index=0,
    id=text,
    question=text,
    image_files=(random_png(56, 84),),
    actor=np.zeros(3, np.int32),
    judge=np.zeros(4, np.int32),
    judge_tail=(),
    patches=np.zeros((0, 1), np.float32),
    grids=np.zeros((0, 3), np.int32),
  )
  refused = [Dropped(1, text, text, f"there is no file {text}")]
  statistics = inspection.Statistics(
    actor=[3],
    judge=[4],
    patches=[0],
    golds={0},
    dropped=refused,
    shown=[example],
    unreadable=refused,
  )

  class Source:
    name = text

    def __len__(self):
      return 2

  return inspection.page(config.data, Source(), statistics, config.batch_size)


def evaluation_page(text, folder):
  """Returns the page of an evaluation in which every name is the given text."""
  del folder
  figure = metrics.Interval(0.5, 0.25, 0.75)
  parts = {text: {text: protocol.Share(1, 2), "other": protocol.Share(0, 2)}}
  scores = protocol.Scores({text: figure, "pass@2": figure}, {text: 1}, parts)
  result = results.Result(text, text, text, scores, 4, 1, 2, 0, {text: 8})
  return results.page([result, dataclasses.replace(result, name="other")])


MAKERS = {"training": training_page, "inspect": inspect_page, "evaluation": evaluation_page}
# How often each page contains the text.
TIMES = {"training": 20, "inspect": 13, "evaluation": 25}


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("name", MAKERS)
def test_no_text_becomes_markup_and_all_of_it_can_be_read(name, hostile, tmp_path):
  plain, page = (MAKERS[name](text, tmp_path) for text in (PLAIN, hostile))
  events, expected = (_Events(html).events for html in (page, plain))
  assert sum(part.count(PLAIN) for event in expected for part in event) == TIMES[name]
  assert events == [tuple(part.replace(PLAIN, hostile) for part in event) for event in expected]


@pytest.mark.parametrize("hostile", HOSTILE[:2])
def test_a_data_set_with_hostile_files_and_answers(hostile, tmp_path):
  """Hostile texts also reach the page through the pipeline's own error messages."""
  lines = [
    {"id": f"file {hostile}", "question": "?", "image": f"{hostile}.png"},
    {"id": "answer", "question": hostile, "answer": [hostile, hostile]},
  ]
  (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, lines)))
  config = tiny.get_config()
  config.data.update(source="jsonl", path=str(tmp_path / "set.jsonl"))
  modes.inspect(config, tmp_path)
  events = _Events((tmp_path / "inspect.html").read_text(encoding="utf-8")).events
  said = [event[1] for event in events if event[0] == "text"]
  assert sum(hostile in text or repr(hostile) in text for text in said) == 3
  assert not any(event[:2] in (("start", "script"), ("start", "img")) for event in events)


def test_a_missing_value_is_an_error():
  with pytest.raises(jinja2.UndefinedError, match="'title' is undefined"):
    pages.render("base.html")


def test_a_page_with_half_a_surrogate_pair_is_written(tmp_path):
  pages.write(tmp_path / "page.html", evaluation_page("a\ud800", tmp_path))
  assert "a\\ud800" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_an_installed_package_has_all_files(tmp_path):
  command = [sys.executable, "setup.py", "-q", "build_py", f"--build-lib={tmp_path}"]
  subprocess.run(command, cwd=ROOT, check=True)

  def files(folder):
    found = (path.relative_to(folder) for path in (folder / "sejax").rglob("*") if path.is_file())
    # The README is for those who read the code where it is kept.
    return {path for path in found if path.suffix != ".pyc"} - {pathlib.Path("sejax/README.md")}

  assert files(tmp_path) == files(ROOT)
  assert pathlib.Path("sejax/reports/templates/base.html") in files(tmp_path)


def test_a_notebook_gets_a_table_whose_cells_are_escaped():
  table = pages.table("answers", ("", "text"), [(1, "a < b"), (2, "<script>")])
  assert "<tr><th scope=row>1</th><td>a &lt; b</td></tr>" in table
  assert "&lt;script&gt;" in table
  assert "<th scope=col>text</th>" in table
