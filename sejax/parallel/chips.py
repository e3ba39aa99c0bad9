"""Memory, compute and bandwidth of accelerators, from their makers' data sheets."""

import os
from typing import NamedTuple

import jax

_GIB = 2**30


class Chip(NamedTuple):
  """Peak figures of an accelerator; one of what jax counts as a device.

  Attributes:
    memory: bytes of device memory that programs can use.
    flops: dense bf16 FLOP/s.
    bandwidth: memory bandwidth, bytes per second.
    interconnect: bytes per second that can arrive over all its links to other accelerators.
  """

  memory: float
  flops: float
  bandwidth: float
  interconnect: float


# https://cloud.google.com/tpu/docs/system-architecture-tpu-vm; the compiler reserves 0.25 GiB.
# v4 is left out: its topologies for ahead-of-time compilation have a device for each half chip,
# other than at run time.
TPUS = {
  "v5e": Chip(15.75 * _GIB, 197e12, 819e9, 200e9),
  "v5p": Chip(94.75 * _GIB, 459e12, 2765e9, 600e9),
  "v6e": Chip(31.75 * _GIB, 918e12, 1640e9, 448e9),
}
# Data sheets of the SXM modules; of NVLink's bandwidth, which they add over both directions, half.
GPUS = {
  "a100": Chip(80e9, 312e12, 2039e9, 300e9),
  "h100": Chip(80e9, 989e12, 3350e9, 450e9),
  "h200": Chip(141e9, 989e12, 4800e9, 450e9),
}
# Keyed by the beginning of `jax.Device.device_kind`.
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
  "NVIDIA H100 PCIe": Chip(80e9, 756e12, 2039e9, 300e9),
  "NVIDIA H200": GPUS["h200"],
}


def of_kind(kind: str) -> Chip | None:
  """Returns the chip of a `jax.Device.device_kind`; None if it is not in the table."""
  prefixes = [prefix for prefix in _KINDS if kind.startswith(prefix)]
  return _KINDS[max(prefixes, key=len)] if prefixes else None


def device_memory(device: jax.Device) -> int | None:
  """Returns the bytes that programs can use on a device; None if its backend does not report it.

  On CPU the devices of a process share the host's memory equally.
  """
  if device.platform == "cpu":
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // jax.local_device_count()
  return (device.memory_stats() or {}).get("bytes_limit")


def has_bfloat16(device: jax.Device) -> bool:
  """Whether a device computes in bfloat16 faster than in float32, which is used otherwise.

  NVIDIA's GPUs do from Ampere on, which has compute capability 8.0. CPUs do not.
  """
  if device.platform not in ("gpu", "cuda"):
    return device.platform != "cpu"
  try:
    return float(device.compute_capability) >= 8.0
  except (AttributeError, ValueError):  # AMD's are like gfx90a.
    return True


def current() -> Chip | None:
  """Returns the chip that this process runs on; None if it is not in the table."""
  return of_kind(jax.devices()[0].device_kind)
