"""Cuts the arrays of a rollout into mini-batches of micro-batches.

Each mini-batch is one optimizer step; its gradient is accumulated over A micro-batches of b
prompts. Groups are never split, and each device keeps its rows of each micro-batch.

Axes: B prompts over all processes, b prompts of a micro-batch, A micro-batches of a mini-batch.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Shaped

from sejax.parallel import hosts, layouts
from sejax.parallel.programs import Program, ProgramCall


class Sizes(NamedTuple):
  """Sizes that a rollout is cut into.

  Attributes:
    minibatches: mini-batches of a rollout.
    micro_batches: micro-batches of a mini-batch, A.
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


def _slice_rows(rows: Shaped[Array, "r ..."], start: Int[Array, ""], *, size: int) -> Array:
  return jax.lax.dynamic_slice_in_dim(rows, start, size)


@functools.cache
def _slice_program(size: int) -> Program:
  """Returns the program that takes `size` consecutive rows of an array."""
  return Program.of(_slice_rows, size=size)


_STACK = Program.of(jnp.stack)  # of a list of arrays


@dataclasses.dataclass(frozen=True)
class Cutter:
  """Cuts the rows of a rollout into mini-batches of micro-batches, on the mesh.

  Attributes:
    mesh: axis b is sharded over its row shards.
    minibatches: mini-batches of a rollout.
    micro_batches: micro-batches of a mini-batch, A.
  """

  mesh: Mesh
  minibatches: int
  micro_batches: int

  def cut_tree(self, tree: Any, axes: Any) -> list[Any]:
    """Cuts all arrays of a tree.

    Args:
      tree: arrays of the host hold the rows of this process; arrays on the mesh hold all rows.
      axes: the axis of the rows of each array, as a tree of the same structure.
    """
    parts = jax.tree.map(self._cut, tree, axes)
    one = jax.tree.structure([0] * self.minibatches)
    return jax.tree.transpose(jax.tree.structure(tree), one, parts)

  def _cut(self, rows: Array | np.ndarray, axis: int) -> list[Array]:
    if isinstance(rows, jax.Array):
      return self.cut_on_devices(hosts.shard_rows(self.mesh, rows))
    return self.cut(rows, axis)

  def cut(self, rows: Shaped[np.ndarray, "..."], axis: int = 0) -> list[Shaped[Array, "A ..."]]:
    """Cuts an array of the host, and places the mini-batches on the mesh.

    Args:
      rows: rows of this process along `axis`.
    """
    shape = (*rows.shape[:axis], self.minibatches, self.micro_batches, -1, *rows.shape[axis + 1 :])
    parts = np.moveaxis(rows.reshape(shape), (axis, axis + 1), (0, 1))
    sharding = self._sharding(axis)
    return [jax.make_array_from_process_local_data(sharding, part) for part in parts]

  def cut_on_devices(self, rows: Shaped[Array, "B ..."]) -> list[Shaped[Array, "A b ..."]]:
    """Cuts an array on the mesh, with the same result as `cut` of a host array.

    Rows move from device to device within their process, never through the host. With K row shards
    in a process, each shard holds `minibatches * micro_batches` consecutive pieces of the process's
    rows, and each micro-batch takes K consecutive pieces, one per shard. A compiled reshape would
    instead gather all rows on every device.

    Args:
      rows: array sharded over the row shards of the mesh.
    """
    # Each row shard's data by device, keyed by its first row: tensor parallelism replicates rows.
    shards: dict[int, dict[jax.Device, Array]] = {}
    for shard in rows.addressable_shards:
      shards.setdefault(shard.index[0].start or 0, {})[shard.device] = shard.data
    copies = [shards[start] for start in sorted(shards)]
    pieces = self.minibatches * self.micro_batches
    size = self._rows_of_piece(rows.shape[0])

    def piece(number: int, device: jax.Device) -> Array:
      """Returns a piece of the process's rows on a device, from a local copy if there is one."""
      shard, place = divmod(number, pieces)
      data = copies[shard].get(device, next(iter(copies[shard].values())))
      return jax.device_put(_slice_program(size)(data, np.int32(place * size)), device)

    shape = (self.micro_batches, rows.shape[0] // pieces, *rows.shape[1:])
    parts = []
    for n in range(self.minibatches):
      first = n * self.micro_batches
      arrays = [
        _STACK([piece((first + m) * len(copies) + k, device) for m in range(self.micro_batches)])
        for k, holders in enumerate(copies)
        for device in holders
      ]
      parts.append(jax.make_array_from_single_device_arrays(shape, self._sharding(0), arrays))
    return parts

  def shape(self, x: jax.ShapeDtypeStruct, axis: int = 0) -> jax.ShapeDtypeStruct:
    """Returns the shape of a mini-batch of an array.

    Args:
      x: shape of the array with the rows of all processes along `axis`.
    """
    rows = x.shape[axis] // (self.minibatches * self.micro_batches)
    shape = (self.micro_batches, *x.shape[:axis], rows, *x.shape[axis + 1 :])
    return jax.ShapeDtypeStruct(shape, x.dtype, sharding=self._sharding(axis))

  def calls(self, tree: Any) -> Iterator[ProgramCall]:
    """Yields the calls of `cut_on_devices` for each array of a tree.

    Args:
      tree: shapes `[B,...]`, sharded over the row shards of the mesh.
    """
    for x in jax.tree.leaves(tree):
      # Each device calls them for its own rows, which replicated arrays of that shape stand for.
      rows = layouts.replicated_shape(self.mesh, x.sharding.shard_shape(x.shape), x.dtype)
      size = self._rows_of_piece(x.shape[0])
      shape = (size, *x.shape[1:])
      pieces = [
        layouts.replicated_shape(self.mesh, shape, x.dtype) for _ in range(self.micro_batches)
      ]
      start = layouts.replicated_shape(self.mesh, (), jnp.int32)
      yield ProgramCall("slice features", _slice_program(size), (rows, start))
      yield ProgramCall("stack features", _STACK, (pieces,), (rows,))

  def _rows_of_piece(self, rows: int) -> int:
    """Returns the rows that a row shard has of each micro-batch.

    Args:
      rows: rows of all processes, B.
    """
    return rows // (layouts.row_shards(self.mesh) * self.minibatches * self.micro_batches)

  def _sharding(self, axis: int) -> NamedSharding:
    """Returns the sharding of a mini-batch, whose rows are at `axis + 1`, as A comes first."""
    return NamedSharding(
      self.mesh, PartitionSpec(None, *[None] * axis, layouts.row_axes(self.mesh))
    )
