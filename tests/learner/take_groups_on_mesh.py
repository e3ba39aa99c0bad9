"""Takes groups on eight devices, and compares them with those taken on the host.

Started by `test_minibatches`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from sejax.learner.minibatches import Groups, take_program
from sejax.parallel import hosts, layouts, meshes

B, P, G, R = 16, 3, 2, 4
RNG = np.random.default_rng(0)

for shape in ((1, 8, 1), (2, 2, 2), (1, 2, 4), (8, 1, 1), (1, 1, 8)):
  mesh = meshes.create(dict(zip(meshes.AXES, shape, strict=True)))
  rows = NamedSharding(mesh, PartitionSpec(layouts.row_axes(mesh)))
  groups = Groups(
    ids=RNG.integers(0, 99, (B, P)).astype(np.int32),
    lengths=RNG.integers(1, P, B).astype(np.int32),
    positions=RNG.integers(0, 99, (B, 3, P)).astype(np.int32),
    images=None,
    features={"level": RNG.standard_normal((B, 2, 5)).astype(jnp.bfloat16)},
    tokens=RNG.integers(0, 99, (B, G, R)).astype(np.int32),
    mask=RNG.random((B, G, R)) < 0.5,
    advantage=RNG.standard_normal((B, G)).astype(np.float32),
    behaviour_logp=RNG.standard_normal((B, G, R)).astype(np.float32),
  )
  placed = jax.tree.map(lambda x, mesh=mesh: hosts.shard_rows(mesh, x), groups)
  for count in (8, 24):
    index = RNG.integers(-1, B, count).astype(np.int32)
    with jax.transfer_guard_device_to_host("disallow"):
      taken = take_program(mesh)(placed, hosts.replicate(mesh, index))
    for x, whole in zip(jax.tree.leaves(taken), jax.tree.leaves(groups), strict=True):
      assert x.sharding.is_equivalent_to(rows, x.ndim)
      wanted = np.where((index < 0).reshape(-1, *[1] * (x.ndim - 1)), 0, whole[index])
      assert x.dtype == whole.dtype
      np.testing.assert_array_equal(np.asarray(x), wanted)
