"""The mesh of a run: axes `data`, `fsdp` and `tensor` over all devices."""

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

AXES = ("data", "fsdp", "tensor")


def create(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Returns a mesh of all devices, neighbours along `tensor`.

  Args:
    sizes: of each of `AXES`; one may be -1, for what the others leave.
    devices: of all processes; by default all there are.

  Raises:
    ValueError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  shape = [int(sizes[axis]) for axis in AXES]
  if shape.count(-1) == 1:
    rest = math.prod(size for size in shape if size != -1)
    shape[shape.index(-1)] = len(devices) // rest if rest > 0 else 0
  if min(shape) < 1 or math.prod(shape) != len(devices):
    asked = ", ".join(f"{axis}={sizes[axis]}" for axis in AXES)
    raise ValueError(
      f"config.mesh has {asked}; the sizes must multiply to the {len(devices)} devices there are,"
      " and one of them may be -1"
    )
  return Mesh(np.array(devices).reshape(shape), AXES)
