"""Cutting a rollout into mini-batches of micro-batches."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from sejax.learner import minibatches
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
  parts = minibatches.cut(mesh, rows, count=2, micro=3)
  assert [part.shape for part in parts] == [(3, 2, 3)] * 2
  assert np.array_equal(np.concatenate([np.asarray(p).reshape(-1, 3) for p in parts]), rows)


def test_rows_may_be_counted_by_a_later_axis(mesh):
  positions = np.arange(3 * 4 * 5).reshape(3, 4, 5)
  parts = minibatches.cut(mesh, positions, count=2, micro=2, axis=1)
  assert [part.shape for part in parts] == [(2, 3, 1, 5)] * 2
  for n, part in enumerate(parts):
    for m in range(2):
      assert np.array_equal(part[m, :, 0], positions[:, 2 * n + m])


def test_rows_on_devices_are_cut_there_as_on_the_host():
  subprocesses.wait(subprocesses.start("tests.learner.cut_on_devices", 8))
