"""Multi-process runs: joining `jax.distributed`, and ending all processes if one fails."""

import contextlib
import itertools
import json
import os
import socket
import sys
import threading
import time
from typing import Any, NoReturn

import jax
from jax._src import distributed

from sejax.errors import one_line

# The other processes end if one has been silent for this long.
_HEARTBEAT_SECONDS = 30
# Where a process that cannot go on leaves its last words: a key of the store that jax's processes
# share. jax has no public function for it.
_LAST_WORDS, _POLL_SECONDS = "sejax/last_words", 1.0
_SHOWN: list[dict[str, Any]] = []
_WAITS = itertools.count()
_SHOWING = threading.Lock()


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
  if jax.process_index() == 0:
    threading.Thread(target=_wait_for_last_words, daemon=True, name="last words").start()


def wait_for_all(seconds: float) -> None:
  """Waits until all processes have called this as often, for what one of them may do for long.

  In a collective of the devices the others would give up within half a minute on CPUs.

  Args:
    seconds: after which it gives up.
  """
  if jax.process_count() > 1:
    name = f"sejax/all/{next(_WAITS)}"
    distributed.global_state.client.wait_at_barrier(name, int(1000 * seconds))


def tell(message: str) -> None:
  """Says on process 0's console why another process of the run cannot go on."""
  if jax.distributed.is_initialized() and jax.process_index() > 0:
    words = {"process": jax.process_index(), "host": socket.gethostname(), "message": message}
    with contextlib.suppress(Exception):  # It is told once; or process 0 is gone itself.
      _store().key_value_set(_LAST_WORDS, json.dumps(words))


def _store() -> Any:
  return distributed.global_state.client


def show_last_words() -> bool:
  """Prints, once, why another process cannot go on; returns whether any has said so."""
  with _SHOWING:
    try:
      words = json.loads(_store().key_value_try_get(_LAST_WORDS))
    except Exception:  # Nobody has left any.
      return False
    if words not in _SHOWN:
      _SHOWN.append(words)
      print(
        f"sejax: process {words['process']} on {words['host']} cannot go on: {words['message']}",
        file=sys.stderr,
        flush=True,
      )
    return True


def _wait_for_last_words() -> None:
  while jax.distributed.is_initialized() and not show_last_words():
    time.sleep(_POLL_SECONDS)


def leave(status: int) -> NoReturn:
  """Exits with a status; a process of several that failed exits at once, which ends the others.

  An ordinary exit would wait for the other processes, which wait for this one.
  """
  if status and jax.distributed.is_initialized():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
  sys.exit(status)
