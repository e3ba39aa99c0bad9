"""Checkpoints: which steps are kept, what is restored, and how damaged files are handled."""

import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sejax import config as config_lib
from sejax.learner import checkpoints as checkpoints_lib
from sejax.learner import optimizer
from sejax.models.transformer.layout import TRAINING
from sejax.parallel import layouts, meshes
from tests import subprocesses
from tests.subprocesses import ROOT


@pytest.fixture
def options():
  options = config_lib.default().checkpoint
  options.update(keep=2, keep_best=1)
  return options


def make_state(value):
  return {"w": jnp.full((3, 2), value), "count": jnp.int32(value), "key": jax.random.key(value)}


def save(directory, options, steps, scores=None):
  with checkpoints_lib.Checkpoints(directory, options) as checkpoints:
    for step, score in zip(steps, scores or [0.0] * len(steps), strict=True):
      progress = checkpoints_lib.Progress(7, [{"turn": step}])
      checkpoints.save(step, make_state(step), progress, score)


def restore(directory, options, fingerprint=7):
  with checkpoints_lib.Checkpoints(directory, options) as checkpoints:
    return checkpoints.restore(make_state(0), fingerprint)


def test_a_run_goes_on_from_the_last_step(tmp_path, options, caplog):
  assert restore(tmp_path / "c", options) is None
  save(tmp_path / "c", options, [1, 2])
  found = restore(tmp_path / "c", options)
  assert found.step == 2
  assert found.progress == checkpoints_lib.Progress(7, [{"turn": 2}])
  for name, value in make_state(2).items():
    same = found.state[name] == value
    assert bool(jnp.all(same)), name
  assert not caplog.messages, "nothing was wrong"


def kept(directory):
  return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def save_elsewhere(directory, options, steps, scores):
  """Saves in a new process, which knows earlier steps only from the disk."""
  code = (
    "import json, pathlib, sys\n"
    "import ml_collections\n"
    "from tests.learner import test_checkpoints\n"
    "directory, options, steps, scores = map(json.loads, sys.argv[1:])\n"
    "options = ml_collections.ConfigDict(options)\n"
    "test_checkpoints.save(pathlib.Path(directory), options, steps, scores)\n"
  )
  given = (str(directory), options.to_dict(), steps, scores)
  subprocess.run(
    [sys.executable, "-c", code, *map(json.dumps, given)],
    cwd=ROOT,
    env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    check=True,
  )


def forget_scores(directory):
  """Removes the scores, which older versions did not save."""
  for path in directory.glob("*/score"):
    shutil.rmtree(path)


SCORES = [0.1, 0.9, 0.3, 0.2, 0.1]


def test_a_reader_changes_nothing_of_a_run(tmp_path, options):
  """A step may be unreadable only because the run is still saving it."""
  directory = tmp_path / "c"
  save(directory, options, [1, 2])
  shutil.rmtree(directory / "2" / "state")
  (directory / "3.orbax-checkpoint-tmp").mkdir()
  before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
  with checkpoints_lib.Checkpoints(directory, options, read_only=True) as checkpoints:
    assert checkpoints.restore(make_state(0), 7).step == 1
  assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before
  with checkpoints_lib.Checkpoints(directory, options) as checkpoints:
    assert checkpoints.restore(make_state(0), 7).step == 1
  assert kept(directory) == [1]
  assert (tmp_path / "damaged" / "2").is_dir()
  assert not (directory / "3.orbax-checkpoint-tmp").exists()


def test_a_directory_that_is_not_there_holds_nothing_to_read(tmp_path, options):
  with checkpoints_lib.Checkpoints(tmp_path / "c", options, read_only=True) as checkpoints:
    assert checkpoints.restore(make_state(0), 7) is None


def test_the_latest_and_the_best_are_kept(tmp_path, options):
  save(tmp_path / "c", options, [1, 2, 3, 4, 5], SCORES)
  assert kept(tmp_path / "c") == [2, 4, 5]


@pytest.mark.long
def test_a_new_process_keeps_the_best_of_those_before(tmp_path, options):
  save(tmp_path / "c", options, [1, 2, 3, 4, 5], SCORES)
  save_elsewhere(tmp_path / "c", options, [6], [0.5])
  assert kept(tmp_path / "c") == [2, 5, 6]
  save_elsewhere(tmp_path / "c", options, [7, 8, 9], [0.2, 0.95, None])
  assert kept(tmp_path / "c") == [8, 9]
  save_elsewhere(tmp_path / "c", options, [10, 11], [None, None])
  assert kept(tmp_path / "c") == [8, 10, 11]


