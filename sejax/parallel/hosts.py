"""Moves arrays between hosts and the mesh, and exchanges host values between processes.

Each process holds the rows of a batch that lie on its own devices. In shapes, `B` are the rows of
the global batch and `b` those of this process.
"""

import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Shaped

from sejax.parallel import layouts


def shard_rows(mesh: Mesh, rows: Shaped[np.ndarray, "b ..."] | Array) -> Shaped[Array, "B ..."]:
  """Shards rows over the mesh: numpy rows of this process, or a global jax array."""
  sharding = NamedSharding(mesh, PartitionSpec(layouts.row_axes(mesh)))
  if isinstance(rows, jax.Array):
    return jax.device_put(rows, sharding)
  return jax.make_array_from_process_local_data(sharding, rows)


def replicate(mesh: Mesh, x: Shaped[np.ndarray, "..."]) -> Shaped[Array, "..."]:
  """Places an array that is identical on every process onto the mesh, replicated."""
  return _place(mesh, x, PartitionSpec())


def shard_identical(mesh: Mesh, x: Shaped[np.ndarray, "B ..."]) -> Shaped[Array, "B ..."]:
  """Places an array that is identical on every process onto the mesh, sharded by rows."""
  return _place(mesh, x, PartitionSpec(layouts.row_axes(mesh)))


def _place(mesh: Mesh, x: Shaped[np.ndarray, "..."], spec: PartitionSpec) -> Shaped[Array, "..."]:
  x = np.asarray(x)
  return jax.make_array_from_callback(x.shape, NamedSharding(mesh, spec), lambda index: x[index])


def to_host(rows: Shaped[Array, "B ..."]) -> Shaped[np.ndarray, "b ..."]:
  """Copies the rows of a sharded array that lie on this process's devices to the host, in order."""
  shards = {shard.index[0].start or 0: shard.data for shard in rows.addressable_shards}
  return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


def local_shards(mesh: Mesh) -> list[int]:
  """Returns the indices of the row shards on this process's devices, see `layouts.row_shards`."""
  sharding = NamedSharding(mesh, PartitionSpec(layouts.row_axes(mesh)))
  # With one row per shard, the index of a device's row is that of its shard.
  indices = sharding.addressable_devices_indices_map((layouts.row_shards(mesh),))
  return sorted({rows.start or 0 for (rows,) in indices.values()})


def require_equal(what: str, *numbers: int) -> None:
  """Checks that numbers are the same on all processes; all of them must call it.

  Args:
    what: names the numbers in the error.
    *numbers: the numbers of this process.

  Raises:
    ValueError: the numbers differ.
  """
  if jax.process_count() == 1:
    return
  by_process = multihost_utils.process_allgather(np.array(numbers, np.int64))
  if (by_process != by_process[0]).any():
    raise ValueError(f"{what} must be the same in all processes; they are {by_process.tolist()}")


def any_process(mask: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
  """Returns the elementwise "or" of a boolean array over all processes; all must call it."""
  if jax.process_count() == 1:
    return mask
  return multihost_utils.process_allgather(mask).any(axis=0)


def max_over_processes(*numbers: int) -> tuple[int, ...]:
  """Returns the maximum of each number over all processes, for a common shape; all must call it."""
  if jax.process_count() == 1:
    return numbers
  by_process = multihost_utils.process_allgather(np.array(numbers, np.int64))
  return tuple(by_process.max(axis=0).tolist())


def gather_rows(rows: Shaped[np.ndarray, "b ..."]) -> Shaped[np.ndarray, "B ..."]:
  """Returns the rows of all processes, by process index; all must call it with equal shapes."""
  if jax.process_count() == 1:
    return rows
  return multihost_utils.process_allgather(rows, tiled=True)


def gather_shards(mesh: Mesh, rows: Int[np.ndarray, "b ..."]) -> Int[np.ndarray, "N m ..."]:
  """Returns the rows of all processes, by row shard; all must call it with equal shapes.

  Args:
    rows: numbers of 0 or more, the rows of this process's shards one shard after the other.
  """
  local = local_shards(mesh)
  by_shard = rows.reshape(len(local), -1, *rows.shape[1:])
  found = np.zeros((layouts.row_shards(mesh), *by_shard.shape[1:]), rows.dtype)
  found[local] = by_shard
  if jax.process_count() == 1:
    return found
  return multihost_utils.process_allgather(found).max(axis=0)


def gather_json(value: Any) -> list[Any]:
  """Returns the JSON-serializable values of all processes, by process index; all must call it."""
  if jax.process_count() == 1:
    return [value]
  text = np.frombuffer(json.dumps(value).encode(), np.uint8)
  (size,) = max_over_processes(text.size)
  padded = np.full(size, ord(" "), np.uint8)
  padded[: text.size] = text
  return [json.loads(row.tobytes()) for row in multihost_utils.process_allgather(padded)]
