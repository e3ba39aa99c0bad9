"""The page that shows a set: what is on it, and that it stands alone."""

import html.parser
import json
import re
import subprocess
import sys

import PIL.Image

from sejax import config as config_lib
from sejax.data import inspection
from sejax.data.batches import Buckets, Sizes
from tests.data.problems import Problems, preparer


class Tags(html.parser.HTMLParser):
  """Collects tags, and fails where they do not nest."""

  def __init__(self, text: str):
    super().__init__()
    self.open, self.seen = [], []
    self.feed(text)
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.seen.append((tag, dict(attrs)))
    if tag not in ("meta", "img"):
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.seen.append((tag, dict(attrs)))

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def test_shapes_are_those_of_the_batches():
  buckets = Buckets(prompt=(10, 20), patch=(64, 128))
  lengths = [Sizes(5, 12, 0), Sizes(10, 11, 64), Sizes(11, 20, 0), Sizes(3, 3, 0), Sizes(9, 9, 65)]
  assert inspection.shapes(lengths, 2, buckets) == {(10, 20, 64), (20, 20, 0), (10, 10, 128)}
  assert inspection.shapes([], 2, buckets) == set()


def test_page(directory):
  source = Problems(12, bad=frozenset({4}), long=frozenset({6}), name="<b>set</b>")
  make = preparer(source, directory)
  survey = inspection.survey_of(map(make, range(12)), 8)
  survey.shown[1] = survey.shown[1]._replace(question="<script>alert(1)</script>")
  assert (len(survey.lengths), len(survey.shown), len(survey.dropped)) == (10, 8, 2)
  text = inspection.page(config_lib.default(), source, survey)
  tags = Tags(text).seen
  images = [attributes for tag, attributes in tags if tag == "img"]
  assert len(images) == sum(len(example.pictures) for example in survey.shown) == 8
  assert all(image["src"].startswith("data:image/png;base64,") for image in images)
  assert not {tag for tag, _ in tags} & {"script", "link", "b"}
  assert not re.search(r"https?://|url\(", text)
  assert "&lt;script&gt;alert(1)" in text
  for fact in ("<td>usable</td><td>10</td>", "<td>problem-6</td><td>too long</td>", "answer 3"):
    assert fact in text
  assert "<td>index 4</td><td>missing image</td><td>problem-4: no image</td>" in text
  first = survey.lengths[0]
  assert f"problem-0: Actor {first.actor} tokens, Judge {first.judge}," in text


def test_page_of_nothing_usable(directory):
  source = Problems(3, bad=frozenset(range(3)))
  survey = inspection.survey_of(map(preparer(source, directory), range(3)), 8)
  assert "<td>usable</td><td>0</td>" in inspection.page(config_lib.default(), source, survey)


def test_command_line(directory, tmp_path):
  PIL.Image.new("RGB", (60, 40), "white").save(tmp_path / "a.png")
  rows = [{"question": f"What is {n}?", "image": "a.png"} for n in range(3)]
  rows.append({"question": "Where?", "image": "absent.png"})
  (tmp_path / "set.jsonl").write_text("\n".join(map(json.dumps, rows)))
  (tmp_path / "run.py").write_text(
    "from sejax import config\n\n\ndef get_config():\n  return config.default()\n"
  )
  command = [
    *(sys.executable, "-m", "sejax.main", "--mode=inspect", f"--config={tmp_path / 'run.py'}"),
    *(f"--workdir={tmp_path / 'out'}", f"--config.model.path={directory}"),
    *("--config.data.source=jsonl", f"--config.data.path={tmp_path / 'set.jsonl'}"),
  ]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  assert "4/4" in done.stderr
  assert "inspect.html: 3 usable, 1 dropped" in done.stderr
  text = (tmp_path / "out" / "inspect.html").read_text()
  assert "absent.png" in text
  assert text.count("no answer") == 3
