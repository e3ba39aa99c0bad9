"""The published benchmarks by name; each has a module that defines its files and protocols."""

from collections.abc import Iterable

from sejax.errors import ConfigError, quoted
from sejax.evaluation.benchmarks import (
  dynamath,
  geometry3k,
  logicvista,
  mathverse,
  mathvision,
  wemath,
)
from sejax.evaluation.benchmarks.protocol import Benchmark

_MODULES = (mathvision, mathverse, wemath, logicvista, dynamath, geometry3k)
BENCHMARKS: dict[str, Benchmark] = {m.BENCHMARK.name: m.BENCHMARK for m in _MODULES}


def names(sets: Iterable[str]) -> list[str]:
  """Splits entries of `config.eval.sets` at commas and validates the names.

  Raises:
    ConfigError: a name is not that of a benchmark.
  """
  split = [name.strip() for part in sets for name in str(part).split(",") if name.strip()]
  for name in split:
    if name not in BENCHMARKS:
      raise ConfigError(
        f"config.eval.sets names {quoted(name)}, which is none of {', '.join(BENCHMARKS)}"
      )
  return split
