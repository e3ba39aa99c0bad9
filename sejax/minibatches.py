"""Experience to optimizer steps: which groups count, in which mini-batch, and in which shapes.

Host side. A mini-batch holds whole groups, cut into M micro-batches of b prompts; each device keeps
its rows of each of them. Axes: B prompts, G trajectories, R tokens of a response bucket.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Shaped

from sejax import method
from sejax.parallel import hosts, layouts


def response_size(longest: int, max_tokens: int, buckets: Sequence[int]) -> int:
  """Returns the smallest size that holds the longest response of any process.

  Args:
    longest: tokens, in this process.
    max_tokens: of a response.
    buckets: sizes, ascending; if empty a quarter, a half and all of `max_tokens`.
  """
  (longest,) = hosts.largest(longest)
  sizes = [*(buckets or (max_tokens // 4, max_tokens // 2)), max_tokens]
  return next(size for size in sizes if longest <= size)


def varied(group: method.Group) -> Bool[np.ndarray, " B"]:
  """Returns which groups have trajectories of different rewards; the others teach nothing."""
  reward = np.asarray(group.reward)
  return (reward != reward[:, :1]).any(axis=1)


def cut(
  mesh: Mesh, rows: Shaped[np.ndarray, "... B _"], count: int, micro: int, axis: int = 0
) -> list[Shaped[Array, "M ... b _"]]:
  """Returns the mini-batches of an array, on the mesh.

  Args:
    mesh: over whose row shards b is split.
    rows: this process's.
    count: of mini-batches.
    micro: micro-batches in each, M.
    axis: that counts rows.
  """
  shape = (*rows.shape[:axis], count, micro, -1, *rows.shape[axis + 1 :])
  parts = np.moveaxis(rows.reshape(shape), (axis, axis + 1), (0, 1))
  spec = PartitionSpec(None, *[None] * axis, layouts.row_axes(mesh))
  sharding = NamedSharding(mesh, spec)
  return [jax.make_array_from_process_local_data(sharding, part) for part in parts]
