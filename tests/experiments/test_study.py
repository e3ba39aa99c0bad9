"""The study's plan, what its runs are read off by, and what its results come to."""

import concurrent.futures
import json
import pathlib
import signal
import subprocess
import time

import jax
import numpy as np
import pytest

from experiments.study import cells, measure, plots, summary, workers
from experiments.study import results as results_lib
from experiments.study.cells import Cell
from experiments.study.results import MOMENTS, ReadOff, Study
from experiments.tiny_vlm import abilities
from sejax import models
from sejax.config import validation
from sejax.evaluation.answering import Answers
from sejax.rewards.recipes import RECIPES
from tests.subprocesses import ROOT

N = 40


def test_the_cells_are_those_that_were_asked_for():
  found = [(cell.start, cell.method) for cell in cells.cells()]
  assert len({cell.name for cell in cells.cells()}) == len(found)
  counts = {pair: found.count(pair) for pair in found}
  middle = {method for start, method in counts if start == "middle"}
  assert middle == {"full", *RECIPES, *cells.OBJECTIVES}
  for (start, method), count in counts.items():
    assert count == (5 if start == "middle" and method in cells.COMPARED else 2)
  for start in ("weak", "varied"):
    elsewhere = {method for other, method in counts if other == start}
    assert elsewhere == {"full", "majority", "frequency", "supervised", "co_teacher", "empo"}


def test_each_cell_samples_as_many_tokens():
  """Of a verdict and a trajectory with a Judge, of two trajectories with a teacher."""
  assert Cell("middle", "full", 0).steps == 101
  assert Cell("middle", "gspo", 0).steps == 101
  assert Cell("middle", "cocov", 0).steps == 101
  assert Cell("middle", "majority", 0).steps == 247
  assert Cell("middle", "co_teacher", 0).steps == 124
  assert Cell("varied", "majority", 0).steps == 124


@pytest.mark.parametrize("cell", cells.cells()[::2], ids=lambda cell: cell.name)
def test_configurations_differ_in_what_the_cell_names(cell):
  config = measure.configuration(cell)
  validation.validate(config)
  assert config.seed == cell.seed
  assert config.batch_size * config.group_size == 128
  assert pathlib.Path(config.model.path).name == (
    "tiny_vlm" if cell.start == "middle" else cell.start
  )
  assert config.loss.objective == (cell.method if cell.method in cells.OBJECTIVES else "grpo")
  recipe = RECIPES.get(cell.method)
  assert config.judge.use == (recipe is None or recipe.judged)


@pytest.fixture
def answered():
  """Two figures: 3 of 8 right and leading alone, and 2 of 8 right in a tie of three answers."""
  ids = np.array([[0, 0, 0, 1, 1, 2, 3, 4], [0, 0, 1, 1, 2, 2, 3, -1]], np.int32)
  shape = ids.shape
  group = Answers(
    index=np.arange(2),
    texts=[[""] * 8] * 2,
    answer_ids=ids,
    correct=ids == 0,
    format_ok=np.ones(shape, bool),
    lengths=np.full(shape, 20, np.int32),
    truncated=np.zeros(shape, bool),
    judge_scores=np.where(ids == 0, 1.0, 0.2).astype(np.float32),
    judge_valid=ids >= 0,
  )
  greedy = group._replace(correct=np.array([[True], [False]]))
  return abilities.Sampled(group, greedy, np.array(["dots", "bars"]))


def test_read_offs_keep_every_figure(answered):
  digits = measure.read_off(answered)
  assert digits == {"pass_at_1": "32", "maj_at_8": "13", "greedy": "10"}
  read = ReadOff.of(digits | {"length": 20.0})
  np.testing.assert_allclose(read.values["pass_at_1"], [3 / 8, 2 / 8])
  np.testing.assert_allclose(read.values["maj_at_8"], [1, 1 / 3])
  np.testing.assert_allclose(read.values["greedy"], [1, 0])
  assert measure.scores(answered.group) == {"0.2": [10, 0], "1": [0, 5]}


def test_checkpoints_nearest_to_equal_shares_of_the_tokens_are_read(monkeypatch):
  monkeypatch.setattr(measure, "TOKENS", 1000)
  tokens = np.arange(1, 14) * 100
  assert measure.nearest(tokens, list(range(1, 11)), 1) == [2, 4, 6, 8, 10]
  assert measure.nearest(tokens, [3, 6, 9, 12], 3) == [3, 3, 6, 9, 9]
  assert measure.nearest(tokens, [3, 6, 8, 11], 3) == [3, 3, 6, 8, 11]
  with pytest.raises(RuntimeError, match="no checkpoint is near step 6; there are"):
    measure.nearest(tokens, [2, 4, 10], 1)


