"""A request to stop that lets the step in progress end."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np

from sejax.parallel import hosts


class StopRequest:
  """Whether any process has been asked to stop."""

  def __init__(self):
    self._here = False

  def note(self, *_: Any) -> None:
    """Remembers the request; a signal handler."""
    self._here = True

  def given(self) -> bool:
    """Returns whether to stop; all processes ask together and get the same answer."""
    return bool(hosts.any_process(np.array([self._here])).any())


@contextlib.contextmanager
def on_sigterm() -> Iterator[StopRequest]:
  """Turns SIGTERM, which machines send before they are taken away, into a request to stop."""
  request = StopRequest()
  before = signal.signal(signal.SIGTERM, request.note)
  try:
    yield request
  finally:
    signal.signal(signal.SIGTERM, before)
