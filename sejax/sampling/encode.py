"""Image features of the prompts of a call, computed for a part of the rows at a time."""

import jax
import jax.numpy as jnp

from sejax import models

# Patches of a row shard that are encoded at once: the activations of more would not fit.
_PATCHES_AT_ONCE = 32_768


def encode_rows(
  params: models.Params,
  images: models.Images,
  *,
  model: models.Model,
  shards: int,
  dtype: jnp.dtype,
) -> models.Features:
  """Returns the features of the images of all rows, a few rows of each shard at a time.

  Args:
    params: from `Model.vision_params`, in any precision.
    shards: row shards; their number divides the rows.
    dtype: precision of computation.
  """
  params = jax.tree.map(lambda x: x.astype(dtype), params)
  rows, patches = model.images_shape(images)
  rows_per_shard = rows // shards
  fitting = (
    n
    for n in range(1, rows_per_shard + 1)
    if rows_per_shard % n == 0 and n * patches <= _PATCHES_AT_ONCE
  )
  at_once = max(fitting, default=1)
  if at_once == rows_per_shard:
    return model.encode(params, images)

  def split(x):  # [B,...] -> [parts, shards * at_once, ...]; no row leaves its shard.
    parts = jnp.moveaxis(x.reshape(shards, -1, at_once, *x.shape[1:]), 1, 0)
    return parts.reshape(parts.shape[0], shards * at_once, *x.shape[1:])

  def join(x):  # The inverse of `split`.
    parts = jnp.moveaxis(x.reshape(-1, shards, at_once, *x.shape[2:]), 0, 1)
    return parts.reshape(rows, *x.shape[2:])

  features = jax.lax.map(lambda part: model.encode(params, part), jax.tree.map(split, images))
  return jax.tree.map(join, features)
