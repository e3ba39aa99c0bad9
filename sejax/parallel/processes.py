"""Multi-process runs: joining `jax.distributed`, and ending all processes if one fails."""

import os
import sys
from typing import NoReturn

import jax

from sejax.errors import one_line

# The other processes end if one has been silent for this long.
_HEARTBEAT_SECONDS = 30


def join(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
  """Connects the processes of a run; must be called before devices are used.

  Arguments that are None are detected by `jax.distributed.initialize`: on TPU pod slices, under
  SLURM and Open MPI, and from JAX_COORDINATOR_ADDRESS.

  Args:
    coordinator: host:port of process 0.
    num_processes: number of processes of the run.
    process_id: index of this process, from 0.

  Raises:
    ValueError: the processes cannot be detected, or do not answer.
  """
  try:
    if jax.config.jax_platforms == "cpu":
      jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
      coordinator, num_processes, process_id, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS
    )
  except (RuntimeError, ValueError) as error:
    raise ValueError(
      f"the processes of this run cannot be joined: {one_line(error)}; give"
      " --coordinator=HOST:PORT, --num_processes and --process_id, or start it under SLURM, Open"
      " MPI or on a TPU pod"
    ) from None


def leave(status: int) -> NoReturn:
  """Exits with a status; a process of several that failed exits at once, which ends the others.

  An ordinary exit would wait for the other processes, which wait for this one.
  """
  if status and jax.distributed.is_initialized():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
  sys.exit(status)
