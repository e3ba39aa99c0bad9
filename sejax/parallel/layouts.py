"""Sharding rules for the parameter tree and for rows of a batch.

Mesh axes: `data` (batches), `fsdp` (parameters, gathered before use) and `tensor` (heads and hidden
units). Rows of a batch are sharded over `data` and `fsdp` together.

Rules are a list of (regular expression, spec). The first expression that matches a part of an
array's path counts. Its spec has one mesh axis for each dimension of the array in a single layer;
the leading dimension of arrays stacked over layers is not sharded. A mesh axis is dropped if the
mesh does not have it or its size does not divide the dimension, so that any model fits any mesh;
and if its size is 1, so that equal layouts compare equal.
"""

import functools
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, DTypeLike

from sejax.errors import OptionError
from sejax.parallel.programs import Program, ProgramCall

Rules = Sequence[tuple[str, tuple[str | None, ...]]]

_STACKED = re.compile(r"/(layers|blocks)/")


def sharding(mesh: Mesh, path: str, shape: Sequence[int], rules: Rules) -> NamedSharding:
  """Returns the sharding of an array of the parameter tree.

  Args:
    mesh: has any of the axes data, fsdp and tensor.
    path: path of the array in the tree, such as `decoder/layers/q/kernel`.
    shape: shape of the array, including the layer dimension of stacked arrays.
    rules: arrays that match none are replicated.
  """
  axes = next((spec for pattern, spec in rules if re.search(pattern, path)), ())
  if axes and _STACKED.search(path):
    axes = (None, *axes)
  kept = [
    axis if mesh.shape.get(axis, 1) > 1 and size % mesh.shape[axis] == 0 else None
    for axis, size in zip(axes, shape, strict=False)
  ]
  return NamedSharding(mesh, PartitionSpec(*kept))


def place(tree: Any, mesh: Mesh, rules: Rules, dtype: DTypeLike) -> Any:
  """Casts and shards a parameter tree; arrays that need neither are not copied.

  Arrays that are on the mesh change by one program, see `plan_placement`. It is compiled again for
  other layouts of the given arrays.
  """
  devices = set(mesh.devices.flat)

  def put(x, target):
    on_mesh = isinstance(x, jax.Array) and x.sharding.device_set == devices
    return x if on_mesh else jax.device_put(x.astype(dtype), target)

  leaves, structure = jax.tree.flatten(tree)
  targets = jax.tree.leaves(shardings(tree, mesh, rules))
  leaves = [put(x, target) for x, target in zip(leaves, targets, strict=True)]
  changed, program = _placement(leaves, targets, dtype)
  if changed:
    for i, x in zip(changed, program([leaves[i] for i in changed]), strict=True):
      leaves[i] = x
  return structure.unflatten(leaves)


def plan_placement(
  tree: Any, mesh: Mesh, rules: Rules, dtype: DTypeLike
) -> tuple[Any, ProgramCall | None]:
  """Returns what `place` makes of a tree of `jax.ShapeDtypeStruct`, and how.

  Returns:
    The placed tree, in which arrays that are not copied are the same objects; and the call of the
    program that makes the others, None where all stay.
  """
  leaves, structure = jax.tree.flatten(tree)
  targets = jax.tree.leaves(shardings(tree, mesh, rules))
  changed, program = _placement(leaves, targets, dtype)
  if not changed:
    return tree, None
  args = ([leaves[i] for i in changed],)
  for i, x in zip(changed, program.eval_shape(*args), strict=True):
    leaves[i] = x
  return structure.unflatten(leaves), ProgramCall("layout", program, args)


def _placement(
  leaves: Sequence[Array | jax.ShapeDtypeStruct],
  targets: Sequence[NamedSharding],
  dtype: DTypeLike,
) -> tuple[list[int], Program]:
  """Returns the indices of the leaves to be copied, and the program that copies a list of them."""
  changed = [
    i
    for i, (x, target) in enumerate(zip(leaves, targets, strict=True))
    if x.dtype != dtype or not x.sharding.is_equivalent_to(target, x.ndim)
  ]
  return changed, _cast_program(jnp.dtype(dtype), tuple(targets[i] for i in changed))


@functools.lru_cache(maxsize=16)
def _cast_program(dtype: jnp.dtype, targets: tuple[NamedSharding, ...]) -> Program:
  return Program.of(_cast, out_shardings=list(targets), dtype=dtype)


def _cast(arrays: list[Array], dtype: jnp.dtype) -> list[Array]:
  return [x.astype(dtype) for x in arrays]


def shardings(tree: Any, mesh: Mesh, rules: Rules) -> Any:
  """Returns the tree of shardings of a parameter tree, or of one of `jax.ShapeDtypeStruct`."""

  def array_sharding(path, x):
    return sharding(mesh, path_name(path), x.shape, rules)

  return jax.tree.map_with_path(array_sharding, tree)


def constrain(tree: Any, mesh: Mesh, rules: Rules) -> Any:
  """Constrains the sharding of parameters, gradients or optimizer moments inside of jit."""

  def constrain_array(path, x):
    target = sharding(mesh, path_name(path), x.shape, rules)
    return jax.lax.with_sharding_constraint(x, target)

  return jax.tree.map_with_path(constrain_array, tree)


def path_name(path: Sequence[Any]) -> str:
  """Returns an array's path in the parameter tree as a string, `decoder/layers/q/kernel`.

  Args:
    path: key path from `jax.tree`, in the parameter tree itself or in a tree that contains it, such
      as the optimizer state.
  """
  return "/".join(entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey))


def check_rows(mesh: Mesh, name: str, size: int) -> None:
  """Checks that rows can be sharded evenly over the mesh.

  Args:
    mesh: the mesh of the run.
    name: configuration field of the number of rows, for the error.
    size: number of rows.

  Raises:
    OptionError: the number of row shards does not divide it.
  """
  shards = row_shards(mesh)
  if size % shards:
    wanted = f"a multiple of the {shards} parts into which the mesh splits rows (data times fsdp)"
    raise OptionError(name, size, wanted)


def row_sharding(mesh: Mesh) -> NamedSharding | None:
  """Returns the sharding of the rows of a batch; None on a single device."""
  return NamedSharding(mesh, PartitionSpec(row_axes(mesh))) if mesh.size > 1 else None


def row_shape(mesh: Mesh, shape: Sequence[int], dtype: DTypeLike) -> jax.ShapeDtypeStruct:
  """Returns the shape of an array whose leading axis is sharded like the rows of a batch."""
  sharding = NamedSharding(mesh, PartitionSpec(row_axes(mesh)))
  return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)


def replicated_shape(mesh: Mesh, shape: Sequence[int], dtype: DTypeLike) -> jax.ShapeDtypeStruct:
  """Returns the shape of an array that every device holds whole."""
  return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))


def tensor_axis(mesh: Mesh, size: int) -> str | None:
  """Returns `tensor` if the mesh has that axis and it divides the size."""
  return "tensor" if "tensor" in mesh.shape and size % mesh.shape["tensor"] == 0 else None


def row_axes(mesh: Mesh) -> tuple[str, ...]:
  """Returns the mesh axes over which the rows of a batch are sharded."""
  return tuple(axis for axis in ("data", "fsdp") if axis in mesh.shape)


def row_shards(mesh: Mesh) -> int:
  """Returns the number of shards of the rows of a batch."""
  return math.prod(mesh.shape[axis] for axis in row_axes(mesh))
