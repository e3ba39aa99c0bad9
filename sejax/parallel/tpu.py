"""What the TPU's compiler is told, before it is loaded."""

import os

_VARIABLE = "LIBTPU_INIT_ARGS"
# Products with gathered weights would be cut into steps around the ring, each of which reads and
# writes its part of the result: three times the memory traffic of gathering first.
_FLAGS = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}


def set_flags() -> None:
  """Adds the flags to those in the environment; what is set there stays as it is."""
  given = os.environ.get(_VARIABLE, "")
  new = [f"--{name}={value}" for name, value in _FLAGS.items() if name not in given]
  os.environ[_VARIABLE] = " ".join([*given.split(), *new])
