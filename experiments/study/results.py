"""The study's results: the file `results.json`, and what it says of starts, runs and gains."""

import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float

from experiments.study import cells
from sejax.evaluation.metrics import Estimate

FILE = "results.json"
MEASURES = ("pass_at_1", "maj_at_8", "greedy")
MOMENTS = ("best", "chosen", "last")
_ERRORS, _LEVEL_ERRORS = 4, 2  # standard errors of a fall, and within which values are level


def load(file: pathlib.Path) -> dict[str, Any]:
  """Returns the results by start and by cell; none if there is no such file.

  Raises:
    ValueError: they are of another budget, or of another start than is in its folder.
  """
  if not file.exists():
    return {"starts": {}, "cells": {}}
  results = json.loads(file.read_text(encoding="utf-8"))
  for name, found in {**results["starts"], **results["cells"]}.items():
    require_conditions(name, found, file)
  return results


def require_conditions(name: str, found: Mapping[str, Any], file: pathlib.Path) -> None:
  """Checks that a result is of this study's budget, figures and start.

  Args:
    name: of a start or a cell.
    found: its result.
    file: that holds it.

  Raises:
    ValueError: it is not; a comparison with others would be wrong.
  """
  made = found.get("conditions", {})
  for key, value in cells.conditions(name.split("-")[0]).items():
    if made.get(key) != value:
      raise ValueError(f"{file}: {name} has {key}={made.get(key)}, here it is {value}; remove it")


def to_json(results: Mapping[str, Mapping[str, Any]]) -> str:
  """Returns the results with a line per start and per cell, in a fixed order."""
  order = {cell.name: number for number, cell in enumerate(cells.cells())}
  sections = []
  for section, found in results.items():
    names = sorted(found, key=lambda name: (order.get(name, -1), name))
    lines = [f"  {json.dumps(name)}: {json.dumps(found[name])}" for name in names]
    sections.append(f" {json.dumps(section)}: {{\n" + ",\n".join(lines) + "\n }")
  return "{\n" + ",\n".join(sections) + "\n}\n"


class ReadOff(NamedTuple):
  """What a policy answers.

  Attributes:
    tokens: sampled before.
    collapse_score: mean of the steps before; NaN for a start.
    length: tokens of a trajectory.
    values: share of right answers to each figure, by measure.
  """

  tokens: int
  collapse_score: float
  length: float
  values: Mapping[str, Float[np.ndarray, " N"]]

  @classmethod
  def of(cls, found: Mapping[str, Any]) -> Self:
    """Reverses `measure.read_off`."""
    digits = {name: np.array(list(found[name]), float) for name in MEASURES}
    tied = digits["maj_at_8"]
    digits["pass_at_1"] /= 8
    digits["maj_at_8"] = np.divide(1, tied, out=np.zeros_like(tied), where=tied > 0)
    return cls(
      tokens=found.get("tokens", 0),
      collapse_score=found.get("collapse_score", math.nan),
      length=found["length"],
      values=digits,
    )


