"""Turns Ctrl-C, SIGTERM and SIGHUP into requests to stop after the step in progress."""

import contextlib
import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from sejax.parallel import hosts

# Schedulers send SIGTERM before they preempt a machine; Windows has no SIGHUP.
_STOP_SIGNALS = [
  getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
_MESSAGE = b"\nStopping after what is in progress, and saving it; Ctrl-C again stops at once.\n"


class StopRequest:
  """Records whether any process of the run has been asked to stop.

  Attributes:
    status: exit status of a run that stops. It is 0 after Ctrl-C, which a person gave. After
      another signal it is that of a process which the signal ended, by which a scheduler knows that
      the run is not over.
  """

  def __init__(self):
    self.status = 0
    self._received = 0  # the number of the signal

  def handle(self, number: int, frame: FrameType | None) -> None:
    """Records the request; a signal handler."""
    del frame
    self._received = number
    if number == signal.SIGINT:
      with contextlib.suppress(OSError):  # Standard error may be closed.
        os.write(2, _MESSAGE)  # A handler must not use `print`, which it may have interrupted.
      # The default action ends the process at once on a second Ctrl-C; a Python handler would run
      # only after the compiled program in progress. An interactive interpreter must survive it.
      is_interactive = hasattr(sys, "ps1")
      signal.signal(signal.SIGINT, signal.default_int_handler if is_interactive else signal.SIG_DFL)

  def requested(self) -> bool:
    """Whether any process was asked to stop; all must call it, and get the same result."""
    (number,) = hosts.max_over_processes(self._received)
    self.status = 0 if number in (0, signal.SIGINT) else 128 + number
    return number > 0


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
  """Handles Ctrl-C, SIGTERM and SIGHUP as requests to stop within a `with` block.

  Signals that the process ignores (under `nohup`, or in a shell's background job) stay ignored.
  Outside of the main thread, where Python allows no handlers, signals keep their effect.
  """
  request = StopRequest()
  previous = {}
  if threading.current_thread() is threading.main_thread():
    for number in _STOP_SIGNALS:
      if signal.getsignal(number) is not signal.SIG_IGN:
        previous[number] = signal.signal(number, request.handle)
  try:
    yield request
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)


def start_resource_tracker() -> None:
  """Starts multiprocessing's resource tracker so that it ignores SIGHUP; call before workers start.

  Workers share memory through this process. By itself it ignores only Ctrl-C and SIGTERM, and would
  end with the terminal while the run finishes its step.
  """
  if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # The child inherits this.
    try:
      multiprocessing.resource_tracker.ensure_running()
    finally:
      signal.signal(signal.SIGHUP, previous)


def ignore_signals_in_worker(*_: int) -> None:
  """Makes a worker process ignore requests to stop, and end with its parent; a worker initializer.

  Terminals send Ctrl-C and SIGHUP, and clusters SIGTERM, to the whole process group, but the parent
  still needs its workers to finish the step.
  """
  for number in _STOP_SIGNALS:
    signal.signal(number, signal.SIG_IGN)
  parent = multiprocessing.parent_process()
  if parent is not None:
    threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()


def _exit_with(sentinel: int) -> None:
  """Waits for the end of the process that a sentinel belongs to, then ends this one."""
  multiprocessing.connection.wait([sentinel])
  os._exit(1)
