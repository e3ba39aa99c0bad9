"""What accelerators can do, by the makers' data sheets."""

import os
from typing import NamedTuple

import jax

_GIB = 2**30


class Chip(NamedTuple):
  """An accelerator, as jax counts devices.

  Attributes:
    memory: bytes that programs can use.
    flops: dense bf16, per second.
    bandwidth: of its memory, bytes per second.
    interconnect: of its links to others together, bytes per second.
  """

  memory: float
  flops: float
  bandwidth: float
  interconnect: float


# https://cloud.google.com/tpu/docs/system-architecture-tpu-vm; the compiler keeps 0.25 GiB back.
# v4 is not among them: its topologies are of half chips, as no run sees them.
TPUS = {
  "v5e": Chip(15.75 * _GIB, 197e12, 819e9, 200e9),
  "v5p": Chip(94.75 * _GIB, 459e12, 2765e9, 600e9),
  "v6e": Chip(31.75 * _GIB, 918e12, 1640e9, 448e9),
}
# Data sheets of the SXM modules; links are NVLink, both ways.
GPUS = {
  "a100": Chip(80e9, 312e12, 2039e9, 600e9),
  "h100": Chip(80e9, 989e12, 3350e9, 900e9),
  "h200": Chip(141e9, 989e12, 4800e9, 900e9),
}
# By what `device_kind` begins with.
_KINDS = {
  "TPU v4": Chip(31.75 * _GIB, 275e12, 1228e9, 300e9),
  "TPU v5 lite": TPUS["v5e"],
  "TPU v5e": TPUS["v5e"],
  "TPU v5": TPUS["v5p"],
  "TPU v5p": TPUS["v5p"],
  "TPU v6 lite": TPUS["v6e"],
  "TPU v6e": TPUS["v6e"],
  "NVIDIA A100": GPUS["a100"],
  "NVIDIA H100": GPUS["h100"],
  "NVIDIA H100 PCIe": Chip(80e9, 756e12, 2039e9, 600e9),
  "NVIDIA H200": GPUS["h200"],
}


def of_kind(kind: str) -> Chip | None:
  """Returns the chip of a `device_kind`; None where it is not known."""
  names = [name for name in _KINDS if kind.startswith(name)]
  return _KINDS[max(names, key=len)] if names else None


def memory(device: jax.Device) -> int | None:
  """Returns the bytes that programs can use on a device; None where it does not say."""
  if device.platform == "cpu":
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()
  return (device.memory_stats() or {}).get("bytes_limit")


def here() -> Chip | None:
  """Returns the chip that the first device is; None where it is not known."""
  return of_kind(jax.devices()[0].device_kind)
