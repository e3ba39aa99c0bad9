"""Cuts the arrays of a rollout into mini-batches of micro-batches.

Each mini-batch is one optimizer step; its gradient is accumulated over M micro-batches of b
prompts. Groups are never split, and each device keeps its rows of each micro-batch.

Axes: B prompts, b prompts of a micro-batch, M micro-batches of a mini-batch.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, DTypeLike, Int, Shaped

from sejax.parallel import hosts, layouts
from sejax.parallel.programs import Program, ProgramCall


class Sizes(NamedTuple):
  """Sizes that a rollout is cut into.

  Attributes:
    minibatches: mini-batches of a rollout.
    micro_batches: micro-batches of a mini-batch, M.
    max_tokens: maximum number of tokens of a response.
    response_buckets: padded lengths of responses that the update is compiled for, ascending; empty
      stands for a quarter, a half and all of `max_tokens`.
  """

  minibatches: int
  micro_batches: int
  max_tokens: int
  response_buckets: tuple[int, ...]

  def response(self, longest: int) -> int:
    """Returns the smallest bucket that holds the longest response of all processes.

    Args:
      longest: tokens of this process's longest response.
    """
    (longest,) = hosts.max_over_processes(longest)
    buckets = self.response_buckets or (self.max_tokens // 4, self.max_tokens // 2)
    return next(size for size in (*buckets, self.max_tokens) if longest <= size)


def cut(
  mesh: Mesh, rows: Shaped[np.ndarray, "... B _"], count: int, micro: int, axis: int = 0
) -> list[Shaped[Array, "M ... b _"]]:
  """Cuts a host array into mini-batches and places these on the mesh.

  Args:
    mesh: axis b is sharded over its row shards.
    rows: rows of this process.
    count: number of mini-batches.
    micro: micro-batches of a mini-batch, M.
    axis: axis of the rows.
  """
  shape = (*rows.shape[:axis], count, micro, -1, *rows.shape[axis + 1 :])
  parts = np.moveaxis(rows.reshape(shape), (axis, axis + 1), (0, 1))
  spec = PartitionSpec(None, *[None] * axis, layouts.row_axes(mesh))
  sharding = NamedSharding(mesh, spec)
  return [jax.make_array_from_process_local_data(sharding, part) for part in parts]


def _slice_rows(rows: Shaped[Array, "r ..."], start: Int[Array, ""], *, size: int) -> Array:
  return jax.lax.dynamic_slice_in_dim(rows, start, size)


@functools.cache
def slice_rows(size: int) -> Program:
  """Returns the program that takes so many rows of an array, from a row on."""
  return Program.of(_slice_rows, size=size)


STACK = Program.of(jnp.stack)  # of a list of arrays


def cut_on_devices(
  mesh: Mesh, rows: Shaped[Array, "B ..."], count: int, micro: int
) -> list[Shaped[Array, "M b ..."]]:
  """Cuts an array on the mesh into mini-batches, with the same result as `cut` of a host array.

  Rows move from device to device within their process, never through the host. With K row shards
  in a process, each shard holds `count * micro` consecutive pieces of the process's rows, and each
  micro-batch takes K consecutive pieces, one per shard. A compiled reshape would instead gather all
  rows on every device.

  Args:
    mesh: axis b is sharded over its row shards.
    rows: array sharded over the row shards of the mesh.
    count: number of mini-batches.
    micro: micro-batches of a mini-batch, M.
  """
  # Each row shard's data by device, keyed by its first row: tensor parallelism replicates rows.
  shards: dict[int, dict[jax.Device, Array]] = {}
  for shard in rows.addressable_shards:
    shards.setdefault(shard.index[0].start or 0, {})[shard.device] = shard.data
  copies = [shards[start] for start in sorted(shards)]
  pieces = count * micro
  size = rows.shape[0] // layouts.row_shards(mesh) // pieces

  def piece(number: int, device: jax.Device) -> Array:
    """Returns a piece of the process's rows on a device, from a local copy if there is one."""
    shard, place = divmod(number, pieces)
    data = copies[shard].get(device, next(iter(copies[shard].values())))
    return jax.device_put(slice_rows(size)(data, np.int32(place * size)), device)

  shape = (micro, rows.shape[0] // pieces, *rows.shape[1:])
  sharding = NamedSharding(mesh, PartitionSpec(None, layouts.row_axes(mesh)))
  parts = []
  for n in range(count):
    arrays = [
      STACK([piece((n * micro + m) * len(copies) + k, device) for m in range(micro)])
      for k, holders in enumerate(copies)
      for device in holders
    ]
    parts.append(jax.make_array_from_single_device_arrays(shape, sharding, arrays))
  return parts


def cut_shape(
  mesh: Mesh, shape: tuple[int, ...], dtype: DTypeLike, micro: int, count: int, axis: int = 0
) -> jax.ShapeDtypeStruct:
  """Returns the shape of each mini-batch that `cut` makes of an array of this shape.

  Args:
    shape: of the rows of all processes.
    micro: micro-batches in each mini-batch, M.
    count: mini-batches.
    axis: that counts rows.
  """
  rows = shape[axis] // (count * micro)
  spec = PartitionSpec(None, *[None] * axis, layouts.row_axes(mesh))
  return jax.ShapeDtypeStruct(
    (micro, *shape[:axis], rows, *shape[axis + 1 :]), dtype, sharding=NamedSharding(mesh, spec)
  )


def cut_calls(mesh: Mesh, features: Any, micro: int, count: int) -> Iterator[ProgramCall]:
  """Yields the calls of `cut_on_devices`.

  Args:
    features: shapes `[B,...]` of arrays, sharded over the row shards of the mesh.
    micro: micro-batches in each mini-batch, M.
    count: mini-batches.
  """
  for x in jax.tree.leaves(features):
    # Each device runs them on its own rows; replicated, they are the same on all devices.
    size = x.shape[0] // (layouts.row_shards(mesh) * count * micro)
    rows = layouts.replicated_shape(mesh, x.sharding.shard_shape(x.shape), x.dtype)
    piece = layouts.replicated_shape(mesh, (size, *x.shape[1:]), x.dtype)
    start = layouts.replicated_shape(mesh, (), jnp.int32)
    yield ProgramCall("slice features", slice_rows(size), (rows, start))
    yield ProgramCall("stack features", STACK, ([piece] * micro,), (rows,))
