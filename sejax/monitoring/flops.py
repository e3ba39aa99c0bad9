"""Floating-point operations that a step needs.

Counted are the products with the decoder's weights, 2 per weight and token forward and 4 backward,
as for model FLOPs utilisation (PaLM, arXiv:2204.02311, appendix B) but without its term for
attention; where adapters are trained, backward only 2, as frozen weights need no gradient. Left
out are also the vision tower, the adapters, the head at prompt tokens, and what is computed again
for the backward pass.
"""

from sejax import models
from sejax.rollout.collect import Rollout


def of_tokens(model: models.Model, prompt: int, drawn: int) -> float:
  """Returns the operations of reading so many tokens of prompts, and of trajectories, once."""
  layers, head = model.matmul_params
  return 2.0 * (layers * (prompt + drawn) + head * drawn)


def of_sampling(model: models.Model, rollout: Rollout) -> float:
  """Returns the operations of all that this process sampled in the step."""
  return sum(
    of_tokens(model, part.prompt_tokens, int(part.lengths.sum())) for part in rollout.sampled
  )


def of_forward(model: models.Model, rollout: Rollout) -> float:
  """Returns the operations of reading the groups that this process trains on once.

  Scoring needs as many; for the update see `of_update`.
  """
  prompt = int(rollout.batch.actor.lengths[rollout.batch.real].sum())
  return of_tokens(model, prompt, int(rollout.result.lengths.sum()))


def of_update(model: models.Model, rollout: Rollout, adapters: bool) -> float:
  """Returns the operations of learning from this process's groups.

  Args:
    rollout: the groups.
    adapters: whether they are trained in place of the weights.
  """
  return (2 if adapters else 3) * of_forward(model, rollout)


def of_step(model: models.Model, rollout: Rollout, adapters: bool) -> float:
  """Returns the operations for this process's groups: sampling, scoring twice, and the update.

  The Judge is left out, as its reading is not the policy's work. Arguments as of `of_update`.
  """
  scoring = 2 * of_forward(model, rollout)
  return of_sampling(model, rollout) + scoring + of_update(model, rollout, adapters)
