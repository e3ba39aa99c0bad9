"""Solutions of many forms and lengths: short chains of reasoning in place of one sentence.

A chain looks at the picture once, twice or three times, in other words each time, and may open and
close with a phrase. Some find out at the second look that the first was wrong. So a model that
learns from chains has more to lose in form, length and entropy than one that knows one sentence.
"""

import ast
from collections.abc import Sequence
from typing import Any

from sejax.data import figures
from sejax.data.figures.family import Claims, Family, solution
from sejax.data.figures.rng import Rng

_OPENINGS = ("", "", "I look at the picture. ", "Let me see. ")
_AGAIN = ("Again: ", "Check: ", "I look again. ")
_CORRECTED = ("No. ", "Wait: ")
_CLOSINGS = ("", "", " So {}.", " The answer is {}.")
_LOOKS = (1, 1, 2, 2, 3)  # equally likely
_MISTAKEN = 25  # share of chains of several looks of which the first is wrong, in a hundred


def chain(problem: figures.Problem, claims: Claims, rng: Rng) -> str:
  """Writes a chain about a problem.

  Args:
    claims: what it arrives at: the problem's facts, or the claims of a wrong solution.
    rng: decides its form.
  """
  name, content = ast.literal_eval(problem.content)
  right = claims == problem.facts
  mistaken = [wrong.claims for wrong in problem.wrong] if right else []
  return write(figures.FAMILIES[name], content, claims, rng, mistaken)


def write(
  family: Family, content: Any, claims: Claims, rng: Rng, mistaken: Sequence[Claims] = ()
) -> str:
  """Writes a chain about a content.

  Args:
    family: of the content.
    content: determines a problem of the family.
    claims: what it arrives at.
    rng: decides its form.
    mistaken: what the first of several looks may see instead.
  """
  looks, parts = rng.choice(_LOOKS), [rng.choice(_OPENINGS)]
  wrong = looks > 1 and mistaken and rng.below(100) < _MISTAKEN
  for look in range(looks):
    seen = rng.choice(mistaken) if wrong and look == 0 else claims
    if look > 0:
      parts.append(" " + rng.choice(_CORRECTED if wrong and look == 1 else _AGAIN))
    parts.append(rng.choice(family.phrasings(content, seen)))
  parts.append(rng.choice(_CLOSINGS).format(claims["answer"]))
  return solution("".join(parts), claims["answer"])
