"""Rows of a batch between the host and the mesh: each process holds those of its own shards."""

import json
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Shaped

from sejax.parallel import layouts


def shard_rows(mesh: Mesh, rows: Shaped[np.ndarray, "b ..."] | Array) -> Shaped[Array, "B ..."]:
  """Shards the rows of this process over the mesh; a global array is moved if it lies elsewhere."""
  sharding = NamedSharding(mesh, PartitionSpec(layouts.row_axes(mesh)))
  if isinstance(rows, jax.Array):
    return jax.device_put(rows, sharding)
  return jax.make_array_from_process_local_data(sharding, rows)


def replicate(mesh: Mesh, x: Shaped[np.ndarray, "..."]) -> Shaped[Array, "..."]:
  """Places an array that is identical on every process onto the mesh, whole on each device."""
  return _place(mesh, x, PartitionSpec())


def shard_identical(mesh: Mesh, x: Shaped[np.ndarray, "B ..."]) -> Shaped[Array, "B ..."]:
  """Places an array that is identical on every process onto the mesh, sharded by rows."""
  return _place(mesh, x, PartitionSpec(layouts.row_axes(mesh)))


def _place(mesh: Mesh, x: Shaped[np.ndarray, "..."], spec: PartitionSpec) -> Shaped[Array, "..."]:
  x = np.asarray(x)
  return jax.make_array_from_callback(x.shape, NamedSharding(mesh, spec), lambda index: x[index])


def to_host(rows: Shaped[Array, "B ..."]) -> Shaped[np.ndarray, "b ..."]:
  """Returns this process's rows, in their order."""
  shards = {shard.index[0].start or 0: shard.data for shard in rows.addressable_shards}
  return np.concatenate([np.asarray(shards[start]) for start in sorted(shards)])


def local_shards(mesh: Mesh) -> list[int]:
  """Returns which of the row shards this process holds."""
  shape = (layouts.row_shards(mesh),)
  sharding = NamedSharding(mesh, PartitionSpec(layouts.row_axes(mesh)))
  return sorted(
    {index[0].start or 0 for index in sharding.addressable_devices_indices_map(shape).values()}
  )


def require_equal(what: str, *numbers: int) -> None:
  """Checks that all processes bring the same numbers.

  Raises:
    ValueError: naming what differs, with the numbers of all processes.
  """
  if jax.process_count() == 1:
    return
  everyone = multihost_utils.process_allgather(np.array(numbers, np.int64))
  if (everyone != everyone[0]).any():
    raise ValueError(f"{what} must be the same in all processes; they are {everyone.tolist()}")


def any_process(mask: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
  """Returns where any process has true."""
  if jax.process_count() == 1:
    return mask
  return multihost_utils.process_allgather(mask).any(axis=0)


def largest(*numbers: int) -> tuple[int, ...]:
  """Returns the largest of each number over all processes, so that they agree on a shape."""
  if jax.process_count() == 1:
    return numbers
  everyone = multihost_utils.process_allgather(np.array(numbers, np.int64))
  return tuple(everyone.max(axis=0).tolist())


def gather_json(value: Any) -> list[Any]:
  """Returns a plain JSON value of each process, in their order, in all of them."""
  if jax.process_count() == 1:
    return [value]
  text = np.frombuffer(json.dumps(value).encode(), np.uint8)
  (size,) = largest(text.size)
  padded = np.full(size, ord(" "), np.uint8)
  padded[: text.size] = text
  return [json.loads(row.tobytes()) for row in multihost_utils.process_allgather(padded)]
