"""Compares mini-batches cut on eight devices with those cut on the host.

Started by `test_minibatches`.
"""

import jax
import numpy as np

from sejax.learner import minibatches
from sejax.parallel import hosts, meshes

for shape in ((1, 8, 1), (2, 2, 2), (1, 2, 4), (8, 1, 1), (1, 1, 8)):
  mesh = meshes.create(dict(zip(meshes.AXES, shape, strict=True)))
  for count, micro, size in ((4, 2, 8), (2, 1, 16), (1, 2, 8), (3, 1, 8)):
    rows = np.arange(count * micro * size * 3).reshape(-1, 3)
    cutter = minibatches.Cutter(mesh, minibatches=count, micro_batches=micro)
    cut_on_host = cutter.cut(rows)
    with jax.transfer_guard_device_to_host("disallow"):
      on_devices = cutter.cut_on_devices(hosts.shard_rows(mesh, rows))
    for one, other in zip(cut_on_host, on_devices, strict=True):
      assert one.sharding == other.sharding
      np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
