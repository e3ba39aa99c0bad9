"""Several processes of one run: how they find each other, and how they end together."""

import os
import sys
from typing import NoReturn

import jax

# A process that is killed is missed after so long, and the others end.
_HEARTBEAT_SECONDS = 30


def join(coordinator: str | None, count: int | None, number: int | None) -> None:
  """Joins the processes of a run; called before anything asks for devices.

  What is not given is found from the environment: on TPU pod slices, under SLURM and Open MPI, and
  from JAX_COORDINATOR_ADDRESS (`jax.distributed.initialize`).

  Args:
    coordinator: host:port of process 0.
    count: of processes.
    number: of this one, from 0.

  Raises:
    ValueError: they are not found, or do not answer.
  """
  try:
    if jax.config.jax_platforms == "cpu":
      jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
      coordinator, count, number, heartbeat_timeout_seconds=_HEARTBEAT_SECONDS
    )
  except (RuntimeError, ValueError) as error:
    said = " ".join(str(error).split())[:200]
    raise ValueError(
      f"the processes of this run cannot be joined: {said}; give --coordinator=HOST:PORT,"
      " --num_processes and --process_id, or start it where they can be found"
    ) from None


def leave(status: int) -> NoReturn:
  """Ends this process; one of several that failed does not wait for the others, which then end."""
  if status and jax.distributed.is_initialized():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
  sys.exit(status)
