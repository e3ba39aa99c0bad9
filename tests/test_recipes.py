"""Training by each recipe: no label reaches it, and a run that resumes has the same bits."""

import numpy as np
import pytest
import safetensors.numpy

from sejax import method
from sejax.monitoring import writers
from sejax.rewards.recipes import RECIPES
from tests import runs

# Those that do more than reward otherwise; the rest by `-m slow`.
DIFFERENT = ("judge_expected", "co_view", "co_teacher", "cocov")
LABEL_FREE = [name for name in RECIPES if name != "supervised"]


def results(workdir):
  """Returns the metrics that need no gold answer, and the trained parameters."""
  lines = [
    {name: value for name, value in line.items() if not name.startswith(method.GOLD_METRICS)}
    for line in writers.read(workdir / writers.METRICS)
  ]
  for line in lines:
    line.pop("undecided_grades", None)
  return lines, safetensors.numpy.load_file(workdir / "model" / "model.safetensors")


@pytest.mark.parametrize(
  "recipe",
  [
    pytest.param(name, marks=pytest.mark.long if name in DIFFERENT else pytest.mark.slow)
    for name in LABEL_FREE
  ],
)
@pytest.mark.parametrize(
  "changes",
  [{}, pytest.param({"lora.rank": 4}, marks=pytest.mark.slow)],
  ids=["all weights", "adapters"],
)
def test_shuffled_golds_and_an_interruption_change_nothing(recipe, changes, tmp_path):
  golds = runs.golds()
  options = {"data.source": "jsonl", "data.name": "same", "eval.num_problems": 0} | changes
  right = runs.write_set(tmp_path / "right", golds)
  whole = runs.run(tmp_path / "whole", recipe, **options | {"data.path": right})
  # The same problems with each other's answers; it stops after its first step, and goes on.
  shuffled = runs.write_set(tmp_path / "shuffled", [*golds[5:], *golds[:5]])
  for limit in (1e-9, None):
    options |= {"data.path": shuffled, "train.stop_on_collapse": limit}
    parts = runs.run(tmp_path / "parts", recipe, **options)
    assert len(list(writers.read(parts / writers.METRICS))) == (2 if limit is None else 1)
  (expected, weights), (found, found_weights) = results(whole), results(parts)
  assert len(expected) == 2
  assert found == expected
  assert found_weights.keys() == weights.keys()
  assert all(np.array_equal(found_weights[name], value) for name, value in weights.items())