def test_curves_are_means_in_equal_shares_of_the_tokens(monkeypatch):
  monkeypatch.setattr(measure, "_BINS", 2)
  lines = [
    {"sampled_tokens": 100, "pass@1": 0.1, "label_accuracy": 1.0, "label_accuracy_count": 3},
    {"sampled_tokens": 100, "pass@1": 0.3, "label_accuracy": 0.0, "label_accuracy_count": 1},
    {"sampled_tokens": 200, "pass@1": 0.5},
  ]
  assert measure.curves(lines) == {
    "tokens": [200, 400],
    "label_accuracy_count": [4, 0],
    "pass@1": [0.2, 0.5],
    "label_accuracy": [0.75, None],
  }


def part(rng, right, *, reads=5, score=(0.5,), labels=None):
  """A cell whose samples are right by chance: a share after each read-off."""
  found = []
  for number in range(reads):
    share = right[min(number, len(right) - 1)]
    found.append(
      {
        "step": 20 * (number + 1),
        "tokens": 1000 * (number + 1),
        "collapse_score": score[min(number, len(score) - 1)],
        "length": 26.0,
        "pass_at_1": "".join(map(str, rng.binomial(8, share, N))),
        "maj_at_8": "".join(map(str, rng.binomial(1, share, N))),
        "greedy": "".join(map(str, rng.binomial(1, share, N))),
      }
    )
  labels = labels or [0.8] * 50
  curves = {
    "tokens": [100 * (i + 1) for i in range(50)],
    "label_accuracy_count": [60] * 50,
    "label_accuracy": labels,
    "pass@1": [0.5] * 50,
  }
  measured = {"steps": 100, "tokens": 5000, "curves": curves, "read": found}
  return measured | {"conditions": cells.conditions("middle"), "seconds": [60.0, 20.0]}


def results(found):
  rng = np.random.default_rng(7)
  start = part(rng, [0.5], reads=1)["read"][0]
  del start["collapse_score"]
  measures = {"pass_at_1": [0.5, 0.02], "judge_auc": [0.8, 0.01]}
  return {
    "starts": {
      "middle": {
        "conditions": cells.conditions("middle"),
        "read": start,
        "measures": measures,
        "scores": {"1": [30, 90]},
      }
    },
    "cells": found,
  }


def test_gains_are_read_at_the_best_the_chosen_and_the_last_read_off():
  rng = np.random.default_rng(3)
  one = part(rng, [0.5, 0.6, 0.9, 0.7, 0.2], score=(0.5, 0.1, 0.2, 0.3, 0.4))
  study = Study.of(results({"middle-full-0": one}))
  (only,) = study.runs["middle", "full"]
  assert [only.reads[only.number(moment)].tokens for moment in MOMENTS] == [3000, 2000, 5000]
  before = study.starts["middle"].values["pass_at_1"]
  expected = np.array(list(one["read"][4]["pass_at_1"]), float) / 8 - before
  np.testing.assert_allclose(study.gains("middle", "full", "last"), [expected])


def test_the_best_of_equal_read_offs_gains_nothing():
  """Each half of the figures is read where the other half is best."""
  gains = []
  for seed in range(40):
    one = part(np.random.default_rng(100 + seed), [0.5])
    (only,) = Study.of(results({"middle-full-0": one})).runs["middle", "full"]
    gains.append(only.values("best", "pass_at_1").mean() - 0.5)
  # The highest of five means of 40 figures and 8 samples is .033 too high.
  assert abs(np.mean(gains)) < 3 * np.std(gains) / np.sqrt(40)
  assert np.std(gains) < 0.06


def test_differences_are_paired_by_seed():
  rng = np.random.default_rng(4)
  found = {f"middle-full-{seed}": part(rng, [0.7]) for seed in range(3)}
  found |= {f"middle-majority-{seed}": part(rng, [0.6]) for seed in (1, 2, 3)}
  study = Study.of(results(found))
  both = [study.gains("middle", method, "last") for method in ("full", "majority")]
  np.testing.assert_allclose(
    study.differences("middle", ("full", "majority"), "last"), both[0][1:] - both[1][:2]
  )


