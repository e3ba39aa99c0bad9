"""How everything here is timed."""

import time
from collections.abc import Callable


def best_seconds(steps: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
  """Times the steps in turn, after one warm-up of each, and returns the best of each."""
  best = dict.fromkeys(steps, float("inf"))
  for step in steps.values():
    step()
  for _ in range(repeats):
    for name, step in steps.items():
      start = time.perf_counter()
      step()
      best[name] = min(best[name], time.perf_counter() - start)
  return best
