"""The page that compares runs: what is one kind of runs, and what is said and drawn of each."""

import json
import re

import pytest

from sejax import config as config_lib
from sejax import main, storage
from sejax.monitoring import writers
from sejax.reports import comparison


def leave_run(folder, rewards, *, change=None, **fields):
  """Writes what a run leaves: its configuration, a reward for each step, and perhaps a summary."""
  folder.mkdir()
  config = config_lib.default()
  config.log.tensorboard = False
  config.update_from_flattened_dict(fields)
  with writers.Logs(folder, config.log, config.to_dict()) as logs:
    logs.resume(-1)
    for step, reward in enumerate(rewards):
      logs.metrics(step, {"reward": reward, "kl": 0.5})
  config_lib.save(config, folder)
  if change is not None:
    shares = {
      part: {"pass_at_1": share, "pass_at_1_error": 0.02}
      for part, share in (("before", 0.4), ("after", 0.4 + change), ("change", change))
    }
    (folder / "summary.json").write_text(json.dumps(shares))
  return folder


@pytest.fixture
def runs(tmp_path):
  """Two seeds of one kind of runs, and another kind, which has not ended."""
  return [
    storage.Path(folder)
    for folder in (
      leave_run(tmp_path / "full_0", [0.0, 1.0], change=0.1, seed=0),
      leave_run(tmp_path / "full_1", [0.5, 2.0, 3.0], change=0.2, seed=1),
      leave_run(tmp_path / "votes_0", [1.0], **{"method.self_consistency": "majority"}),
    )
  ]


def test_many_runs_of_a_kind_are_called_by_the_first():
  assert comparison._name(["a", "b", "c"]) == "a, b, c"
  assert comparison._name(["a", "b", "c", "d"]) == "a and 3 more"


def test_seeds_are_one_kind_and_what_differs_is_listed(runs):
  kinds = comparison._kinds([comparison._read(run) for run in runs])
  assert [(kind.name, [run.name for run in kind.runs]) for kind in kinds] == [
    ("full_0, full_1", ["full_0", "full_1"]),
    ("votes_0", ["votes_0"]),
  ]
  assert list(comparison._differences(kinds)) == [
    ("method.self_consistency", '"threshold"', '"majority"')
  ]


def test_a_line_is_the_mean_of_the_seeds_and_the_band_their_range(runs):
  full, votes = comparison._kinds([comparison._read(run) for run in runs])
  band = comparison._band("reward", full)
  assert band.mean == ([0, 1], [0.25, 1.5])  # at the steps that both have
  assert (band.low, band.high) == ([0.0, 1.0], [0.5, 2.0])
  assert comparison._band("reward", votes).mean == ([0], [1.0])
  assert comparison._band("entropy", votes).mean == ([], [])


def test_the_page_says_what_each_kind_reached(runs):
  page = comparison.page(runs).replace("\N{NBSP}", " ")
  rows = [re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", row) for row in page.split("<tr>")]
  full, votes = "full_0, full_1", "votes_0"
  assert [full, "pass@1", "40.0 ± 2.0", "55.0 ± 2.0", "+15.0 ± 2.0", "7.1"] in rows
  assert ["full_1", full, "1", "3", "3", "0.5"] in rows  # seed, steps, reward and kl
  assert [votes, votes, "0", "1, not ended", "1", "0.5"] in rows
  assert ["method.self_consistency", "&#34;threshold&#34;", "&#34;majority&#34;"] in rows
  assert [full, "2", "0.5"] in rows  # reward, the mean of 1 and 3, and kl
  assert [votes, "1", "0.5"] in rows
  labels = re.findall(r'aria-label="([^"]*)"', page)
  assert any(label.startswith("reward over steps 0 to 1, of full_0") for label in labels)
  assert page.count('<path class=band d="M') == 2  # reward, at a glance and below; kl is all alike


def test_the_command_line_writes_the_page_to_the_workdir(runs, tmp_path, capsys):
  flags = ["sejax", "--mode=report", f"--workdir={tmp_path / 'out'}"]
  assert main.main([*flags, f"--runs={','.join(map(str, runs))}"]) == 0
  assert "3 runs compared" in (tmp_path / "out" / "comparison.html").read_text()
  assert main.main([*flags, f"--runs={runs[0]}"]) == 2
  assert "must be two or more different workdirs" in capsys.readouterr().err
  assert main.main([*flags, f"--runs={runs[0]},{tmp_path / 'none'}"]) == 2
  assert f"there is no folder {tmp_path / 'none'}; give workdirs as --runs" in (
    capsys.readouterr().err
  )
  (tmp_path / "none").mkdir()
  assert main.main([*flags, f"--runs={runs[0]},{tmp_path / 'none'}"]) == 2
  assert "none/metrics.jsonl holds no metrics; give workdirs as --runs=A,B" in (
    capsys.readouterr().err
  )
