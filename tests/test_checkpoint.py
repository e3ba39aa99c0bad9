"""Checkpoints: what is kept, what is found again, and what a damaged one costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sejax import checkpoint
from sejax import config as config_lib


@pytest.fixture
def options():
  options = config_lib.default().checkpoint
  options.update(keep=2, keep_best=1)
  return options


def make_state(value):
  return {"w": jnp.full((3, 2), value), "count": jnp.int32(value), "key": jax.random.key(value)}


def save(directory, options, steps, scores=None):
  with checkpoint.Checkpoints(directory, options) as checkpoints:
    for step, score in zip(steps, scores or [0.0] * len(steps), strict=True):
      memory = {"fingerprint": 7, "data": [{"turn": step}]}
      checkpoints.save(step, make_state(step), memory, score)


def restore(directory, options, fingerprint=7):
  with checkpoint.Checkpoints(directory, options) as checkpoints:
    return checkpoints.restore(make_state(0), fingerprint)


def test_a_run_goes_on_from_the_last_step(tmp_path, options):
  assert restore(tmp_path / "c", options) is None
  save(tmp_path / "c", options, [1, 2])
  found = restore(tmp_path / "c", options)
  assert found.step == 2
  assert found.memory == {"fingerprint": 7, "data": [{"turn": 2}]}
  for name, value in make_state(2).items():
    same = found.state[name] == value
    assert bool(jnp.all(same)), name


def test_the_latest_and_the_best_are_kept(tmp_path, options):
  save(tmp_path / "c", options, [1, 2, 3, 4, 5], [0.1, 0.9, 0.3, 0.2, 0.1])
  kept = sorted(int(path.name) for path in (tmp_path / "c").iterdir() if path.name.isdigit())
  assert kept == [2, 4, 5]


def test_a_step_that_is_saved_twice_stays(tmp_path, options):
  save(tmp_path / "c", options, [3])
  with checkpoint.Checkpoints(tmp_path / "c", options) as checkpoints:
    checkpoints.save(3, make_state(9), {"fingerprint": 7}, 0.0)
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
  prints = [checkpoint.fingerprint(tree)]
  changed = tree["a"].copy()
  changed[2, 3] = np.nextafter(changed[2, 3], np.float32(9))
  swapped = tree["a"].copy()
  swapped[0, 0], swapped[3, 4] = tree["a"][3, 4], tree["a"][0, 0]
  for other in (changed, swapped, tree["a"][::-1], tree["a"].T):
    prints.append(checkpoint.fingerprint(tree | {"a": np.ascontiguousarray(other)}))
  assert len(set(prints)) == len(prints)
  assert checkpoint.fingerprint(jax.tree.map(jnp.asarray, tree)) == prints[0]
