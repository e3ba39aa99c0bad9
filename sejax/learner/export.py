"""Writes a policy as a model directory in the form of the released checkpoints."""

import pathlib

import jax
import jax.numpy as jnp
import safetensors

from sejax import models
from sejax.errors import said
from sejax.models import lora


def export(
  policy: models.Params,
  model: models.Model,
  directory: pathlib.Path,
  *,
  source: str,
  dtype: str,
) -> None:
  """Writes a model directory, with the processor files of the model that the run began from.

  Args:
    policy: the policy's parameter tree; adapters in it are merged.
    directory: where to; what is there is replaced.
    source: the directory that the processor files are taken from.
    dtype: of the weights written: `bfloat16` or `float32`.

  Raises:
    ValueError: it cannot be written; what was there before is as it was.
  """
  weights = jax.tree.map(lambda x: x.astype(dtype), lora.merge(policy, jnp.dtype(dtype)))
  try:
    models.save(weights, model, directory, source=source)
  except (OSError, safetensors.SafetensorError) as error:
    raise ValueError(
      f"the model cannot be written to {directory} ({said(error)}); make"
      " room, then --mode=export writes it from the last checkpoint"
    ) from None
