"""Environment variables for XLA's compilers and allocators, set before a backend starts."""

import os

_TPU_FLAGS = "LIBTPU_INIT_ARGS"
# Without this, products with all-gathered weights are split into steps around the ring. Each step
# reads and writes its part of the result: three times the memory traffic of gathering first.
_DEFAULT_TPU_FLAGS = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}
# jax preallocates only 75% of a GPU by default, but a run has its GPUs to itself. The rest is for
# the driver and collectives; of an 80 GB GPU, 94% are the 80e9 bytes in `chips`.
_GPU_FRACTION, _DEFAULT_GPU_FRACTION = "XLA_CLIENT_MEM_FRACTION", ".94"
_OLD_GPU_FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"


def prepare() -> None:
  """Sets sejax's defaults of environment variables; flags that the user has set stay."""
  user_flags = os.environ.get(_TPU_FLAGS, "")
  added_flags = [
    f"--{name}={value}" for name, value in _DEFAULT_TPU_FLAGS.items() if name not in user_flags
  ]
  os.environ[_TPU_FLAGS] = " ".join([*user_flags.split(), *added_flags])
  if _OLD_GPU_FRACTION not in os.environ:  # jax refuses to have both names set.
    os.environ.setdefault(_GPU_FRACTION, _DEFAULT_GPU_FRACTION)
