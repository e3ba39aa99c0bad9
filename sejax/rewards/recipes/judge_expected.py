"""The paper's method (arXiv:2603.21289) with the Judge's score read as an expectation.

Nothing else changes. See `sejax.rollout.expected_score` for how it is read.
"""

from sejax.rewards.recipes.recipe import Recipe

RECIPE = Recipe(judged=True, changes={"judge.expected": True})
