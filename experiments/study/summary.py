"""What the study's results come to: tables, differences with intervals, and what is left to run."""

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from configs import tiny
from experiments.study import cells
from experiments.study.cells import Cell
from experiments.study.results import MEASURES, MOMENTS, Run, Study
from sejax.evaluation.metrics import Estimate, Interval

# What is shown of training beside the read-offs.
_DYNAMICS = ("label_accuracy", "sampled_entropy", "response_length", "agreement")
_DRAWS = 4000
_LEVEL = 0.95


def bootstrap(values: Float[np.ndarray, "S N"], *, seed: int = 0) -> Interval:
  """Returns the mean with its bootstrap interval over seeds and figures, which cross.

  A resample draws S - 1 of the S seeds and N - 1 of the N figures with replacement, independently:
  one less than there are, as the spread of few seeds is else too small by (S - 1)/S (Rao and Wu,
  1988). With one seed it is over figures alone. Two seeds know little of how far seeds spread:
  where they differ more than figures explain, the interval holds the truth less often than it says.
  `scipy.stats.bootstrap` resamples one factor.

  Args:
    values: one per seed and figure.
    seed: of the resampling.
  """
  rng = np.random.default_rng(seed)
  weights = [_weights(rng, size) for size in values.shape]
  means = np.einsum("ds,ds->d", weights[0], weights[1] @ values.T)
  low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
  return Interval(float(values.mean()), float(low), float(high))


def _weights(rng: np.random.Generator, size: int) -> Float[np.ndarray, "draws size"]:
  if size == 1:
    return np.ones((_DRAWS, 1))
  return rng.multinomial(size - 1, np.full(size, 1 / size), _DRAWS) / (size - 1)


def points(gains: Float[np.ndarray, "S N"]) -> str:
  """Returns a mean in points, the error over figures, and in brackets the spread over seeds."""
  estimate = Estimate.of(gains.mean(axis=0))
  spread = f" ({100 * gains.mean(axis=1).std(ddof=1):.1f})" if len(gains) > 1 else ""
  return f"{100 * estimate.value:+.1f} ± {100 * estimate.error:.1f}{spread}"


def table(study: Study, measure: str = "pass_at_1") -> str:
  """Returns the gains of a measure and the collapses of all methods, as a table in Markdown.

  The first error is that of the mean over figures; in brackets is the deviation over seeds.
  """
  head = ["start", "method", "seeds", "steps", *MOMENTS, "falls after"]
  rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
  for (start, method), runs in study.runs.items():
    steps = sorted({run.steps for run in runs})
    row = [start, method, str(len(runs)), "-".join(map(str, sorted({steps[0], steps[-1]})))]
    row += [points(study.gains(start, method, moment, measure)) for moment in MOMENTS]
    rows.append("| " + " | ".join([*row, collapses(runs)]) + " |")
  return "\n".join(rows) + "\n"


def collapses(runs: list[Run]) -> str:
  """Returns after how many thousand tokens held-out pass@1 of each run falls."""
  found = [run.collapses_after for run in runs]
  if not any(found):
    return "never"
  return ", ".join("never" if tokens is None else f"{tokens / 1000:.0f}k" for tokens in found)


def lines(study: Study) -> Iterator[str]:
  """Yields every number of the study's page."""
  yield "Starts, percent with standard errors over figures"
  for start, measures in study.abilities.items():
    shown = "  ".join(f"{name} {estimate}" for name, estimate in measures.items())
    yield f"  {start}: {shown}  length {study.starts[start].length:.1f}"
  yield "Scores of the Judge at the starts: percent of wrong and of right answers"
  for start, scores in study.scores.items():
    yield f"  {start}: {'  '.join(_score_shares(scores))}"
  for measure in MEASURES:
    yield f"Gains of {measure} in points: ± error over figures, in brackets the spread over seeds"
    yield from table(study, measure).splitlines()
  yield f"The full method less another, points, {_LEVEL:.0%} interval, then each seed"
  for measure in MEASURES:
    for moment in MOMENTS:
      yield from _compared(study, measure, moment)
  yield "Training at first and in the tenth of the tokens before each moment, means over runs"
  for (start, method), runs in study.runs.items():
    for name in _DYNAMICS:
      first = [run.curves[name][0] for run in runs if name in run.curves]
      if values := [value for value in first if value is not None]:
        shown = [f"first {np.mean(values):.3f}"]
        for moment in MOMENTS:
          found = [x for run in runs if (x := run.at(moment, name)) is not None]
          shown.append(f"{moment} {np.mean(found):.3f}" if found else f"{moment} none")
        yield f"  {start}, {method}: {name} {'  '.join(shown)}"
    reads = np.mean(
      [[read.values["pass_at_1"].mean() for read in run.reads] for run in runs], axis=0
    )
    shown = "  ".join(f"{100 * value:.1f}" for value in reads)
    yield f"  {start}, {method}: held-out pass@1 at the read-offs {shown}"
    chosen = {moment: [run.number(moment) + 1 for run in runs] for moment in MOMENTS[:2]}
    fall = ", ".join(str(run.fall) for run in runs)
    yield f"  {start}, {method}: read-offs best {chosen['best']}  chosen {chosen['chosen']}"
    yield f"  {start}, {method}: falls after {collapses(runs)}, from the best to the last by {fall}"


def _score_shares(scores: Mapping[str, list[int]]) -> Iterator[str]:
  """Yields each score with its shares, and what the thresholds of the method make of them."""
  counts = np.maximum(np.sum(list(scores.values()), axis=0), 1)
  shares = {float(score): 100 * np.array(pair) / counts for score, pair in scores.items()}
  for score, (wrong, right) in shares.items():
    yield f"{score:g}: {wrong:.1f}, {right:.1f}"
  high, low = (tiny.get_config().method[name] for name in ("t_h", "t_l"))
  above = np.sum([pair for score, pair in shares.items() if score > high], axis=0)
  below = np.sum([pair for score, pair in shares.items() if score < low], axis=0)
  yield "above t_h={}: {:.1f}, {:.1f}".format(high, *np.broadcast_to(above, 2))
  yield "below t_l={}: {:.1f}, {:.1f}".format(low, *np.broadcast_to(below, 2))


def _compared(study: Study, measure: str, moment: str) -> Iterator[str]:
  for start, method in study.runs:
    if method == cells.FULL or (start, cells.FULL) not in study.runs:
      continue
    each = study.differences(start, (cells.FULL, method), moment, measure)
    if len(each):
      value, low, high = (100 * x for x in bootstrap(each))
      interval = f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
      seeds = " ".join(f"{100 * seed:+.1f}" for seed in each.mean(axis=1))
      yield f"  {measure}, {moment}, {start}, {method}: {interval}: {seeds}"


def plan(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
  """Yields what is to run, with its steps, and how long it takes by the cells that are done."""
  done = results["cells"]
  seconds = {name: sum(found["seconds"]) for name, found in done.items()}
  left = 0.0
  yield f"{len(done)} of {len(cells.cells())} cells are done; to run, in this order:"
  for cell in cells.cells():
    if cell.name in done:
      continue
    alike = [seconds[name] for name in seconds if Cell.of(name)[:2] == cell[:2]]
    guess = statistics.mean(alike or seconds.values()) if seconds else None
    left += guess or 0.0
    yield f"  {cell.name}: about {cell.steps} steps" + (f", {guess / 60:.0f} min" if guess else "")
  if done:
    spent = sum(seconds.values()) / 3600
    yield f"hours of one core: {spent:.1f} for what is done, about {left / 3600:.1f} for the rest"
