"""What compilers and allocators are told, before they are loaded."""

import os

_TPU_FLAGS = "LIBTPU_INIT_ARGS"
# Products with gathered weights would be cut into steps around the ring, each of which reads and
# writes its part of the result: three times the memory traffic of gathering first.
_FLAGS = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}
# A run has its GPUs alone, and would leave a quarter of their memory unused. What is left for the
# driver and collectives makes of a GPU of 80 GB the 80e9 bytes that `chips` knows.
_GPU_SHARE = ("XLA_CLIENT_MEM_FRACTION", ".94")
_OLDER_NAME = "XLA_PYTHON_CLIENT_MEM_FRACTION"


def prepare() -> None:
  """Adds what is missing to the environment; what is set there stays as it is."""
  given = os.environ.get(_TPU_FLAGS, "")
  new = [f"--{name}={value}" for name, value in _FLAGS.items() if name not in given]
  os.environ[_TPU_FLAGS] = " ".join([*given.split(), *new])
  if _OLDER_NAME not in os.environ:  # jax refuses both
    os.environ.setdefault(*_GPU_SHARE)
