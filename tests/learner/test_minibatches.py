"""The groups of a rollout on devices, and its mini-batches."""

import types

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from sejax import models
from sejax.learner import minibatches
from sejax.learner.learner import Learner
from sejax.parallel.programs import BackgroundCompiler
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
  assert minibatches.Sizes(1, 1, 1, 64, buckets).response(longest) == size


@pytest.mark.long
def test_groups_are_taken_on_devices_as_on_the_host():
  subprocesses.wait(subprocesses.start("tests.learner.take_groups_on_mesh", 8))


def test_mini_batches_are_those_of_the_stream(monkeypatch):
  """Of eight records, two processes read every second one."""
  assert minibatches.stream_order(8).tolist() == [*range(8)]
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  held = np.array([0, 2, 4, 6, 1, 3, 5, 7])
  assert held[minibatches.stream_order(8)].tolist() == [*range(8)]


def test_mini_batches_are_of_consecutive_groups_and_features_are_held_once(mesh):
  """Otherwise the devices would hold them twice during the updates."""
  rows = np.arange(8 * 5 * 3, dtype=np.float32).reshape(8, 5, 3)
  features = {"level": jax.device_put(rows)}
  ids, advantage = np.zeros((8, 6), np.int32), np.arange(16.0).reshape(8, 2)
  mask = np.full((8, 2, 4), True)
  mask[2, :, 3:], mask[5, 1] = False, False
  rollout = types.SimpleNamespace(
    batch=types.SimpleNamespace(
      actor=models.Prompt(ids, np.full(8, 6), np.zeros((3, 8, 6), np.int32)),
      packed_images=ids,
      real=np.full(8, True),
    ),
    result=types.SimpleNamespace(
      tokens=np.zeros((8, 2, 4), np.int32),
      lengths=mask.sum(-1),
      mask=mask,
      truncated=np.full((8, 2), False),
      behaviour_logp=-np.arange(64.0).reshape(8, 2, 4),
    ),
    group=types.SimpleNamespace(advantage=advantage),
    in_loss=np.arange(8) != 7,
    features=features,
  )
  learner = Learner(
    updater=None,
    mesh=mesh,
    frozen=None,
    adapters=None,
    sizes=minibatches.Sizes(2, 2, 2, 4, ()),
    penalty=True,
    seed=0,
    mask_truncated=False,
    encode=lambda params, batch: None,
    compiler=BackgroundCompiler(0),
  )
  groups, parts = learner.minibatches(rollout)
  np.testing.assert_array_equal(groups.advantage, advantage)
  np.testing.assert_array_equal(groups.features["level"], rows)
  assert groups.images is None
  for part, wanted in zip(parts, ({0, 1, 2, 3}, {4, 5, 6}), strict=True):
    assert {int(i) for x in part.rows for i in x.groups.flat} - {-1} == wanted
    index = sorted(wanted)
    assert int(part.counts.tokens) == mask[index].sum()
    assert int(part.counts.sequences) == mask[index].any(-1).sum()
  taken, _ = learner.micro_batch(groups, parts[1].rows[0])
  order = parts[1].rows[0].groups.reshape(-1)
  wanted = np.where(order[:, None] < 0, 0, advantage[order])
  np.testing.assert_array_equal(taken.advantage, wanted)
  (held,) = jax.tree.leaves(groups.features)
  held.delete()
  assert features["level"].is_deleted()
