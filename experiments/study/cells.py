"""What the study runs: its starts, its cells in the order in which they run, and their budget.

A cell is a recipe on a start with a seed. All cells sample the same number of tokens, trajectories,
verdicts and a teacher's answers together, and differ in nothing but what is named here.
"""

import functools
import hashlib
import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from sejax import assets
from sejax.rewards.recipes import RECIPES

# What `full` samples in 100 steps on the middle start, as measured: 8,260 in a step.
TOKENS = 826_000
PROBLEMS = 1024  # held-out figures that every read-off answers
READ_OFFS = 5  # in a run, after equal numbers of tokens
GROUPS, SAMPLES = 16, 8  # of a step

_STARTS = pathlib.Path(__file__).parent / "starts"
STARTS: Mapping[str, pathlib.Path] = {
  "middle": pathlib.Path(assets.TINY_VLM),
  "weak": _STARTS / "weak",
  "varied": _STARTS / "varied",
}
# Tokens of a trajectory and of a verdict before training, from which steps are estimated.
_LENGTHS = {"middle": (26.2, 38.3), "weak": (26.2, 38.3), "varied": (52.4, 38.3)}

FULL = "full"
COMPARED = (FULL, "majority", "frequency", "judge_only", "supervised", "control")
OTHER_STARTS_METHODS = (FULL, "majority", "frequency", "supervised", "co_teacher", "empo")
OBJECTIVES = ("gspo", "cispo", "sapo")
OTHER_RECIPES = tuple(name for name in RECIPES if name not in COMPARED)


class Cell(NamedTuple):
  """One run.

  Attributes:
    start: one of `STARTS`.
    method: a recipe, `full` among them, or the policy loss of a run of `full` that has another.
    seed: of data and samples.
  """

  start: str
  method: str
  seed: int

  @property
  def name(self) -> str:
    """Identifies the cell, in file names too."""
    return f"{self.start}-{self.method}-{self.seed}"

  @classmethod
  def of(cls, name: str) -> Self:
    """Reverses `name`."""
    start, method, seed = name.split("-")
    return cls(start, method, int(seed))

  @property
  def recipe(self) -> str:
    """What follows the colon of the configuration's file; empty for the full method."""
    return "" if self.method in (FULL, *OBJECTIVES) else self.method

  @property
  def changes(self) -> dict[str, Any]:
    """Fields of the configuration that differ from the main job's, by dotted name."""
    changes = {
      "seed": self.seed,
      "model.path": str(STARTS[self.start]),
      "batch_size": GROUPS,
      "mini_batch_size": GROUPS // 2,
      "train.micro_batch_size": GROUPS // 2,
      "eval.num_problems": 0,
      "checkpoint.keep": 1000,
    }
    if self.start == "varied":
      changes |= {"actor.max_tokens": 112, "train.response_buckets": (112,)}
    if self.method in OBJECTIVES:
      changes["loss.objective"] = self.method
    return changes

  @property
  def taught(self) -> bool:
    """Whether there is a teacher, whose schedule depends on the number of steps."""
    return bool(self.recipe and RECIPES[self.recipe].changes.get("teacher.use"))

  @property
  def steps(self) -> int:
    """Steps that sample all `TOKENS` if trajectories stay as long as they are at the start."""
    reply, verdict = _LENGTHS[self.start]
    recipe = RECIPES.get(self.recipe)
    each = reply
    if recipe is None or recipe.judged:
      each += 1 if recipe and recipe.changes.get("judge.expected") else verdict
    if self.taught:
      each += reply
    return math.ceil(TOKENS / (GROUPS * SAMPLES * each))


@functools.cache
def conditions(start: str) -> dict[str, Any]:
  """Returns what results must have in common to be compared: the budget, the figures, the start."""
  weights = (STARTS[start] / "model.safetensors").read_bytes()
  sizes = {"tokens": TOKENS, "problems": PROBLEMS, "read_offs": READ_OFFS}
  return sizes | {"start": hashlib.sha256(weights).hexdigest()[:16]}


def cells() -> list[Cell]:
  """Returns all cells, the most important ones first: a study cut short has whole comparisons."""

  def of(start: str, methods: tuple[str, ...], seeds: range) -> list[Cell]:
    return [Cell(start, method, seed) for seed in seeds for method in methods]

  return [
    *of("middle", COMPARED, range(2)),
    *of("varied", OTHER_STARTS_METHODS, range(2)),
    *of("weak", OTHER_STARTS_METHODS, range(2)),
    *of("middle", COMPARED, range(2, 5)),
    *of("middle", OTHER_RECIPES, range(2)),
    *of("middle", OBJECTIVES, range(2)),
  ]
