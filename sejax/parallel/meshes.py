"""The mesh of a run: axes `data`, `fsdp` and `tensor` over all devices."""

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

AXES = ("data", "fsdp", "tensor")


def create(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Returns a mesh over all devices; consecutive devices are neighbors along `tensor`.

  Args:
    sizes: size of each axis in `AXES`; one may be -1, which gives it the remaining devices.
    devices: devices of all processes; by default `jax.devices()`.

  Raises:
    ValueError: the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else devices
  shape = [int(sizes[axis]) for axis in AXES]
  if shape.count(-1) == 1:
    product = math.prod(size for size in shape if size != -1)
    shape[shape.index(-1)] = len(devices) // product if product > 0 else 0
  if min(shape) < 1 or math.prod(shape) != len(devices):
    configured = ", ".join(f"{axis}={sizes[axis]}" for axis in AXES)
    raise ValueError(
      f"config.mesh has {configured}; the sizes must multiply to the {len(devices)} devices there"
      " are, and one of them may be -1"
    )
  return Mesh(np.array(devices).reshape(shape), AXES)
