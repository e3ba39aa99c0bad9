"""What the runs of a comparison come to: a table, plain values, and a figure of their dynamics."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from sejax.evaluation.metrics import Estimate
from sejax.monitoring import writers

Values = Mapping[str, Float[np.ndarray, " N"]]

# Panels of the figure by their title, each a field of the metrics.
_PANELS = {
  "accuracy of a sample, training figures": "pass@1",
  "entropy, nats per token": "entropy",
  "response, tokens": "response_length",
  "share of the majority": "majority_share",
}


class Run(NamedTuple):
  """A finished run.

  Attributes:
    variant: which reward.
    seed: of the run.
    changes: of each held-out figure, by measure.
    seconds: that it took.
  """

  variant: str
  seed: str
  changes: Values
  seconds: float


def line(values: Values) -> str:
  """Returns means with standard errors, in percent."""
  return "   ".join(f"{name} {Estimate.of(value)}" for name, value in values.items())


def plain(before: Values, runs: Sequence[Run]) -> dict[str, Any]:
  """Returns means and standard errors as plain values, shares of one.

  Args:
    before: of each held-out figure, by measure.
    runs: finished ones.
  """
  result: dict[str, Any] = {"before": {name: _plain(value) for name, value in before.items()}}
  for run in runs:
    changes = {name: _plain(value) for name, value in run.changes.items()}
    result[f"{run.variant}_{run.seed}"] = changes | {"seconds": run.seconds}
  return result


def table(before: Values, runs: Sequence[Run]) -> str:
  """Returns a table of the changes of each variant in points, means over seeds.

  The first error is that of the mean over figures, the second the standard deviation over seeds.
  """
  names = list(before)
  lines = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
  lines.append("| before | " + " | ".join(str(Estimate.of(before[name])) for name in names) + " |")
  for variant in dict.fromkeys(run.variant for run in runs):
    of_variant = [run.changes for run in runs if run.variant == variant]
    cells = []
    for name in names:
      each = np.array([changes[name] for changes in of_variant])
      spread = f" ({100 * each.mean(axis=1).std(ddof=1):.1f})" if len(each) > 1 else ""
      estimate = Estimate.of(each.mean(axis=0))
      cells.append(f"{100 * estimate.value:+.1f} ± {100 * estimate.error:.1f}{spread}")
    seeds = f"{len(of_variant)} seed{'s' * (len(of_variant) > 1)}"
    lines.append(f"| {variant}, {seeds} | " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def draw(workdir: pathlib.Path, runs: Sequence[Run]) -> None:
  """Draws the training dynamics, means over seeds between the least and the most of them.

  Without matplotlib it says so and draws nothing.
  """
  try:
    import matplotlib as mpl
  except ImportError:
    print("dynamics.svg needs matplotlib: pip install 'sejax[notebook]'")
    return
  mpl.use("svg")
  from matplotlib import pyplot

  figure, axes = pyplot.subplots(1, len(_PANELS), figsize=(4 * len(_PANELS), 3.2))
  for variant in dict.fromkeys(run.variant for run in runs):
    curves = [
      list(writers.read(workdir / f"{run.variant}_{run.seed}" / writers.METRICS))
      for run in runs
      if run.variant == variant
    ]
    for axis, (title, name) in zip(axes, _PANELS.items(), strict=True):
      values = np.array([[step[name] for step in curve] for curve in curves])
      steps = np.arange(values.shape[1])
      (drawn,) = axis.plot(steps, values.mean(axis=0), label=variant)
      low, high = values.min(axis=0), values.max(axis=0)
      axis.fill_between(steps, low, high, color=drawn.get_color(), alpha=0.12, linewidth=0)
      axis.set_title(title, fontsize=9)
      axis.set_xlabel("step", fontsize=8)
  axes[0].legend(fontsize=7, frameon=False)
  figure.tight_layout()
  figure.savefig(workdir / "dynamics.svg", metadata={"Date": None})
  pyplot.close(figure)


def _plain(values: Float[np.ndarray, " N"]) -> list[float]:
  estimate = Estimate.of(values)
  return [round(estimate.value, 4), round(estimate.error, 4)]
