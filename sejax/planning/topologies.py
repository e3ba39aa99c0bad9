"""Devices to compile for that need not be present.

`v5e:8x8` is a TPU slice by generation and shape, `h100:8` a node of 8 GPUs. The compilers come with
the extras `tpu` and `cuda`.
"""

import os
import re
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from sejax.errors import one_line
from sejax.parallel import chips


def chip(topology: str) -> chips.Chip:
  """Returns the specifications of a topology's chips.

  Raises:
    ValueError: the topology is unknown.
  """
  name, _, shape = topology.partition(":")
  if name in chips.TPUS and re.fullmatch(r"\d+x\d+(x\d+)?", shape):
    return chips.TPUS[name]
  if name in chips.GPUS and re.fullmatch(r"[1-9]\d*", shape):
    return chips.GPUS[name]
  raise ValueError(
    f"--topology={topology} must be a TPU's generation and a shape, such as v5e:8x8, or a GPU and"
    f" their number, such as h100:8; there are {', '.join([*chips.TPUS, *chips.GPUS])}"
  )


def devices(topology: str) -> Sequence[jax.Device]:
  """Returns the devices of a topology; requires that `chip` accepts it.

  Raises:
    ValueError: the compiler is not installed, or does not support the shape.
  """
  name, _, shape = topology.partition(":")
  is_tpu = name in chips.TPUS
  try:
    return _tpus(topology) if is_tpu else _gpus(name, int(shape))
  except Exception as error:  # The compilers raise errors of any type.
    extra = "tpu" if is_tpu else "cuda"
    raise ValueError(
      f"no programs can be made for --topology={topology}: {one_line(error)}; install the extra"
      f" (pip install 'sejax[{extra}]') and give a shape that exists"
    ) from None


def _tpus(topology: str) -> Sequence[jax.Device]:
  """Returns TPUs to compile for, with the settings that libtpu otherwise asks the machine for."""
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
  # No chip is opened, so another process may have the library too.
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  # A host has 2x2 chips, or fewer if the whole slice is smaller.
  shape = [int(n) for n in topology.partition(":")[2].split("x")]
  host = [min(2, shape[0]), min(2, shape[1]), 1]
  return topologies.get_topology_desc(topology, platform="tpu", chips_per_host_bounds=host).devices


def _gpus(name: str, count: int) -> Sequence[jax.Device]:
  return topologies.get_topology_desc(
    name, platform="cuda", target_config=_TARGETS[name], topology=f"1x1x{count}"
  ).devices


def _target(
  kind: str,
  *,
  capability: int,
  cores: int,
  units: int,
  shared: int,
  cache: int,
  clock: float,
  chip: chips.Chip,
) -> str:
  """Describes a GPU as a text `GpuTargetConfigProto` of XLA, from NVIDIA's data sheets.

  Args:
    kind: `device_kind` of its jax devices.
    capability: major version of its compute capability; the minor one is 0.
    cores: number of multiprocessors.
    units: fp32 units of a multiprocessor.
    shared: bytes of shared memory of a multiprocessor; a block can use all but 1 KiB.
    cache: bytes of the L2 cache.
    clock: boost clock in GHz.
    chip: its memory and bandwidth.
  """
  return f"""
    gpu_device_info {{
      threads_per_block_limit: 1024
      threads_per_warp: 32
      threads_per_core_limit: 2048
      core_count: {cores}
      fpus_per_core: {units}
      shared_memory_per_block: {48 * 1024}
      shared_memory_per_block_optin: {shared - 1024}
      shared_memory_per_core: {shared}
      registers_per_block_limit: 65536
      registers_per_core_limit: 65536
      block_dim_limit_x: {2**31 - 1}
      block_dim_limit_y: 65535
      block_dim_limit_z: 65535
      l2_cache_size: {cache}
      clock_rate_ghz: {clock}
      memory_bandwidth: {int(chip.bandwidth)}
      device_memory_size: {int(chip.memory)}
      cuda_compute_capability {{ major: {capability} }}
    }}
    runtime_version {{ major: 13 }}
    dnn_version_info {{ major: 9 minor: 10 }}
    platform_name: "CUDA"
    device_description_str: "{kind}"
  """


_HOPPER = {
  "capability": 9,
  "cores": 132,
  "units": 128,
  "shared": 228 * 1024,
  "cache": 50 * 2**20,
  "clock": 1.98,
}
_TARGETS = {
  "a100": _target(
    "NVIDIA A100-SXM4-80GB",
    capability=8,
    cores=108,
    units=64,
    shared=164 * 1024,
    cache=40 * 2**20,
    clock=1.41,
    chip=chips.GPUS["a100"],
  ),
  "h100": _target("NVIDIA H100 80GB HBM3", **_HOPPER, chip=chips.GPUS["h100"]),
  "h200": _target("NVIDIA H200", **_HOPPER, chip=chips.GPUS["h200"]),
}