@pytest.mark.long
@pytest.mark.parametrize(
  ("latest", "best", "scores", "stay"),
  [
    (2, 2, [0.1, 0.9, 0.3, 0.8, 0.1, 0.2], [2, 4, 5, 6]),
    (1, 2, [0.5, 0.5, 0.5, 0.5, 0.1, 0.2], [3, 4, 6]),  # ties go to the later step
    (1, 3, [None, 0.2, None, None, 0.1, None], [2, 5, 6]),  # only two steps have a score
    (1, 3, [None] * 6, [6]),
    (2, 0, [0.1, 0.9, 0.3, 0.8, 0.1, 0.2], [5, 6]),
    (1, 1, [0.0, -1.0, None, None, None, None], [1, 6]),  # 0 counts as a score
  ],
)
@pytest.mark.parametrize("opened", ["once", "each time"])
def test_what_is_kept(tmp_path, options, latest, best, scores, stay, opened):
  options.update(keep=latest, keep_best=best)
  if opened == "once":
    save(tmp_path / "c", options, range(1, 7), scores)
  else:
    for step, score in enumerate(scores, 1):
      save(tmp_path / "c", options, [step], [score])
  assert kept(tmp_path / "c") == stay


def test_the_best_stays_where_a_damaged_step_was_set_aside(tmp_path, options):
  options.keep_best = 2
  save(tmp_path / "c", options, [1, 2, 3, 4, 5], [0.1, 0.9, 0.8, 0.2, None])
  (tmp_path / "c" / "5" / "memory" / "metadata").write_text("{")
  with checkpoints_lib.Checkpoints(tmp_path / "c", options) as checkpoints:
    assert checkpoints.restore(make_state(0), 7).step == 4
    for step in (5, 6):
      checkpoints.save(step, make_state(step), checkpoints_lib.Progress(7), 0.3)
  assert kept(tmp_path / "c") == [2, 3, 5, 6]


@pytest.mark.parametrize("damage", ["", "{", '{"score": "high"}', "[]"])
def test_a_damaged_score_costs_only_itself(tmp_path, options, damage):
  save(tmp_path / "c", options, [1, 2, 3], [0.9, 0.5, 0.1])
  (tmp_path / "c" / "1" / "score" / "metadata").write_text(damage)
  save(tmp_path / "c", options, [4], [0.2])
  assert kept(tmp_path / "c") == [2, 3, 4]
  assert restore(tmp_path / "c", options).step == 4


def test_steps_of_an_older_version_stay_while_they_are_the_latest(tmp_path, options):
  save(tmp_path / "c", options, [1, 2, 3], [0.9, 0.8, 0.7])
  forget_scores(tmp_path / "c")
  assert restore(tmp_path / "c", options).step == 3
  save(tmp_path / "c", options, [4], [0.1])
  assert kept(tmp_path / "c") == [3, 4]
  save(tmp_path / "c", options, [5, 6], [None, None])
  assert kept(tmp_path / "c") == [4, 5, 6]


def test_a_step_that_is_saved_twice_stays(tmp_path, options):
  save(tmp_path / "c", options, [3])
  with checkpoints_lib.Checkpoints(tmp_path / "c", options) as checkpoints:
    checkpoints.save(3, make_state(9), checkpoints_lib.Progress(7), 0.0)
  assert restore(tmp_path / "c", options).state["count"] == 3


@pytest.mark.parametrize("damage", ["cut off", "missing"])
def test_a_damaged_step_costs_only_itself(tmp_path, options, damage):
  save(tmp_path / "c", options, [1, 2])
  for path in (tmp_path / "c" / "2" / "state").rglob("*"):
    if path.is_file() and damage == "cut off":
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif path.is_file():
      path.unlink()
  found = restore(tmp_path / "c", options)
  assert found.step == 1
  assert np.array_equal(found.state["w"], np.full((3, 2), 1))
  assert (tmp_path / "damaged" / "2").is_dir()
  save(tmp_path / "c", options, [2])
  assert restore(tmp_path / "c", options).step == 2


def test_where_all_steps_are_damaged_the_run_does_not_start_anew(tmp_path, options):
  save(tmp_path / "c", options, [1])
  for path in (tmp_path / "c" / "1" / "memory").rglob("*"):
    path.write_bytes(b"{")
  with pytest.raises(ValueError, match=r"no checkpoint in .* can be read: 1 \("):
    restore(tmp_path / "c", options)
  assert (tmp_path / "damaged" / "1").is_dir()


