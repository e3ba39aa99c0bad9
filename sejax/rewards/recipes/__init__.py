"""Recipes: label-free methods of the field by name.

`--config=configs/tiny.py:NAME` chooses one. All have the loop, the sampler, the data and the budget
of the full method, and, but for `cocov` with advantages of its own, its format penalty; they differ
in the reward and, where their authors' does, in the advantage.
"""

from collections.abc import Mapping

from sejax.rewards.recipes import (
  co_teacher,
  co_view,
  cocov,
  comparison,
  empo,
  evolmm,
  judge_expected,
  multi,
  self_certainty,
  ttrv,
)
from sejax.rewards.recipes.recipe import Recipe

RECIPES: Mapping[str, Recipe] = {
  "majority": comparison.MAJORITY,
  "frequency": comparison.FREQUENCY,
  "judge_only": comparison.JUDGE_ONLY,
  "supervised": comparison.SUPERVISED,
  "control": comparison.CONTROL,
  "log_q": comparison.LOG_Q,
  "released": comparison.RELEASED,
  "judge_expected": judge_expected.RECIPE,
  "self_certainty": self_certainty.RECIPE,
  "empo": empo.RECIPE,
  "evolmm": evolmm.RECIPE,
  "ttrv": ttrv.RECIPE,
  "multi": multi.RECIPE,
  "co_view": co_view.RECIPE,
  "co_teacher": co_teacher.RECIPE,
  "cocov": cocov.RECIPE,
}
