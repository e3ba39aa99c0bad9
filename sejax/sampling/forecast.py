"""Forecasts the sizes of the next decode runs, so that their programs are compiled in advance.

The host cannot know when sequences will end. It assumes that they end as fast as during the last
run, in random order. A wrong guess costs a compilation, in a thread that nothing waits for.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from sejax.sampling.programs import DecodeSize, SamplerPrograms
from sejax.sampling.scheduler import Limits, Schedule

_SMALLER = 3  # sizes of the batch below today's that are forecast
_LONGER = 2  # decode runs after which today's batch is forecast


def forecast(
  schedule: Schedule,
  programs: SamplerPrograms,
  limits: Limits,
  now: DecodeSize,
  *,
  is_shrinking: bool,
  ended: float,
) -> Iterator[DecodeSize]:
  """Yields sizes of the decode runs after the one under way, the next first.

  Args:
    schedule: which sequences run, as the run under way has begun with them.
    now: sizes of that run.
    is_shrinking: whether batch and KV cache become smaller as sequences end.
    ended: share of the sequences that ended in the run before.
  """
  steps = programs.options.run_steps
  running = [np.array(row, int) for row in schedule.running]
  for runs in range(1, _LONGER + 1):
    pages = _pages(schedule, running, runs * steps)
    yield now._replace(pages=max(now.pages, programs.pages(pages, limits)))
  if not is_shrinking:
    return
  most, rows = max(map(len, running)), now.rows
  for _ in range(_SMALLER):
    smaller = programs.rows_below(rows, limits.rows)
    if not smaller:
      return
    rows = programs.rows(smaller, limits.rows)
    share = rows / most
    # Tokens after which this share is left, at least those of the run under way.
    tokens = steps * min(max((1 - share) / max(ended, 0.01), 1), 8)
    generator = np.random.default_rng(0)
    left = [np.sort(generator.permutation(row)[: round(share * len(row))]) for row in running]
    prompts = [np.unique(row // programs.options.members, return_counts=True)[1] for row in left]
    yield DecodeSize(
      rows=rows,
      pages=programs.pages(_pages(schedule, left, round(tokens)), limits),
      prompts=programs.prompts(max(map(len, prompts)), now.prompts),
      members=programs.members(max(int(counts.max(initial=1)) for counts in prompts)),
    )


def _pages(schedule: Schedule, sequences: list[Int[np.ndarray, " r"]], tokens: int) -> int:
  """Returns the pages of the fullest shard when its sequences have some more tokens."""
  return max(
    int(schedule.pages_for(schedule.num_cached[shard, row] + tokens).sum())
    for shard, row in enumerate(sequences)
  )
