"""Device programs that the host dispatches in parts, so that other programs run between them."""

from collections.abc import Generator
from typing import Generic, TypeVar

T = TypeVar("T")


class Pending(Generic[T]):
  """The result of a sequence of programs, some of which were not dispatched yet.

  Devices run programs in the order of dispatch, which must be the same on every process. So no
  thread dispatches them: other users of the devices call `send_next` between their own programs.
  """

  def __init__(self, parts: Generator[None, None, T]):
    """Dispatches nothing yet.

    Args:
      parts: dispatches some programs each time it is resumed, and returns the result.
    """
    self._parts = parts
    self._result: list[T] = []

  def send_next(self) -> None:
    """Dispatches the next part of the programs, if any is left."""
    if self._result:
      return
    try:
      next(self._parts)
    except StopIteration as end:
      self._result.append(end.value)

  def finish(self) -> T:
    """Dispatches all that is left; returns the result, whose arrays may not be computed yet."""
    while not self._result:
      self.send_next()
    return self._result[0]
