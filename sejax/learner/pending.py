"""Work for the devices that the host sends off in parts, with other work between them."""

from collections.abc import Generator
from typing import Generic, TypeVar

T = TypeVar("T")


class Pending(Generic[T]):
  """The result of programs of which some were not sent to the devices yet.

  Devices run programs in the order in which they were sent. So that this is the same on every
  process, nothing is sent by a thread: whoever else uses the devices calls `send_next`.
  """

  def __init__(self, parts: Generator[None, None, T]):
    """Sends nothing yet.

    Args:
      parts: sends a part of the programs whenever it is resumed, and returns the result.
    """
    self._parts = parts
    self._result: list[T] = []

  def send_next(self) -> None:
    """Sends the next part of the programs, if any is left."""
    if self._result:
      return
    try:
      next(self._parts)
    except StopIteration as end:
      self._result.append(end.value)

  def finish(self) -> T:
    """Sends all that is left and returns the result, which the devices may not have yet."""
    while not self._result:
      self.send_next()
    return self._result[0]
