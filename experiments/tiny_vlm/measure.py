"""Measures a tiny model on held-out figures, as Actor and as Judge.

    python -m experiments.tiny_vlm.measure [--config.model.path=DIR] [--problems=1024]

Prints shares in percent with standard errors over problems, of all figures and per family, and
ends with one JSON line.
"""

import json
import pathlib
from collections.abc import Mapping

from absl import app, flags
from ml_collections import config_flags

from experiments.tiny_vlm import abilities
from sejax.config import validation
from sejax.evaluation.metrics import Estimate

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_CONFIG = config_flags.DEFINE_config_file("config", str(_ROOT / "configs/tiny.py"))
_PROBLEMS = flags.DEFINE_integer("problems", 1024, "How many held-out figures.", lower_bound=2)


def main(argv: list[str]) -> None:
  """Measures and prints."""
  del argv
  validation.validate(_CONFIG.value)
  measured, by_family = abilities.measure(_CONFIG.value, _PROBLEMS.value)
  for name, estimate in measured.items():
    print(f"{name:>14} {estimate}")
  print("pass@1 by family")
  for name, estimate in by_family.items():
    print(f"{name:>14} {estimate}")
  print(json.dumps(_plain(measured, by_family)))


def _plain(measured: Mapping[str, Estimate], by_family: Mapping[str, Estimate]) -> dict:
  plain = {name: round(estimate.value, 4) for name, estimate in measured.items()}
  plain["errors"] = {name: round(estimate.error, 4) for name, estimate in measured.items()}
  plain["families"] = {name: round(estimate.value, 4) for name, estimate in by_family.items()}
  return plain


if __name__ == "__main__":
  app.run(main)
