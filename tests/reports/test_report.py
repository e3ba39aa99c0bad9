"""The page about a run: summary, curves and sample groups; it loads no other file."""

import base64
import html.parser
import json
import re

import pytest

from sejax import config as config_lib
from sejax import main
from sejax.monitoring import writers
from sejax.reports import charts, curves
from sejax.reports import training as report
from tests.data.problems import random_png

HOSTILE = "<script>alert(1)</script> & \ud800"


class _Page(html.parser.HTMLParser):
  """Collects a page's text, table rows, curves, number of images, and files it would load."""

  def __init__(self, text):
    super().__init__()
    self.text, self.rows, self.curves, self.thumbnails, self.loaded = "", [], {}, 0, []
    self._open, self._label = [], ""
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    source = attrs.get("src") or attrs.get("href") or ""
    self.thumbnails += source.startswith("data:image/png;base64,")
    if (source and not source.startswith(("data:", "#"))) or tag in ("script", "link"):
      self.loaded.append((tag, source))
    if tag == "tr":
      self.rows.append([])
    elif tag in ("td", "th"):
      self.rows[-1].append("")
    elif tag == "svg":
      self._label = attrs["aria-label"]
    elif tag == "path" and attrs["class"] == "curve":
      self.curves[self._label] = attrs["d"]
    self._open.append(tag)

  def handle_endtag(self, tag):
    while self._open and self._open.pop() != tag:
      pass

  def handle_data(self, data):
    self.text += data
    if self._open and self._open[-1] in ("td", "th"):
      self.rows[-1][-1] += data


def group(step):
  return {
    "id": f"figure {step}",
    "question": HOSTILE,
    "pictures": [base64.b64encode(random_png(56, 84)).decode()],
    "texts": ["seven \\boxed{7}", HOSTILE],
    "answers": ["7" * 99, None],
    "votes": [0.875, 0.0],
    "verdicts": [["good", "better"], ["none"]],
    "scores": [0.9, 0.0],
    "valid": [True, False],
    "rewards": [1.0, 0.0],
    "advantages": [0.5, -0.5],
    "gold": "7",
  }


def leave_run(folder):
  """Writes the files of a training run to a folder."""
  config = config_lib.default()
  config.log.tensorboard = False
  with writers.Logs(folder, config.log, config.to_dict()) as logs:
    logs.resume(-1)
    for step in range(50):
      values = {"reward": step / 100, "reward_count": 8, "kl": float("nan") if step == 25 else 0.0}
      logs.metrics(step, values | ({"pass@1": 0.5} if step % 5 == 0 else {}))
      logs.timing(step, {"sample": 2.0, "tokens_per_second": 1000 + step})
      logs.groups(step, [group(step)])
  config_lib.save(config, folder)
  figures = {"pass_at_1": 0.5, "pass_at_1_error": 0.021}
  summary = {
    "before": figures,
    "after": {"pass_at_1": 0.553, "pass_at_1_error": 0.02},
    "change": {"pass_at_1": 0.053, "pass_at_1_error": 0.012},
    "steps": 50,
    "seconds": 190.4,
    "stages": {"sample": 120.0, "judge": 40.0, "total": 160.0, "evaluate": 0.0},
  }
  (folder / "summary.json").write_text(json.dumps(summary))


@pytest.fixture
def workdir(tmp_path):
  leave_run(tmp_path)
  return tmp_path


def show(workdir):
  report.run(workdir)
  text = (workdir / "report.html").read_text(encoding="utf-8")
  return _Page(text)


def test_figures_before_and_after(workdir, capsys):
  page = show(workdir)
  spaced = [[cell.replace("\N{NBSP}", " ") for cell in row] for row in page.rows]
  assert ["pass@1", "50.0 ± 2.1", "55.3 ± 2.0", "+5.3 ± 1.2"] in spaced
  assert ["sample", "2 min 00 s", "75%"] in page.rows
  assert ["judge", "40.0 s", "25%"] in page.rows
  assert ["total", "2 min 40 s", "100%"] in page.rows
  said = page.text.replace("\N{NBSP}", " ")
  assert (
    "50 steps took 3 min 10 s: of the held-out problems, one sample is right in 55.3 ± 2.0 percent"
    " instead of 50.0 ± 2.1, which is +5.3 ± 1.2 points."
  ) in said
  # The chart: places of both dots, and the ends of their 95% intervals.
  ends = "pass@1 before: 50.0%, from 45.9 to 54.1; pass@1 after: 55.3%, from 51.4 to 59.2"
  assert f'aria-label="{ends}"' in (workdir / "report.html").read_text()
  assert '"group_size": 8' in page.text
  assert capsys.readouterr().out == f"report written to {workdir / 'report.html'}\n"


def test_a_page_says_from_where_labels_are_wrong_more_often(workdir):
  assert "majorities are right less often" not in show(workdir).text
  path = workdir / "summary.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | {"label_accuracy_falls_from": 12}))
  assert "By gold answers, majorities are right less often from step 12 on." in show(workdir).text


def test_every_curve_is_drawn_under_its_heading(workdir):
  page = show(workdir)
  drawn = {label.partition(" over")[0]: path for label, path in page.curves.items()}
  points = {name: len(re.findall(r"[ML]", path)) for name, path in drawn.items()}
  assert points == {
    "pass@1": 10,
    "reward": 50,
    "kl": 49,
    "reward_count": 50,
    "sample": 50,
    "tokens_per_second": 50,
  }
  assert drawn["kl"].count("M") == 2, "a step without a value interrupts the curve"
  assert "reward over steps 0 to 49, from 0 to 0.49" in page.curves
  headings = re.findall("|".join((*curves.OF_METRICS, *curves.OF_TIMING)), page.text)
  expected = ["Accuracy", "Rewards, votes and verdicts", "Updates", "Speed and memory", "Seconds"]
  assert headings == expected