class Run(NamedTuple):
  """A finished cell.

  Attributes:
    seed: of data and samples.
    steps: trained.
    reads: in the order of their tokens.
    curves: metrics of training in equal shares of the tokens, see `measure.curves`.
  """

  seed: int
  steps: int
  reads: tuple[ReadOff, ...]
  curves: Mapping[str, list[float | None]]

  def number(self, moment: str) -> int:
    """Returns which read-off belongs to a moment, from 0.

    Args:
      moment: `best` by held-out pass@1, which needs labels; `chosen` by the lowest collapse score,
        which needs none; or `last`.
    """
    match moment:
      case "best":
        return int(np.argmax([read.values["pass_at_1"].mean() for read in self.reads]))
      case "chosen":
        return int(np.argmin([read.collapse_score for read in self.reads]))
    return len(self.reads) - 1

  def values(self, moment: str, measure: str) -> Float[np.ndarray, " N"]:
    """Returns the share of right answers to each figure at a moment.

    The best moment is found for each half of the figures by the other half: the highest of several
    means is too high by chance.
    """
    if moment != "best":
      return self.reads[self.number(moment)].values[measure]
    pass_at_1 = np.stack([read.values["pass_at_1"] for read in self.reads])
    measured = np.stack([read.values[measure] for read in self.reads])
    best = np.empty(measured.shape[1])
    for half in (0, 1):
      by_other_half = pass_at_1[:, 1 - half :: 2].mean(axis=1).argmax()
      best[half::2] = measured[by_other_half, half::2]
    return best

  def at(self, moment: str, name: str) -> float | None:
    """Returns the mean of a metric of training over the tenth of the tokens before a moment."""
    tokens = self.reads[self.number(moment)].tokens
    end = int(np.searchsorted(self.curves["tokens"], tokens)) + 1
    values = self.curves.get(name, [])[max(end - len(self.curves["tokens"]) // 10, 0) : end]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None

  @property
  def fall(self) -> Estimate:
    """By how much held-out pass@1 is lower at the last read-off than at the best, by figure."""
    return self._below_best(-1)

  @property
  def collapses_after(self) -> int | None:
    """Tokens after which held-out pass@1 falls; None if at the end it is not below its best.

    It is, if the fall is of four standard errors: the best is the highest of several. It falls
    after the last read-off that is within two of the best.
    """
    if self.fall.value <= _ERRORS * self.fall.error:
      return None
    below = map(self._below_best, range(len(self.reads)))
    level = [number for number, x in enumerate(below) if x.value <= _LEVEL_ERRORS * x.error]
    return self.reads[level[-1]].tokens

  def _below_best(self, number: int) -> Estimate:
    best, here = (self.reads[n].values["pass_at_1"] for n in (self.number("best"), number))
    return Estimate.of(best - here)


class Study(NamedTuple):
  """The results of the starts and of the cells that are done.

  Attributes:
    starts: read-offs by start.
    abilities: of each start, means with standard errors by measure, see `abilities.measures`.
    scores: of each start, how many wrong and right answers got each score of the Judge.
    runs: by start and method, in the order of the seeds.
  """

  starts: Mapping[str, ReadOff]
  abilities: Mapping[str, Mapping[str, Estimate]]
  scores: Mapping[str, Mapping[str, list[int]]]
  runs: Mapping[tuple[str, str], list[Run]]

  @classmethod
  def of(cls, results: Mapping[str, Mapping[str, Any]]) -> Self:
    """Reads the content of `results.json`; cells of a start without a result are left out."""
    starts = {name: results["starts"][name] for name in cells.STARTS if name in results["starts"]}
    runs: dict[tuple[str, str], list[Run]] = {}
    for cell in cells.cells():
      if (found := results["cells"].get(cell.name)) and cell.start in starts:
        reads = tuple(map(ReadOff.of, found["read"]))
        run = Run(seed=cell.seed, steps=found["steps"], reads=reads, curves=found["curves"])
        runs.setdefault((cell.start, cell.method), []).append(run)
    return cls(
      starts={name: ReadOff.of(found["read"]) for name, found in starts.items()},
      abilities={
        name: {measure: Estimate(*pair) for measure, pair in found["measures"].items()}
        for name, found in starts.items()
      },
      scores={name: found["scores"] for name, found in starts.items()},
      runs={
        (start, method): runs[start, method]
        for start in cells.STARTS
        for method in dict.fromkeys(cell.method for cell in cells.cells())
        if (start, method) in runs
      },
    )

  def gains(
    self, start: str, method: str, moment: str, measure: str = "pass_at_1"
  ) -> Float[np.ndarray, "S N"]:
    """Returns the change of each figure since the start, of each run of a method."""
    before = self.starts[start].values[measure]
    runs = self.runs[start, method]
    return np.stack([run.values(moment, measure) - before for run in runs])

  def differences(
    self, start: str, methods: tuple[str, str], moment: str, measure: str = "pass_at_1"
  ) -> Float[np.ndarray, "S N"]:
    """Returns by how much the first of two methods gains more than the second.

    They are paired by figure and seed; seeds that one of them lacks are left out.
    """
    by_seed = [
      {
        run.seed: gain
        for run, gain in zip(
          self.runs[start, method], self.gains(start, method, moment, measure), strict=True
        )
      }
      for method in methods
    ]
    shared = [seed for seed in by_seed[0] if seed in by_seed[1]]
    size = len(self.starts[start].values[measure])
    return np.array([by_seed[0][seed] - by_seed[1][seed] for seed in shared]).reshape(-1, size)