@pytest.mark.parametrize(("seeds", "spread"), [(2, 0.0), (2, 0.01), (5, 0.01), (5, 0.03)])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds, spread, monkeypatch):
  """Effects of seeds and of 1,024 figures; 95 of 100, but for what 40 trials cannot tell."""
  monkeypatch.setattr(summary, "_DRAWS", 300)
  held, widths, trials = 0, [], 40
  for trial in range(trials):
    rng = np.random.default_rng(trial)
    values = rng.normal(0, spread, (seeds, 1)) + rng.normal(0, 0.25, (1, 1024))
    values += rng.normal(0, 0.25, (seeds, 1024))
    interval = summary.bootstrap(values, seed=trial)
    held += interval.low <= 0 <= interval.high
    widths.append(interval.high - interval.low)
  true = np.sqrt(spread**2 / seeds + 0.25**2 / 1024 * (1 + 1 / seeds))
  assert held >= 33
  assert 0.8 < np.mean(widths) / (2 * 1.96 * true) < 1.5


def test_the_interval_of_one_seed_is_that_of_the_figures():
  values = np.random.default_rng(0).normal(0, 1, (1, 400))
  interval = summary.bootstrap(values)
  error = values.std(ddof=1) / 20
  assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_a_collapse_is_told_in_tokens():
  """A fall after three of five read-offs, one at once, a rise, and what may be chance."""
  shares = {0: [0.5, 0.8, 0.8, 0.5, 0.4], 1: [0.8, 0.4], 2: [0.5, 0.8], 3: [0.6]}
  rng = np.random.default_rng(5)
  found = {f"middle-majority-{seed}": part(rng, right) for seed, right in shares.items()}
  runs = Study.of(results(found)).runs["middle", "majority"]
  assert [run.collapses_after for run in runs] == [3000, 1000, None, None]
  values = [read.values["pass_at_1"] for read in runs[0].reads]
  best = max(values, key=np.mean)
  assert runs[0].fall.value == pytest.approx((best - values[-1]).mean())
  assert summary.collapses(runs) == "3k, 1k, never, never"
  assert summary.collapses(runs[2:]) == "never"


def test_what_is_known_is_told_and_drawn_whatever_is_missing(tmp_path):
  rng = np.random.default_rng(8)
  without = part(rng, [0.5])
  without["curves"] = {"tokens": [100 * (i + 1) for i in range(50)]}
  for found in (
    {},
    {"middle-majority-1": part(rng, [0.5])},
    {"middle-full-0": part(rng, [0.6]), "middle-majority-1": without},
    {"middle-full-0": part(rng, [0.6]), "weak-full-0": part(rng, [0.6])},
  ):
    study = Study.of(results(found))
    told = "\n".join(summary.lines(study))
    assert "middle: pass_at_1  50.0 +- 2.0" in told
    assert "1: 100.0, 100.0" in told
    assert "above t_h=0.95: 100.0, 100.0" in told
    assert "below t_l=0.4: 0.0, 0.0" in told
    assert ("| middle | full | 1 | 100 | " in told) == ("middle-full-0" in found)
    assert "weak, full" not in told  # Nothing is known of that start.
    plots.draw(tmp_path, study)


def test_results_are_written_with_a_line_per_cell_and_read_again(tmp_path):
  rng = np.random.default_rng(6)
  found = results({"middle-majority-0": part(rng, [0.5]), "middle-full-0": part(rng, [0.6])})
  file = tmp_path / results_lib.FILE
  file.write_text(results_lib.to_json(found), encoding="utf-8")
  assert results_lib.load(file) == found
  lines = file.read_text(encoding="utf-8").splitlines()
  assert [line.split(":")[0].strip() for line in lines if "-0" in line[:24]] == [
    '"middle-full-0"',
    '"middle-majority-0"',
  ]
  assert results_lib.load(tmp_path / "none.json") == {"starts": {}, "cells": {}}
  first, second, *_, last = summary.plan(found)
  assert first == f"2 of {len(cells.cells())} cells are done; to run, in this order:"
  assert second == "  middle-frequency-0: about 247 steps, 1 min"
  left = (len(cells.cells()) - 2) * 80 / 3600
  assert last == f"hours of one core: 0.0 for what is done, about {left:.1f} for the rest"


@pytest.mark.parametrize("change", [{"tokens": 5}, {"start": "0123"}, {"problems": 7}])
def test_results_of_another_budget_or_start_are_refused(tmp_path, change):
  made = {"conditions": cells.conditions("middle") | change}
  found = results({"middle-full-0": part(np.random.default_rng(6), [0.5]) | made})
  file = tmp_path / results_lib.FILE
  file.write_text(results_lib.to_json(found), encoding="utf-8")
  with pytest.raises(ValueError, match=f"middle-full-0 has {next(iter(change))}="):
    results_lib.load(file)


