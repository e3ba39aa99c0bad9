"""Requests to stop that let the step in progress end: Ctrl-C, SIGTERM, and a terminal's SIGHUP."""

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

import numpy as np

from sejax.parallel import hosts

# SIGTERM is what machines send before they are taken away; Windows has no SIGHUP.
_REQUESTS = [
  getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
_SAID = b"\nStopping after what is in progress, and saving it; Ctrl-C again stops at once.\n"


class StopRequest:
  """Whether any process of the run has been asked to stop."""

  def __init__(self):
    self._here = False

  def note(self, number: int, frame: FrameType | None) -> None:
    """Remembers the request; a signal handler."""
    del frame
    self._here = True
    if number == signal.SIGINT:
      with contextlib.suppress(OSError):  # nobody reads it
        os.write(2, _SAID)  # not by `print`, which may be at work
      # The next one ends the process from within a compiled program, too, where Python's handlers
      # wait for its end. An interpreter that a person types into lives on.
      is_interactive = hasattr(sys, "ps1")
      signal.signal(signal.SIGINT, signal.default_int_handler if is_interactive else signal.SIG_DFL)

  def given(self) -> bool:
    """Returns whether to stop; all processes ask together and get the same answer."""
    return bool(hosts.any_process(np.array([self._here])).any())


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequest]:
  """Turns Ctrl-C, SIGTERM and SIGHUP into requests to stop, within a block.

  A signal that the process was told to ignore (`nohup`, or a shell's background job) stays ignored.
  Outside of the main thread, where Python allows no handlers, signals do what they did before.
  """
  request = StopRequest()
  before = {}
  if threading.current_thread() is threading.main_thread():
    for number in _REQUESTS:
      if signal.getsignal(number) is not signal.SIG_IGN:
        before[number] = signal.signal(number, request.note)
  try:
    yield request
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def shield_workers() -> None:
  """Starts what Python shares memory with workers by, so that it outlives a terminal.

  It ignores Ctrl-C and SIGTERM by itself, and SIGHUP if it is started by a process that does.
  """
  if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
      multiprocessing.resource_tracker.ensure_running()
    finally:
      signal.signal(signal.SIGHUP, before)


def ignore_in_worker(*_: int) -> None:
  """Leaves requests to the main process, in a process that works for it and ends with it.

  A terminal sends Ctrl-C and SIGHUP, and a cluster SIGTERM, to the whole group of processes; the
  main one still needs its workers to finish the step.
  """
  for number in _REQUESTS:
    signal.signal(number, signal.SIG_IGN)

  def follow(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)

  if (parent := multiprocessing.parent_process()) is not None:
    threading.Thread(target=follow, args=(parent.sentinel,), daemon=True).start()
