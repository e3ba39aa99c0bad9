"""A rollout to optimizer steps: in which mini-batch each group is, and in which shapes.

Host side. A mini-batch holds whole groups, cut into M micro-batches of b prompts; each device keeps
its rows of each of them. Axes: B prompts, G trajectories, R tokens of a response bucket.
"""

from typing import NamedTuple, Self

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from sejax.parallel import hosts, layouts


class Sizes(NamedTuple):
  """How a rollout is cut.

  Attributes:
    minibatches: optimizer steps of a training step.
    micro_batches: M, in each of them.
    max_tokens: the longest response the run allows.
    response_buckets: lengths of responses that programs are compiled for, ascending; if empty, a
      quarter, a half and all of `max_tokens`.
  """

  minibatches: int
  micro_batches: int
  max_tokens: int
  response_buckets: tuple[int, ...]

  @classmethod
  def of(cls, config: ml_collections.ConfigDict) -> Self:
    """Returns the sizes that a configuration gives."""
    return cls(
      minibatches=config.batch_size // config.mini_batch_size,
      micro_batches=config.mini_batch_size // config.train.micro_batch_size,
      max_tokens=config.actor.max_tokens,
      response_buckets=tuple(config.train.response_buckets),
    )

  def response(self, longest: int) -> int:
    """Returns the smallest bucket that holds the longest response of any process.

    Args:
      longest: tokens, in this process.
    """
    (longest,) = hosts.max_over_processes(longest)
    buckets = self.response_buckets or (self.max_tokens // 4, self.max_tokens // 2)
    return next(size for size in (*buckets, self.max_tokens) if longest <= size)


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
