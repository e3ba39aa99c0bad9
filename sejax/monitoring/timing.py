"""Measures where the time of a training step goes: seconds by stage, profiles, compilations."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

import jax

from sejax import storage


class Clock:
  """Sums wall-clock seconds by stage, and names the stages in profiles.

  A stage must end with a result on the host (texts, metrics). Otherwise its time would not include
  the programs that it launched, since jax dispatches them asynchronously.
  """

  def __init__(self):
    self._seconds: dict[str, float] = {}
    self._lap_start = time.monotonic()

  @contextlib.contextmanager
  def __call__(self, stage: str) -> Iterator[None]:
    """Adds the time of a `with` block to a stage."""
    start = time.monotonic()
    with jax.profiler.TraceAnnotation(stage):
      yield
    self._seconds[stage] = self._seconds.get(stage, 0.0) + time.monotonic() - start

  def lap(self) -> dict[str, float]:
    """Returns the seconds of each stage since the last lap, and all seconds as `total`."""
    now = time.monotonic()
    lap = {**self._seconds, "total": now - self._lap_start}
    self._seconds, self._lap_start = {}, now
    return lap


@contextlib.contextmanager
def profiling(steps: Sequence[int], directory: storage.Path, step: int) -> Iterator[None]:
  """Profiles a `with` block for TensorBoard if `step` is one of `steps`."""
  if step not in steps:
    yield
    return
  with storage.written_locally(directory) as local, jax.profiler.trace(local):
    yield


class CompilationCounter:
  """Counts programs that this process compiles or loads from the compilation cache."""

  def __init__(self):
    self._count, self._lock = 0, threading.Lock()  # Several threads compile.
    jax.monitoring.register_event_duration_secs_listener(self._on_event)

  def _on_event(self, event: str, duration: float, **_: object) -> None:
    del duration
    with self._lock:
      self._count += event == "/jax/core/compile/backend_compile_duration"

  def lap(self) -> int:
    """Returns the number of programs since the last lap."""
    with self._lock:
      count, self._count = self._count, 0
    return count