def test_other_frozen_weights_are_refused_and_nothing_is_moved(tmp_path, options):
  save(tmp_path / "c", options, [1])
  with pytest.raises(ValueError, match="fingerprint 7, here 8"):
    restore(tmp_path / "c", options, fingerprint=8)
  assert restore(tmp_path / "c", options).step == 1


def test_a_fingerprint_tells_bits_and_places_apart():
  rng = np.random.default_rng(0)
  tree = {"a": rng.normal(size=(4, 5)).astype(np.float32), "b": jnp.ones((3,), jnp.bfloat16)}
  prints = [checkpoints_lib.fingerprint(tree)]
  changed = tree["a"].copy()
  changed[2, 3] = np.nextafter(changed[2, 3], np.float32(9))
  swapped = tree["a"].copy()
  swapped[0, 0], swapped[3, 4] = tree["a"][3, 4], tree["a"][0, 0]
  for other in (changed, swapped, tree["a"][::-1], tree["a"].T):
    prints.append(checkpoints_lib.fingerprint(tree | {"a": np.ascontiguousarray(other)}))
  assert len(set(prints)) == len(prints)
  assert checkpoints_lib.fingerprint(jax.tree.map(jnp.asarray, tree)) == prints[0]


def numbers(*shape, start=0):
  return start + jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)


def tower(*axes, start=0):
  """Returns parameters of two vision blocks, whose queries, keys and values have these axes."""
  blocks = {
    "proj": {"kernel": numbers(2, 4, 4, start=start)},
    "qkv": {
      "kernel": numbers(2, 8, *axes, start=start),
      "bias": numbers(2, *axes, start=start).astype(jnp.bfloat16),
    },
  }
  return {"vision": {"blocks": blocks}}


def tower_state(*axes, start):
  """Returns parameters and the optimizer's state, in which every array has other numbers."""
  params = tower(*axes, start=start)
  state = optimizer.make(config_lib.default().optimizer, 1000).init(params)
  leaves, treedef = jax.tree.flatten(state)
  varied = [x + np.asarray(start + n).astype(x.dtype) for n, x in enumerate(leaves, 1)]
  return {"params": params, "optimizer": jax.tree.unflatten(treedef, varied)}


def check_fused_is_restored(directory, options, mesh):
  """Saves queries, keys and values in one axis, as older versions did, and restores them."""
  with checkpoints_lib.Checkpoints(directory, options) as checkpoints:
    checkpoints.save(1, tower_state(12, start=1), checkpoints_lib.Progress(7), 0.0)
  like = tower_state(3, 4, start=0)
  like = jax.device_put(like, layouts.shardings(like, mesh, TRAINING))
  with checkpoints_lib.Checkpoints(directory, options) as checkpoints:
    found = checkpoints.restore(like, 7)
  assert found.step == 1

  def check(x, want, target):
    assert (x.shape, x.dtype, x.sharding) == (target.shape, target.dtype, target.sharding)
    np.testing.assert_array_equal(x, np.asarray(want).reshape(x.shape))

  jax.tree.map(check, found.state, tower_state(12, start=1), like)


def test_queries_keys_and_values_of_an_older_version_are_restored(tmp_path, options):
  check_fused_is_restored(tmp_path / "c", options, meshes.create(dict.fromkeys(meshes.AXES, 1)))


@pytest.mark.long
def test_queries_keys_and_values_of_an_older_version_are_restored_on_a_mesh(tmp_path):
  subprocesses.wait(subprocesses.start("tests.learner.restore_fused_on_devices", 8, tmp_path / "c"))


@pytest.mark.long
@pytest.mark.parametrize("axes", [(4, 3), (15,), (36,)])
def test_queries_keys_and_values_of_another_model_are_refused(tmp_path, options, axes):
  with checkpoints_lib.Checkpoints(tmp_path / "c", options) as checkpoints:
    checkpoints.save(1, tower_state(*axes, start=1), checkpoints_lib.Progress(7), 0.0)
  like = tower_state(3, 4, start=0)
  with (
    checkpoints_lib.Checkpoints(tmp_path / "c", options, read_only=True) as checkpoints,
    pytest.raises(ValueError, match=r": 1 \(.*qkv/bias has shape .*, here \(2, 3, 4\)\);") as error,
  ):
    checkpoints.restore(like, 7)
  assert "\n" not in str(error.value)


def test_the_fingerprint_is_that_of_an_older_version():
  """It hashed arrays with queries, keys and values in one axis of 12."""
  assert checkpoints_lib.fingerprint((tower(3, 4), None)) == 1640482680
