"""The card of an exported model: what it was made of, how, and what it scored.

It is a README.md in the hub's form (https://huggingface.co/docs/hub/model-cards). Why not
huggingface_hub's own `ModelCard`: its template asks for paragraphs that only people can write.
"""

import json
from collections.abc import Mapping
from typing import Any

import sejax
from sejax import storage
from sejax.models import hub
from sejax.reports import pages


def text(workdir: storage.Path, step: int) -> str:
  """Returns the card of the model that a run's workdir holds.

  Args:
    workdir: of a training run.
    step: of the checkpoint that was exported.
  """
  config = json.loads((workdir / "config.json").read_bytes())
  summary = workdir / "summary.json"
  return pages.render(
    "model_card.md",
    version=sejax.__version__,
    base=_source(config["model"]),
    data=_source(config["data"]),
    config=config,
    step=step,
    figures=_figures(json.loads(summary.read_bytes())) if summary.exists() else [],
  )


def _source(section: Mapping[str, Any]) -> dict[str, str] | None:
  """Returns name and commit on the hub of what a section reads; None if it is from elsewhere."""
  if not section["path"] or not hub.is_name(section["path"]):
    return None
  return {"name": section["path"], "revision": section.get("revision", "")}


def _figures(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
  """Returns name, before, after and change of each held-out metric, in percent."""
  rows = []
  for name in summary["change"]:
    if not name.endswith("_error"):
      cells = [
        f"{100 * summary[part][name]:{sign}.1f} ± {100 * summary[part][f'{name}_error']:.1f}"
        for part, sign in (("before", ""), ("after", ""), ("change", "+"))
      ]
      rows.append((name.replace("_at_", "@"), *cells))
  return rows
