"""The comparison in the paper (arXiv:2603.21289): ablations of the method, and baselines."""

from sejax.rewards.recipes.recipe import Recipe

# Votes alone, as in MM-UPT (arXiv:2505.22453) and TTRL (arXiv:2504.16084). A tie rewards no answer;
# MM-UPT's code rewards the answer seen first: `method.tie="first"`.
MAJORITY = Recipe(changes={"method.self_consistency": "majority"})
# Self-consistency alone: the share of the answer.
FREQUENCY = Recipe(changes={"method.self_consistency": "frequency"})
# The Judge's scores alone.
JUDGE_ONLY = Recipe(judged=True, changes={"rewards.function": "sejax.rewards.judge_only"})
# Gold answers, as an upper bound.
SUPERVISED = Recipe(changes={"rewards.function": "sejax.rewards.supervised"})
# The same reward for every answer, so that only the format penalty teaches.
CONTROL = Recipe(changes={"rewards.function": "sejax.rewards.control"})
# The advantage as in the paper's text; the released run instead subtracts the group's mean.
LOG_Q = Recipe(judged=True, changes={"method.advantage": "log_q"})
# The full method, with answers and verdicts read as by the released code.
RELEASED = Recipe(
  judged=True,
  changes={
    "answers.equivalence": "exact",
    "answers.unparsable": "vote",
    "answers.released_extraction": True,
    "judge.include_instruction": True,
    "judge.released_reading": True,
    "method.invalid_verdict": "zero",
  },
)
