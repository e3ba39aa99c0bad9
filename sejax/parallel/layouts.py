"""Layout of the parameter tree on a mesh: a short list of (pattern of the path, spec).

Mesh axes: `data` (batches), `fsdp` (parameters, gathered where they are used) and `tensor` (heads
and hidden units). The first pattern found in an array's path counts. A spec names the axes of one
layer; arrays that are stacked over layers keep the stack whole. An axis that the mesh does not
have, or whose size does not divide the dimension, is left out, so that any mesh takes any model;
so is an axis of one device, so that layouts which are the same have the same name.

Rows of a batch lie over `data` and `fsdp` together.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import DTypeLike

Rules = Sequence[tuple[str, tuple[str | None, ...]]]

_STACKED = re.compile(r"/(layers|blocks)/")


def sharding(mesh: Mesh, path: str, shape: Sequence[int], rules: Rules) -> NamedSharding:
  """Returns where an array of the parameter tree lies.

  Args:
    mesh: any of the axes data, fsdp and tensor.
    path: of the array in the tree, such as `decoder/layers/q/kernel`.
    shape: of the array, with the stack of layers in front where there is one.
    rules: patterns and specs; what none of them names is replicated.
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
  """Casts a parameter tree and lays it out; what is so already is not copied."""

  def move(path, x):
    return jax.device_put(x.astype(dtype), sharding(mesh, name(path), x.shape, rules))

  return jax.tree.map_with_path(move, tree)


def shardings(tree: Any, mesh: Mesh, rules: Rules) -> Any:
  """Returns the layout of each array of a parameter tree, or of a tree of shapes, in its place."""
  return jax.tree.map_with_path(lambda path, x: sharding(mesh, name(path), x.shape, rules), tree)


def constrain(tree: Any, mesh: Mesh, rules: Rules) -> Any:
  """Constrains parameters, or what is shaped like them, such as moments, to their layout."""

  def lay(path, x):
    return jax.lax.with_sharding_constraint(x, sharding(mesh, name(path), x.shape, rules))

  return jax.tree.map_with_path(lay, tree)


def name(path: Sequence[Any]) -> str:
  """Returns an array's path in the parameter tree, such as `decoder/layers/q/kernel`.

  Args:
    path: in that tree or in one that holds it, such as an optimizer's state.
  """
  return "/".join(entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey))


def check_rows(mesh: Mesh, name: str, size: int) -> None:
  """Refuses a number of rows that the mesh cannot split.

  Raises:
    ValueError: naming the configuration's field, its value and what would work.
  """
  if size % (shards := row_shards(mesh)):
    raise ValueError(
      f"config.{name}={size} must be a multiple of the {shards} parts into which the mesh splits"
      " rows (data times fsdp)"
    )


def rows(mesh: Mesh) -> NamedSharding | None:
  """Returns where rows of a batch lie; None on one device, where nothing need be said."""
  return NamedSharding(mesh, PartitionSpec(row_axes(mesh))) if mesh.size > 1 else None


def tensor_axis(mesh: Mesh, size: int) -> str | None:
  """Returns `tensor` if the mesh has that axis and it divides the size."""
  return "tensor" if "tensor" in mesh.shape and size % mesh.shape["tensor"] == 0 else None


def row_axes(mesh: Mesh) -> tuple[str, ...]:
  """Returns the axes of the mesh that rows of a batch are split over."""
  return tuple(axis for axis in ("data", "fsdp") if axis in mesh.shape)


def row_shards(mesh: Mesh) -> int:
  """Returns the number of parts that rows of a batch are split into."""
  return math.prod(mesh.shape[axis] for axis in row_axes(mesh))
