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
  """Returns the FLOPs of one forward pass over this process's groups in the loss.

  This is also the cost of computing their log-probs.
  """
  prompt = int(rollout.batch.actor.lengths[rollout.in_loss].sum())
  return of_tokens(model, prompt, int(rollout.result.lengths[rollout.in_loss].sum()))


def of_update(model: models.Model, rollout: Rollout, adapters: bool) -> float:
  """Returns the FLOPs of forward and backward pass over this process's groups.

  Args:
    adapters: whether LoRA adapters are trained instead of all weights.
  """
  return (2 if adapters else 3) * of_forward(model, rollout)


def of_step(model: models.Model, rollout: Rollout, adapters: bool, log_prob_passes: float) -> float:
  """Returns this process's FLOPs: sampling, log-probs beside the updates, and the updates.

  The Judge's are not counted, because they are not spent on the policy.

  Args:
    adapters: whether LoRA adapters are trained instead of all weights.
    log_prob_passes: forward passes beside the updates, see `Learner.log_prob_passes`.
  """
  log_probs = log_prob_passes * of_forward(model, rollout)
  return of_sampling(model, rollout) + log_probs + of_update(model, rollout, adapters)
