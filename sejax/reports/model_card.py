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


def text(config: Mapping[str, Any], workdir: storage.Path, step: int) -> str:
  """Returns the card of the model that a run's workdir holds.

  Args:
    config: as it is published, see `config.published`.
    workdir: of a training run.
    step: of the checkpoint that was exported.
  """
  summary = workdir / "summary.json"
  commits = config.get("commits", {})
  return pages.render(
    "model_card.md",
    version=sejax.__version__,
    base=_source(config["model"], "model", commits),
    data=_source(config["data"], "dataset", commits),
    config=config,
    step=step,
    figures=_figures(json.loads(summary.read_bytes())) if summary.exists() else [],
  )


def _source(section: Mapping[str, Any], kind: str, commits: Mapping[str, str]) -> Any:
  """Returns name and commit on the hub of what a section reads; None if it is from elsewhere."""
  if not section["path"] or not hub.is_name(section["path"]):
    return None
  asked = section.get("revision", "")
  return {
    "name": section["path"],
    "revision": commits.get(hub.key(section["path"], asked, kind), asked),
  }


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
