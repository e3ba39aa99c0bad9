"""Cutting a rollout into mini-batches of micro-batches, on the host and on devices."""

import types

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from sejax import models
from sejax.learner import minibatches
from sejax.learner.learner import Learner
from tests import subprocesses


@pytest.fixture(scope="module")
def mesh():
  return Mesh(np.array(jax.devices()[:1]), ("data",))


@pytest.mark.parametrize(
  ("longest", "buckets", "size"),
  [
    (1, (), 16),
    (16, (), 16),
    (17, (), 32),
    (33, (), 64),
    (64, (), 64),
    (3, (5,), 5),
    (6, (5,), 64),
  ],
)
def test_the_smallest_size_that_holds_the_longest_response(longest, buckets, size):
  assert minibatches.Sizes(1, 1, 64, buckets).response(longest) == size


def test_mini_batches_hold_whole_groups_in_their_order(mesh):
  rows = np.arange(12 * 3).reshape(12, 3)
  parts = minibatches.Cutter(mesh, minibatches=2, micro_batches=3).cut(rows)
  assert [part.shape for part in parts] == [(3, 2, 3)] * 2
  assert np.array_equal(np.concatenate([np.asarray(p).reshape(-1, 3) for p in parts]), rows)


def test_rows_may_be_counted_by_a_later_axis(mesh):
  positions = np.arange(3 * 4 * 5).reshape(3, 4, 5)
  parts = minibatches.Cutter(mesh, minibatches=2, micro_batches=2).cut(positions, axis=1)
  assert [part.shape for part in parts] == [(2, 3, 1, 5)] * 2
  for n, part in enumerate(parts):
    for m in range(2):
      assert np.array_equal(part[m, :, 0], positions[:, 2 * n + m])


def test_rows_on_devices_are_cut_there_as_on_the_host():
  subprocesses.wait(subprocesses.start("tests.learner.cut_on_devices", 8))


def test_features_of_a_rollout_are_cut_once_and_given_up(mesh):
  """Otherwise the devices would hold them twice during the updates."""
  rows = np.arange(8 * 5 * 3, dtype=np.float32).reshape(8, 5, 3)
  features = {"level": jax.device_put(rows)}
  lengths, ids = np.full((8, 2), 4), np.zeros((8, 6), np.int32)
  rollout = types.SimpleNamespace(
    batch=types.SimpleNamespace(
      actor=models.Prompt(ids, np.full(8, 6), np.zeros((3, 8, 6), np.int32)),
      packed_images=ids,
      real=np.full(8, True),
    ),
    result=types.SimpleNamespace(
      tokens=np.zeros((8, 2, 4), np.int32),
      lengths=lengths,
      mask=np.full((8, 2, 4), True),
      truncated=np.full((8, 2), False),
      behaviour_logp=-np.arange(64.0).reshape(8, 2, 4),
    ),
    group=types.SimpleNamespace(advantage=np.zeros((8, 2))),
    in_loss=np.full(8, True),
    features=features,
  )
  learner = Learner(
    updater=None,
    mesh=mesh,
    frozen=None,
    adapters=None,
    sizes=minibatches.Sizes(2, 2, 4, ()),
    seed=0,
    mask_truncated=False,
    encode=lambda params, batch: None,
  )
  parts, _, behaviour = learner.minibatches(rollout)
  whole = np.concatenate([np.asarray(part).reshape(-1, 2, 4) for part in behaviour])
  np.testing.assert_array_equal(whole, rollout.result.behaviour_logp)
  found = np.concatenate([np.asarray(part.features["level"]).reshape(-1, 5, 3) for part in parts])
  np.testing.assert_array_equal(found, rows)
  assert [part.images for part in parts] == [None, None]
  assert features["level"].is_deleted()
