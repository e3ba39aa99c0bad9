"""Attention by cuDNN's fused kernel, on GPUs that have it.

The kernel keeps no scores in memory, but knows rows of one causal sequence only. So each
continuation gets a row of its own, its prompt's keys copied before its own:

    prompt, continuation, padding

Nothing but the causal mask is needed: what pads the prompt is written over or comes last. The
copies are those of one layer, and small beside its activations, as several query heads share a key
head. Decoding, where one token reads keys that are shared, and the vision tower, whose rows hold
several images and windows, stay with `attention`.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, DTypeLike, Float, Int

from sejax.models.transformer.config import ModelConfig

_LARGEST_HEAD = 128  # that every GPU with the kernel takes
_MAKER = "NVIDIA"
_OLDEST = 8.0  # compute capability with the kernel: Ampere


def available(device: jax.Device) -> bool:
  """Returns whether a device, which may be one to compile for, has the kernel."""
  is_nvidia = device.platform == "gpu" and device.device_kind.startswith(_MAKER)
  return is_nvidia and float(device.compute_capability) >= _OLDEST


def usable(config: ModelConfig, dtype: DTypeLike, tokens: int) -> bool:
  """Returns whether the model may use the kernel and the kernel takes such queries.

  Args:
    config: the model.
    dtype: of queries, keys and values.
    tokens: of a sequence; one alone gains nothing by it.
  """
  size = config.text.head_size
  fits = tokens > 1 and size <= _LARGEST_HEAD and size % 8 == 0
  return config.fused_attention and fits and dtype in (jnp.bfloat16, jnp.float16)


def attend_prompts(
  config: ModelConfig,
  queries: Float[Array, "B G T N H"],
  keys: Float[Array, "B K G T H"],
  values: Float[Array, "B K G T H"],
) -> Float[Array, "B G T N H"]:
  """Causal attention within each of G sequences of T tokens.

  Args:
    config: says where rows lie on a mesh.
    queries: of N heads, a multiple of K.
    keys: rotated.
    values: likewise.
  """
  rows = [x.reshape(-1, *x.shape[2:]) for x in (queries, _by_token(keys), _by_token(values))]
  return _causal(config, *rows).reshape(queries.shape)


def _by_token(x: Float[Array, "B K G T H"]) -> Float[Array, "B G T K H"]:
  return jnp.moveaxis(x, 1, 3)


def _causal(
  config: ModelConfig,
  queries: Float[Array, "R S N H"],
  keys: Float[Array, "R S K H"],
  values: Float[Array, "R S K H"],
) -> Float[Array, "R S N H"]:
  queries, keys, values = (_lay_out(config, x) for x in (queries, keys, values))
  return jax.nn.dot_product_attention(queries, keys, values, is_causal=True, implementation="cudnn")


def attend_continuations(
  config: ModelConfig,
  queries: Float[Array, "B G T N H"],
  keys: Float[Array, "B K G T H"],
  values: Float[Array, "B K G T H"],
  prompt_keys: Float[Array, "B K P H"],
  prompt_values: Float[Array, "B K P H"],
  lengths: Int[Array, " B"],
) -> Float[Array, "B G T N H"]:
  """Attention of G continuations of T tokens to their prompt, and causally to themselves.

  Args:
    config: says where rows lie on a mesh.
    queries: of the continuations, padded on the right.
    keys: of the continuations, rotated.
    values: likewise.
    prompt_keys: of prompts padded on the right, rotated.
    prompt_values: likewise.
    lengths: real tokens of each prompt.
  """
  batch, members, length = queries.shape[:3]
  keys, values = _by_token(keys), _by_token(values)
  prompt_keys, prompt_values = prompt_keys.swapaxes(1, 2), prompt_values.swapaxes(1, 2)
  # Queries of prompts are left out of what is asked, but the kernel counts rows from their start.
  blank = jnp.zeros((*prompt_keys.shape[:2], *queries.shape[3:]), queries.dtype)
  rows = [
    _join(prompt, own, lengths).reshape(batch * members, -1, *own.shape[3:])
    for prompt, own in ((blank, queries), (prompt_keys, keys), (prompt_values, values))
  ]
  out = _causal(config, *rows).reshape(batch, members, -1, *queries.shape[3:])
  cut = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=length, axis=1)
  return jax.vmap(cut)(out, lengths)


@jax.vmap
def _join(
  prompt: Float[Array, "P M H"], own: Float[Array, "G T M H"], length: Int[Array, ""]
) -> Float[Array, "G P+T M H"]:
  """Writes each member's tokens behind the real tokens of their prompt."""
  members = jnp.broadcast_to(prompt, (own.shape[0], *prompt.shape))
  rows = jnp.concatenate([members, jnp.zeros_like(own)], axis=1)
  return jax.lax.dynamic_update_slice_in_dim(rows, own, length, axis=1)


def _lay_out(config: ModelConfig, x: Float[Array, "R S M H"]) -> Float[Array, "R S M H"]:
  """Splits rows, and heads where each device gets whole groups: the kernel splits nothing else."""
  if config.rows is None:
    return x
  mesh = config.rows.mesh
  parts = mesh.shape.get("tensor", 1)
  heads = "tensor" if parts > 1 and config.text.num_key_value_heads % parts == 0 else None
  spec = PartitionSpec(*config.rows.spec, None, heads)
  return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))
