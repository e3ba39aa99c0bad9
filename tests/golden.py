"""The golden files: inputs and exact outputs of the paper's released code."""

import functools
import json
import pathlib

FILES = ("reference_rewards.json", "reference_edge_cases.json")


@functools.cache
def load(name: str) -> dict:
  """Returns the content of one golden file."""
  return json.loads((pathlib.Path(__file__).parent / "golden" / name).read_text(encoding="utf-8"))
