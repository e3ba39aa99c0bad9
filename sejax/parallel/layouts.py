"""Layout of the parameter tree on a mesh: a short list of (pattern of the path, spec).

Mesh axes: `data` (batches), `fsdp` (parameters, gathered where they are used) and `tensor` (heads
and hidden units). The first pattern found in an array's path counts. A spec names the axes of one
layer; arrays that are stacked over layers keep the stack whole. An axis that the mesh does not
have, or whose size does not divide the dimension, is left out, so that any mesh takes any model.
"""

import re
from collections.abc import Sequence

from jax.sharding import Mesh, NamedSharding, PartitionSpec

Rules = Sequence[tuple[str, tuple[str | None, ...]]]

PARAMETERS: Rules = (
  (r"embed/embedding$", ("tensor", "fsdp")),
  (r"lm_head/kernel$", ("fsdp", "tensor")),
  (r"(patch_embed|q|k|v|qkv|gate|up|fc1)/kernel$", ("fsdp", "tensor")),
  (r"(o|proj|down|fc2)/kernel$", ("tensor", "fsdp")),
  (r"(q|k|v|qkv|gate|up|fc1)/bias$", ("tensor",)),
)

_STACKED = re.compile(r"/(layers|blocks)/")


def sharding(
  mesh: Mesh, path: str, shape: Sequence[int], rules: Rules = PARAMETERS
) -> NamedSharding:
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
    axis if axis in mesh.shape and size % mesh.shape[axis] == 0 else None
    for axis, size in zip(axes, shape, strict=False)
  ]
  return NamedSharding(mesh, PartitionSpec(*kept))
