"""Training runs of the bundled model: files, resuming, and that gold answers have no effect."""

import hashlib
import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy

from configs import tiny
from sejax import method
from sejax import setup as setup_lib
from sejax.monitoring import metrics as monitoring
from sejax.monitoring import writers
from tests import runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """Returns a function that trains, by default two steps in a new workdir."""

  def run(recipe=None, workdir=None, **changes):
    return runs.run(workdir or tmp_path_factory.mktemp("run"), recipe, **changes)

  return run


def parameters(workdir):
  return safetensors.numpy.load_file(workdir / "model" / "model.safetensors")


@pytest.fixture
def right_and_wrong(run, tmp_path):
  """Returns the workdirs of two runs on the same problems, with right and with wrong golds."""

  def both(recipe=None):
    golds, workdirs = runs.golds(), []
    for name, answers in (("right", golds), ("wrong", [f"no {gold}" for gold in golds])):
      path = runs.write_set(tmp_path / name, answers)
      changes = {
        "data.source": "jsonl",
        "data.path": path,
        "data.name": "same",
        "eval.num_problems": 0,
      }
      workdirs.append(run(recipe, **changes))
    return workdirs

  return both


@pytest.mark.long
def test_gold_answers_do_not_reach_training(right_and_wrong):
  workdirs = right_and_wrong()
  right, wrong = map(parameters, workdirs)
  assert right.keys() == wrong.keys()
  assert all(np.array_equal(right[name], wrong[name]) for name in right)
  # The metrics show that the gold answers did differ.
  metrics = [list(writers.read(workdir / writers.METRICS)) for workdir in workdirs]
  assert any(a["pass@1"] != b["pass@1"] for a, b in zip(*metrics, strict=True))
  assert all(a["reward"] == b["reward"] for a, b in zip(*metrics, strict=True))


@pytest.mark.long
def test_supervision_does_follow_gold_answers(right_and_wrong):
  """Shows that the test above can fail: with a reward by gold answers, parameters do differ."""
  right, wrong = map(parameters, right_and_wrong("supervised"))
  assert any(not np.array_equal(right[name], wrong[name]) for name in right)


def test_what_a_run_leaves(run):
  workdir = run()
  summary = json.loads((workdir / "summary.json").read_text())
  assert summary["steps"] == 2
  assert summary["problems"] == 4
  assert summary["records"] == {"read": 8, "dropped": {}}
  for part in ("before", "after", "change"):
    assert summary[part].keys() == {"pass_at_1", "pass_at_1_error", "maj_at_4", "maj_at_4_error"}
  assert summary["change"]["pass_at_1"] == pytest.approx(
    summary["after"]["pass_at_1"] - summary["before"]["pass_at_1"]
  )
  assert {"data", "sample", "judge", "reward", "update", "evaluate"} <= summary["stages"].keys()
  metrics = list(writers.read(workdir / writers.METRICS))
  assert [line["step"] for line in metrics] == [0, 1]
  wanted = {"reward", "majority_share", "judge_mean", "entropy", "response_length", "pass@1"}
  wanted |= {
    "label_accuracy",
    "label_accuracy_count",
    "kl",
    "clipfrac",
    "truncated",
    "grad_norm",
    "constant_groups",
  }
  assert wanted <= metrics[0].keys(), wanted - metrics[0].keys()
  timing = list(writers.read(workdir / writers.TIMING))
  explained = monitoring.__doc__ + method.group_metrics.__doc__
  for name in {*metrics[0], *timing[-1]}:
    assert f"`{name}`" in explained or name.startswith("heldout_"), name
  assert timing[0]["compilations"] > 0
  assert timing[1]["tokens_per_second"] > 0
  assert len(list(writers.read(workdir / writers.GROUPS))) == 4
  assert "<svg" in (workdir / "report.html").read_text(encoding="utf-8")
  assert list((workdir / "tensorboard").iterdir())


@pytest.mark.long
def test_a_finished_run_that_is_started_again_stays_as_it_is(run):
  changes = {"train.steps": 1, "eval.num_problems": 0, "judge.use": False}
  workdir = run(**changes)
  names = [*(path.name for path in workdir.glob("*.jsonl")), "model/model.safetensors"]

  def digests():
    return {name: hashlib.sha256((workdir / name).read_bytes()).hexdigest() for name in names}

  before = digests()
  assert run(workdir=workdir, **changes) == workdir
  assert digests() == before


@pytest.mark.long
def test_a_run_does_not_end_before_where_it_is(run, monkeypatch):
  """It is refused at once, the workdir stays unchanged, and the first command can still resume."""
  changes = {"train.steps": 3, "eval.num_problems": 0, "judge.use": False, "checkpoint.every": 1}
  workdir = run(**changes)
  before = {path: path.read_bytes() for path in workdir.rglob("*.json*") if path.is_file()}
  for damage in (False, True):
    if damage:  # As if the run had been stopped before its end.
      (workdir / "summary.json").unlink()
    message = r"checkpoint of step 3, and this run has 2 steps; give config.train.steps=3 or more"
    monkeypatch.setattr(setup_lib, "set_up", None)
    with pytest.raises(ValueError, match=message):
      run(workdir=workdir, **changes | {"train.steps": 2})
    configuration = workdir / "config.json"
    assert configuration.read_bytes() == before[configuration]
  monkeypatch.undo()
  run(workdir=workdir, **changes)
  assert {path: path.read_bytes() for path in before} == before


def scores(workdir):
  """Returns the score saved with each checkpoint."""
  files = (workdir / "checkpoints").glob("[0-9]*/score/metadata")
  return {int(file.parts[-3]): json.loads(file.read_text())["score"] for file in files}


