r"""What a Judge should say of a solution: look again, compare, and give a score.

The reading tells what the image shows, in the words of a right solution, before it looks at where
the candidate arrived. So a Judge is as good as its own eyes, and learns to see from the very words
that teach the Actor.
"""

from sejax.data.figures.family import Claims
from sejax.data.figures.rng import Rng

RIGHT, NEAR, FAR = "1.0", "0.2", "0.0"


def reading(solution: str, facts: Claims, claimed: int | str, rng: Rng) -> tuple[str, str]:
  r"""Returns an evaluation in the Judge's output form, `\boxed{score}` at its end, in two parts.

  The second begins where both answers are compared.

  Args:
    solution: a right solution.
    facts: of the problem; the last is `answer`.
    claimed: the answer at which the candidate arrives.
    rng: decides the wording.
  """
  telling = solution.partition("<think>")[2].partition("</think>")[0]
  score = _score(facts["answer"], claimed)
  said = rng.choice(("It says", "The solution says", "Candidate:"))
  verdict = rng.choice(("right", "same")) if score == RIGHT else rng.choice(("wrong", "not so"))
  return (
    f"[BEGIN THOUGHT]\n{telling}",
    f" {said} {claimed}: {verdict}.\n[END THOUGHT]\n\\boxed{{{score}}}",
  )


def _score(answer: int | str, claimed: int | str) -> str:
  """A miss by one is graded above a wild one, so that scores rank candidates."""
  if str(answer) == str(claimed):
    return RIGHT
  try:
    return NEAR if abs(int(answer) - int(claimed)) == 1 else FAR
  except ValueError:  # letters and colours are right or wrong
    return FAR
