"""Floating-point operations that a step needs.

Counted are the products with the decoder's weights, 2 per weight and token forward and 4 backward,
as for model FLOPs utilisation (PaLM, arXiv:2204.02311, appendix B) but without its term for
attention; where adapters are trained, backward only 2, as frozen weights need no gradient. Left
out are also the vision tower, the adapters, the head at prompt tokens, and what is computed again
for the backward pass.
"""

from sejax.models import qwen2_5_vl as qwen
from sejax.rollout.collect import Rollout


def weights(config: qwen.Config) -> tuple[int, int]:
  """Returns how many weights the products of all layers have, and those of the head."""
  text = config.text
  per_layer = (
    text.hidden_size
    * text.head_size
    * (2 * text.num_attention_heads + 2 * text.num_key_value_heads)
    + 3 * text.hidden_size * text.intermediate_size
  )
  return per_layer * text.num_hidden_layers, text.hidden_size * text.vocab_size


def of_tokens(config: qwen.Config, prompt: int, drawn: int) -> float:
  """Returns the operations of reading so many tokens of prompts, and of trajectories, once."""
  layers, head = weights(config)
  return 2.0 * (layers * (prompt + drawn) + head * drawn)


def of_sampling(config: qwen.Config, rollout: Rollout) -> float:
  """Returns the operations of all that this process sampled in the step."""
  return sum(
    of_tokens(config, part.prompt_tokens, int(part.lengths.sum())) for part in rollout.sampled
  )


def of_forward(config: qwen.Config, rollout: Rollout) -> float:
  """Returns the operations of reading the groups that this process trains on once.

  Scoring needs as many; for the update see `of_update`.
  """
  prompt = int(rollout.batch.actor.lengths[rollout.batch.real].sum())
  return of_tokens(config, prompt, int(rollout.result.lengths.sum()))


def of_update(config: qwen.Config, rollout: Rollout, adapters: bool) -> float:
  """Returns the operations of learning from this process's groups.

  Args:
    config: the model.
    rollout: the groups.
    adapters: whether they are trained in place of the weights.
  """
  return (2 if adapters else 3) * of_forward(config, rollout)


def of_step(config: qwen.Config, rollout: Rollout, adapters: bool) -> float:
  """Returns the operations for this process's groups: sampling, scoring twice, and the update.

  The Judge is left out, as its reading is not the policy's work. Arguments as of `of_update`.
  """
  scoring = 2 * of_forward(config, rollout)
  return of_sampling(config, rollout) + scoring + of_update(config, rollout, adapters)