def test_a_part_that_fails_is_tried_again_and_said(tmp_path, monkeypatch, capsys):
  """`middle-full-0` works at the second try, `middle-majority-0` never."""
  script = tmp_path / "measure.py"
  script.write_text(
    "import json, os, pathlib, sys\n"
    "workdir, name = pathlib.Path(sys.argv[1]), sys.argv[2]\n"
    f"done = {{'conditions': {cells.conditions('middle')}}}\n"
    "seen = workdir / f'{name}.seen'\n"
    "if name.startswith('middle-full') and seen.exists():\n"
    "  cores = len(os.sched_getaffinity(0))\n"
    "  (workdir / 'parts' / f'{name}.json').write_text(json.dumps(done | {'cores': cores}))\n"
    "else:\n"
    "  seen.touch()\n"
    "  sys.exit('no')\n"
  )
  real = workers.subprocess.Popen

  def popen(command, **options):
    return real([command[0], str(script), *command[3:]], **options)

  monkeypatch.setattr(workers.subprocess, "Popen", popen)
  names = ["middle-full-0", "middle-majority-0"]
  assert not workers.run(tmp_path, names, 1, None)
  printed = capsys.readouterr().out
  assert "middle-majority-0 failed, try 2 of 2" in printed
  known = json.loads((tmp_path / results_lib.FILE).read_text(encoding="utf-8"))
  assert set(known["cells"]) == {"middle-full-0"}
  assert known["cells"]["middle-full-0"]["cores"] == 1
  assert (tmp_path / "logs" / "middle-majority-0.log").read_text(encoding="utf-8").count("no") == 2
  # What is done is not done again, and after no hours nothing is begun.
  assert workers.run(tmp_path, names[:1], 1, None)
  assert not workers.run(tmp_path, names, 1, 0.0)


def test_stopping_ends_what_runs(tmp_path, monkeypatch):
  (tmp_path / "logs").mkdir()
  script = "import pathlib, sys, time; pathlib.Path(sys.argv[1], 'began').touch(); time.sleep(99)"
  real, started = workers.subprocess.Popen, []

  def popen(command, **options):
    started.append(real([command[0], "-c", script, *command[3:]], **options))
    return started[-1]

  monkeypatch.setattr(workers.subprocess, "Popen", popen)
  team = workers.Workers(tmp_path, 1)
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    measured = pool.submit(team.measure, "middle-full-0")
    while not (tmp_path / "began").exists():
      time.sleep(0.01)
    team.stop()
    assert measured.result(timeout=30) is None
    assert pool.submit(team.measure, "middle-full-1").result(timeout=30) is None
  assert [process.returncode for process in started] == [-signal.SIGTERM]


@pytest.mark.long
def test_a_cell_gives_the_same_numbers_in_another_folder(tmp_path, monkeypatch):
  """In the first it is stopped in between, and goes on."""
  monkeypatch.setattr(measure, "TOKENS", 6000)
  monkeypatch.setattr(measure, "PROBLEMS", 32)
  monkeypatch.setattr(cells, "TOKENS", 6000)
  cell = Cell("middle", "majority", 3)
  started = subprocess.run(
    [*measure.command(cell, tmp_path / "a"), "--config.train.steps=1"], cwd=ROOT, check=False
  )
  assert started.returncode == 0
  # Steps that were logged, but not saved, are no tokens: they are taken back.
  with (tmp_path / "a" / "metrics.jsonl").open("a", encoding="utf-8") as file:
    file.write('{"step": 1, "sampled_tokens": 9000}\n')
  found = [measure.measure_cell(cell, tmp_path / name) for name in ("a", "b")]
  for one in found:
    assert len(one.pop("seconds")) == 2
  assert found[0] == found[1]
  assert found[0]["steps"] == 2
  assert found[0]["tokens"] >= 6000
  assert [read["step"] for read in found[0]["read"]] == [1, 1, 1, 1, 2]
  assert all(len(read["pass_at_1"]) == 32 for read in found[0]["read"])
  # The policy of a checkpoint is that of the model which the run exported at that step.
  _, exported = models.load(tmp_path / "a" / "model")
  read = measure.policy(tmp_path / "a" / "checkpoints" / "1", exported)
  jax.tree.map(np.testing.assert_array_equal, read, exported)
