"""Exports a policy as a model directory in the format of the released checkpoints."""

import jax
import jax.numpy as jnp
import safetensors

from sejax import models, storage
from sejax.errors import one_line
from sejax.models import lora


def export(
  policy: models.Params,
  model: models.Model,
  directory: storage.Path,
  *,
  source: str,
  dtype: str,
) -> None:
  """Writes a model directory: weights, configuration, tokenizer and image processor.

  Args:
    policy: the policy's parameter tree; LoRA adapters in it are merged into the weights.
    directory: an earlier export in it is replaced.
    source: model directory that the tokenizer and processor files are copied from.
    dtype: precision of the written weights: `bfloat16` or `float32`.

  Raises:
    ValueError: the model cannot be written; an earlier export is then left unchanged.
  """
  weights = jax.tree.map(lambda x: x.astype(dtype), lora.merge(policy, jnp.dtype(dtype)))
  try:
    models.save(weights, model, directory, source=source)
  except (OSError, safetensors.SafetensorError) as error:
    raise ValueError(
      f"the model cannot be written to {directory} ({one_line(error)}); make"
      " room, then --mode=export writes it from the last checkpoint"
    ) from None