def test_groups_are_spread_over_the_run_and_their_texts_escaped(workdir):
  page = show(workdir)
  shown = [int(step) for step in re.findall(r"Step (\d+): figure", page.text)]
  assert (len(shown), shown[0], shown[-1], sorted(set(shown))) == (24, 0, 49, shown)
  assert (page.thumbnails, page.loaded) == (24, [])
  assert page.text.count("<script>alert(1)</script> & \\ud800") == 48
  assert page.text.count("better") == 24
  assert page.rows.count(["1", "7" * 31 + "…", "88%", "0.90", "1.000", "+0.500"]) == 24
  assert page.rows.count(["2", "none", "0%", "invalid", "0.000", "-0.500"]) == 24


def test_without_a_judge_no_verdict_is_called_invalid(workdir):
  unasked = group(0) | {"step": 0, "verdicts": [[], []], "scores": [0.0, 0.0], "valid": [False] * 2}
  (workdir / "groups.jsonl").write_text(json.dumps(unasked) + "\n")
  rows = show(workdir).rows
  assert ["1", "7" * 31 + "…", "88%", "none", "1.000", "+0.500"] in rows
  assert ["2", "none", "0%", "none", "0.000", "-0.500"] in rows


def test_a_run_that_goes_on_has_a_page(workdir):
  for name in ("summary.json", "groups.jsonl", "timing.jsonl", "config.json"):
    (workdir / name).unlink()
  text = show(workdir).text
  assert "The run has not ended; it has made 50 steps" in text
  assert "in which the mean reward went from 0.000 to 0.490." in text
  assert "No groups were kept in groups.jsonl." in text


@pytest.mark.parametrize(
  ("name", "text", "said"),
  [
    ("metrics.jsonl", "", "metrics.jsonl holds no metrics; give a training run's --workdir"),
    ("metrics.jsonl", "x\n", "metrics.jsonl:1 is not a JSON object with a step"),
    (
      "metrics.jsonl",
      '{"step": 1, "kl": "x"}\n',
      "metrics.jsonl: kl of step 1 is 'x', not a number",
    ),
    ("summary.json", "{}", "summary.json is not a summary of a run: KeyError('before')"),
    ("summary.json", "[", "summary.json is not a summary of a run"),
    (
      "summary.json",
      '{"before": {}, "after": {}, "change": {}, "stages": {}, "steps": 1, "seconds": 1,'
      ' "training_problems": 1}',
      "summary.json is not a summary of a run: KeyError('problems')",
    ),
    ("groups.jsonl", '{"step": 1}\n', "groups.jsonl:1 is not a group: KeyError('gold')"),
    *(
      (
        "groups.jsonl",
        json.dumps({"step": 1, **group(1), name: value}) + "\n",
        f"{said} is not text",
      )
      for name, value, said in (
        ("question", None, "None"),
        ("texts", ["x", 7], "7"),
        ("verdicts", [[[]], []], "[]"),
      )
    ),
  ],
)
def test_a_damaged_file_is_named(workdir, name, text, said):
  (workdir / name).write_text(text)
  with pytest.raises(ValueError, match=re.escape(said)):
    show(workdir)
  assert not (workdir / "report.html").exists()


def test_a_curve_of_one_value_is_a_dot_and_one_of_none_is_left_out():
  assert charts.chart("kl", curves.Curve([1, 2], [None, None])) == ""
  alone = charts.chart("kl", curves.Curve([3], [-2.0]))
  assert list(_Page(alone).curves.values()) == ["M60.0 68.0L60.0 68.0"]
  assert 'class=dots d="M60.0 68.0L60.0 68.0"' in alone
  assert 'class=dots d=""' in charts.chart("kl", curves.Curve([3, 4], [-2.0, 1.0]))


@pytest.mark.parametrize(
  ("values", "ticks"),
  [
    ([0.0, 1.0], ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
    ([0.0003, 0.0085], ["0.002", "0.004", "0.006", "0.008"]),
    ([-0.013, 0.024], ["-0.01", "0", "0.01", "0.02"]),
    ([900.0, 12400.0], ["5,000", "10,000"]),
    ([3.0, 3.0], ["2", "3", "4"]),
    ([0.0, 0.0], ["-1", "-0.5", "0", "0.5", "1"]),
    ([1e-9, 4e-9], ["1e-09", "2e-09", "3e-09", "4e-09"]),
  ],
)
def test_axes_have_round_values(values, ticks):
  drawn = charts.chart("x", curves.Curve([0, 1], values))
  assert re.findall(r"class=end>([^<]*)</text><path|class=end>([^<]*)</text><text", drawn)
  found = re.findall(r"class=end>([^<]+)<", drawn)[:-1]
  assert found == ticks


def test_the_command_line_leaves_the_run_as_it_is(workdir, capsys):
  (workdir / "other.py").write_text(
    "from sejax import config as config_lib\ndef get_config():\n"
    "  config = config_lib.default()\n  config.seed = 7\n  return config\n"
  )
  flags = [f"--config={workdir / 'other.py'}", "--mode=report"]
  before = (workdir / "config.json").read_text()
  assert main.main(["sejax", *flags, f"--workdir={workdir}"]) == 0
  assert (workdir / "report.html").exists()
  assert (workdir / "config.json").read_text() == before
  assert main.main(["sejax", *flags, f"--workdir={workdir / 'none'}"]) == 2
  assert "holds no metrics; give a training run's --workdir" in capsys.readouterr().err
  assert not (workdir / "none").exists()
