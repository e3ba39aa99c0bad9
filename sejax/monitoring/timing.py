"""Where the time of a step goes."""

import contextlib
import pathlib
import time
from collections.abc import Iterator, Sequence

import jax


class Clock:
  """Sums seconds by stage.

  Stages end on the host (texts, metrics), so their times hold what their programs took; each is
  named in profiles too.
  """

  def __init__(self):
    self._seconds: dict[str, float] = {}
    self._began = time.monotonic()

  @contextlib.contextmanager
  def __call__(self, stage: str) -> Iterator[None]:
    """Adds the time of a block to a stage."""
    began = time.monotonic()
    with jax.profiler.TraceAnnotation(stage):
      yield
    self._seconds[stage] = self._seconds.get(stage, 0.0) + time.monotonic() - began

  def lap(self) -> dict[str, float]:
    """Returns the seconds of each stage and, as `total`, of all since the last lap; starts anew."""
    now = time.monotonic()
    lap = {**self._seconds, "total": now - self._began}
    self._seconds, self._began = {}, now
    return lap


@contextlib.contextmanager
def profiling(steps: Sequence[int], directory: pathlib.Path, step: int) -> Iterator[None]:
  """Profiles a block, if its step is one of those named, for TensorBoard's profile page."""
  if step not in steps:
    yield
    return
  with jax.profiler.trace(str(directory)):
    yield


class Compilations:
  """Counts the programs that are compiled in this process, or loaded from the cache of them."""

  def __init__(self):
    self._count = 0
    jax.monitoring.register_event_duration_secs_listener(self._note)

  def _note(self, event: str, duration: float, **_: object) -> None:
    del duration
    self._count += event == "/jax/core/compile/backend_compile_duration"

  def lap(self) -> int:
    """Returns their number since the last lap."""
    count, self._count = self._count, 0
    return count