@pytest.mark.long
def test_a_checkpoint_has_a_score_only_where_it_was_measured(run):
  """A score is from an evaluation of the step itself, never an earlier one and never the reward."""
  changes = {"train.steps": 4, "eval.every": 2, "checkpoint.every": 1, "checkpoint.keep": 9}
  workdir = run(**changes, **{"judge.use": False})
  figures = [line.get("heldout_pass_at_1") for line in writers.read(workdir / writers.METRICS)]
  assert [figure is not None for figure in figures] == [False, True, False, True]
  assert scores(workdir) == dict(enumerate(figures, 1))
  memory = json.loads((workdir / "checkpoints" / "4" / "memory" / "metadata").read_text())
  assert memory.keys() == {"fingerprint", "data", "seconds", "before", "after", "evaluated"}


@pytest.mark.long
def test_without_evaluation_the_reward_is_the_score_and_older_checkpoints_go_on(run):
  changes = {"checkpoint.every": 1, "eval.num_problems": 0, "judge.use": False}
  workdir = run(**changes)
  rewards = [line["reward"] for line in writers.read(workdir / writers.METRICS)]
  assert scores(workdir) == dict(enumerate(rewards, 1))
  # An older version saved the score in the item "memory".
  step = workdir / "checkpoints" / "2"
  shutil.rmtree(step / "score")
  memory = json.loads((step / "memory" / "metadata").read_text())
  (step / "memory" / "metadata").write_text(json.dumps(memory | {"score": 0.5}))
  run(workdir=workdir, **changes | {"train.steps": 3})
  rewards = [line["reward"] for line in writers.read(workdir / writers.METRICS)]
  assert scores(workdir) == {1: rewards[0], 3: rewards[2]}


@pytest.mark.long
def test_a_run_that_collapses_stops_with_a_checkpoint(run, capsys):
  changes = {
    "train.stop_on_collapse": 1e-9,
    "checkpoint.best_by": "collapse",
    "eval.num_problems": 0,
    "judge.use": False,
  }
  workdir = run(**changes)
  (line,) = writers.read(workdir / writers.METRICS)
  score = line["majority_share"] * np.exp(-line["sampled_entropy"])
  assert line["collapse_score"] == pytest.approx(score)
  assert scores(workdir) == {1: -line["collapse_score"]}
  said = f"collapse_score={line['collapse_score']:.3f} reached config.train.stop_on_collapse=1e-09"
  assert f"stopped after step 1 of 2: {said}" in capsys.readouterr().out
  # It goes on where that is asked for.
  run(workdir=workdir, **changes | {"train.stop_on_collapse": None})
  lines = writers.read(workdir / writers.METRICS)
  assert scores(workdir) == {n: -line["collapse_score"] for n, line in enumerate(lines, 1)}


@pytest.mark.long
def test_a_batch_that_is_larger_than_the_set_holds_no_copies(run, tmp_path, monkeypatch):
  remarks = []
  monkeypatch.setattr(
    setup_lib.logging, "warning", lambda text, *values: remarks.append(text % values)
  )
  path = runs.write_set(tmp_path / "two", ["1", "2"])
  changes = {
    "data.source": "jsonl",
    "data.path": path,
    "eval.num_problems": 0,
    "log.sample_groups": 4,
    "train.steps": 1,
  }
  groups = list(writers.read(run(**changes) / writers.GROUPS))
  for key in ("texts", "verdicts"):
    assert len({json.dumps([group["id"], group[key]]) for group in groups}) == 4, key
  assert [remark for remark in remarks if "batch_size" in remark] == [
    "config.batch_size=4 is more than the 2 records of train: each occurs 2 times in a step, and is"
    " sampled anew each time"
  ]


@pytest.mark.long
def test_rewards_that_are_all_alike_change_nothing(run):
  """Without advantages there is no gradient and no step of Adam; weight decay is off."""
  changes = {"optimizer.weight_decay": 0.0, "method.format_penalty": 0.0, "eval.num_problems": 0}
  workdir = run("control", **changes)
  final = parameters(workdir)
  initial = safetensors.numpy.load_file(tiny.get_config().model.path + "/model.safetensors")
  for name, value in initial.items():
    np.testing.assert_array_equal(final[name], value.astype(np.float32), name)
  for line in writers.read(workdir / writers.METRICS):
    assert line["constant_groups"] == 1
    assert line["policy_loss"] == 0


@pytest.mark.long
def test_adapters_alone_are_trained_and_saved(run):
  changes = {"lora.rank": 4, "lora.targets": ("q", "down"), "eval.num_problems": 0}
  workdir = run(**changes)
  final = parameters(workdir)
  initial = safetensors.numpy.load_file(tiny.get_config().model.path + "/model.safetensors")
  assert final.keys() == initial.keys()
  for name, value in initial.items():
    moved = not np.array_equal(final[name], value.astype(np.float32))
    targeted = name.startswith("model.layers") and ("q_proj.weight" in name or "down_proj" in name)
    assert moved == targeted, name
  saved = ocp.StandardCheckpointer().metadata(workdir / "checkpoints" / "2" / "state")
  trained = [x.shape for x in jax.tree.leaves(saved.item_metadata.tree)]
  # Arrays A and B of two targets with two moments each, and a few counters.
  assert sum(len(shape) == 3 for shape in trained) == 12
  assert max(np.prod(shape) for shape in trained) < 4 * 4 * 512 + 1
  # A resumed run restores them.
  assert run(workdir=workdir, **changes | {"train.steps": 3}) == workdir
  assert len(list(writers.read(workdir / writers.METRICS))) == 3
