"""Model FLOPs of a training step, for model FLOPs utilisation (MFU).

Counts the matrix products with the decoder's weights: 2 FLOPs per weight and token forward, and 4
backward, as in PaLM (arXiv:2204.02311, appendix B) but without its term for attention. With LoRA
the backward pass takes only 2, because frozen weights need no gradient. Not counted are the vision
tower, the adapters, the output head at prompt tokens, and rematerialisation.
"""

from sejax import models
from sejax.rollout.collect import Rollout


def of_tokens(model: models.Model, prompt: int, response: int) -> float:
  """Returns the FLOPs of one forward pass.

  Args:
    prompt: number of prompt tokens.
    response: number of response tokens, which also take the output head.
  """
  layers, head = model.matmul_params
  return 2.0 * (layers * (prompt + response) + head * response)


def of_sampling(model: models.Model, rollout: Rollout) -> float:
  """Returns the FLOPs of sampling all of this process's trajectories in the step."""
  return sum(
    of_tokens(model, part.prompt_tokens, int(part.lengths.sum())) for part in rollout.sampled
  )


def of_forward(model: models.Model, rollout: Rollout) -> float:
  """Returns the FLOPs of one forward pass over the groups that this process trains on.

  This is also the cost of computing their log-probs.
  """
  prompt = int(rollout.batch.actor.lengths[rollout.batch.real].sum())
  return of_tokens(model, prompt, int(rollout.result.lengths.sum()))


def of_update(model: models.Model, rollout: Rollout, adapters: bool) -> float:
  """Returns the FLOPs of forward and backward pass over this process's groups.

  Args:
    adapters: whether LoRA adapters are trained instead of all weights.
  """
  return (2 if adapters else 3) * of_forward(model, rollout)


def of_step(model: models.Model, rollout: Rollout, adapters: bool) -> float:
  """Returns this process's FLOPs: sampling, old and reference log-probs, and the update.

  The Judge's are not counted, because they are not spent on the policy.

  Args:
    adapters: whether LoRA adapters are trained instead of all weights.
  """
  log_probs = 2 * of_forward(model, rollout)
  return of_sampling(model, rollout) + log_probs + of_update(model, rollout, adapters)
