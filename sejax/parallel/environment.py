"""Environment variables for XLA's compilers and allocators, set before a backend starts."""

import importlib.metadata
import os
import re
import shutil
import subprocess

_TPU_FLAGS = "LIBTPU_INIT_ARGS"
# Without this, products with all-gathered weights are split into steps around the ring. Each step
# reads and writes its part of the result: three times the memory traffic of gathering first.
_DEFAULT_TPU_FLAGS = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}
# The versions that were found to know them, of jax 0.10.2 to 0.12; others end at an unknown flag.
_KNOWN_LIBTPU = re.compile(r"0\.0\.(4[2-9]|50)\b")
# jax preallocates only 75% of a GPU by default, but a run has its GPUs to itself. The rest is for
# the driver and collectives; of an 80 GB GPU, 94% are the 80e9 bytes in `chips`.
_GPU_FRACTION, _DEFAULT_GPU_FRACTION = "XLA_CLIENT_MEM_FRACTION", ".94"
_OLD_GPU_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"
_GPU_ROOM = 1536  # MiB that are left at least; of a T4, 6% would be too little for the driver


def prepare() -> None:
  """Sets sejax's defaults of environment variables; flags that the user has set stay."""
  if _KNOWN_LIBTPU.match(_libtpu_version()):
    user_flags = os.environ.get(_TPU_FLAGS, "")
    added_flags = [
      f"--{name}={value}" for name, value in _DEFAULT_TPU_FLAGS.items() if name not in user_flags
    ]
    os.environ[_TPU_FLAGS] = " ".join([*user_flags.split(), *added_flags])
  if not {_GPU_FRACTION, _OLD_GPU_FRACTION} & {*os.environ}:  # jax refuses to have both set.
    os.environ[_GPU_FRACTION] = _gpu_fraction()


def _libtpu_version() -> str:
  """Returns the version of libtpu; empty where it is not installed."""
  try:
    return importlib.metadata.version("libtpu")
  except importlib.metadata.PackageNotFoundError:
    return ""


def _gpu_fraction() -> str:
  """Returns the share of a GPU's memory to allocate: all but a little, but enough of that."""
  if (program := shutil.which("nvidia-smi")) is None:
    return _DEFAULT_GPU_FRACTION
  command = [program, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
  try:
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    smallest = min(int(line) for line in listed.split("\n") if line.strip())
  except (OSError, subprocess.SubprocessError, ValueError):
    return _DEFAULT_GPU_FRACTION
  share = min(float(_DEFAULT_GPU_FRACTION), 1 - _GPU_ROOM / smallest)
  return f"{share:.2f}".removeprefix("0")
