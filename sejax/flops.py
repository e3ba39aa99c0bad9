"""Floating-point operations that a step needs, and that a device can do.

Counted are the products with weights, 2 per weight and token forward and 4 backward, as in the
usual definition of model FLOPs utilisation (PaLM, arXiv:2204.02311, appendix B); attention and what
is computed again for the backward pass are not.
"""

import math

import jax

from sejax.experience import Experience
from sejax.models import qwen2_5_vl as qwen

# Dense bf16, per chip as jax counts devices.
_PEAK = {
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  "TPU v5e": 197e12,
  "TPU v5": 459e12,
  "TPU v5p": 459e12,
  "TPU v6 lite": 918e12,
  "TPU v6e": 918e12,
  "NVIDIA A100": 312e12,
  "NVIDIA H100": 989e12,
  "NVIDIA H200": 989e12,
}


def peak() -> float | None:
  """Returns what the first device can do in a second; None where that is not known."""
  kind = jax.devices()[0].device_kind
  names = [name for name in _PEAK if kind.startswith(name)]
  return _PEAK[max(names, key=len)] if names else None


def of_step(config: qwen.Config, lived: Experience) -> float:
  """Returns the operations for this process's groups: sampling, scoring twice, and the update.

  The Judge is left out, as its reading is not the policy's work.
  """
  prompt = int(lived.batch.actor.lengths[lived.batch.real].sum())
  drawn = int(lived.result.lengths.sum())
  text = config.text
  per_layer = (
    text.hidden_size
    * text.head_size
    * (2 * text.num_attention_heads + 2 * text.num_key_value_heads)
    + 3 * text.hidden_size * text.intermediate_size
  )
  decoder = per_layer * text.num_hidden_layers
  head = text.hidden_size * text.vocab_size
  forward = 2 * (decoder * (prompt + drawn) + head * drawn)
  return math.fsum([forward, 2 * forward, 3 * forward])
