"""Attention with cuDNN's fused kernel, on GPUs that support it.

The kernel keeps no scores in memory, but each of its rows must be a single causal sequence. So each
continuation gets its own row, with a copy of its prompt's keys in front:

    prompt, continuation, padding

The causal mask is then sufficient: the continuation overwrites the prompt's padding, and the rest
of the padding comes last. The copies exist for one layer at a time and are small beside its
activations, as several query heads share a key-value head. Decoding, where a single token attends
to shared keys, and the vision tower, whose rows hold several images and windows, use
`chunked_attention` instead.

Axes: B prompts, G continuations of each prompt, P prompt tokens, T tokens of a sequence, N query
heads, K key-value heads, M heads of either kind, H head size, R rows and S tokens of the kernel.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, DTypeLike, Float, Int

from sejax.models.transformer.config import ModelConfig
from sejax.models.transformer.layers import constrain_rows

_MAX_HEAD_SIZE = 128  # supported by every GPU that has the kernel
_VENDOR = "NVIDIA"
_MIN_COMPUTE_CAPABILITY = 8.0  # Ampere


def available(device: jax.Device) -> bool:
  """Returns whether a device supports the kernel.

  Args:
    device: may be a topology device that is not attached (ahead-of-time compilation).
  """
  is_nvidia = device.platform == "gpu" and device.device_kind.startswith(_VENDOR)
  return is_nvidia and float(device.compute_capability) >= _MIN_COMPUTE_CAPABILITY


def usable(config: ModelConfig, dtype: DTypeLike, tokens: int) -> bool:
  """Returns whether the model may use the kernel, and the kernel supports its queries.

  Args:
    dtype: precision of queries, keys and values.
    tokens: tokens of a sequence. A single token gains nothing from the kernel.
  """
  size = config.text.head_size
  fits = tokens > 1 and size <= _MAX_HEAD_SIZE and size % 8 == 0
  return config.fused_attention and fits and dtype in (jnp.bfloat16, jnp.float16)


def attend_prompts(
  config: ModelConfig,
  queries: Float[Array, "B G T N H"],
  keys: Float[Array, "B K G T H"],
  values: Float[Array, "B K G T H"],
  lengths: Int[Array, "B G"] | None = None,
) -> Float[Array, "B G T N H"]:
  """Computes causal attention within each of G sequences of T tokens.

  Args:
    config: `rows` gives the sharding of rows.
    queries: rotated; N must be a multiple of K.
    keys: rotated.
    lengths: tokens of each sequence; what comes after them is skipped, and gets zeros or anything.
  """
  rows = [x.reshape(-1, *x.shape[2:]) for x in (queries, _by_token(keys), _by_token(values))]
  return _causal(config, *rows, lengths=lengths).reshape(queries.shape)


def _by_token(x: Float[Array, "B K G T H"]) -> Float[Array, "B G T K H"]:
  return jnp.moveaxis(x, 1, 3)


def _causal(
  config: ModelConfig,
  queries: Float[Array, "R S N H"],
  keys: Float[Array, "R S K H"],
  values: Float[Array, "R S K H"],
  lengths: Int[Array, "..."] | None,
) -> Float[Array, "R S N H"]:
  """Computes causal attention within each row, with the kernel.

  Args:
    lengths: tokens of each of the R rows; None computes all.
  """
  queries, keys, values = (_constrain(config, x) for x in (queries, keys, values))
  if lengths is not None:
    # At least 1, as the kernel may divide by the sum of no weights.
    lengths = constrain_rows(jnp.maximum(lengths.reshape(-1), 1), config.rows)
  return jax.nn.dot_product_attention(
    queries,
    keys,
    values,
    is_causal=True,
    query_seq_lengths=lengths,
    key_value_seq_lengths=lengths,
    implementation="cudnn",
  )


def attend_continuations(
  config: ModelConfig,
  queries: Float[Array, "B G T N H"],
  keys: Float[Array, "B K G T H"],
  values: Float[Array, "B K G T H"],
  *,
  prompt_keys: Float[Array, "B K P H"],
  prompt_values: Float[Array, "B K P H"],
  prompt_lengths: Int[Array, " B"],
  lengths: Int[Array, "B G"] | None = None,
) -> Float[Array, "B G T N H"]:
  """Computes attention of G continuations to their prompt and, causally, to themselves.

  Args:
    config: `rows` gives the sharding of rows.
    queries: rotated queries of the continuations, padded on the right.
    keys: rotated keys of the continuations.
    prompt_keys: rotated keys of the prompts, padded on the right.
    prompt_lengths: number of tokens of each prompt, without padding.
    lengths: tokens of each continuation, as in `attend_prompts`.
  """
  batch, members, length = queries.shape[:3]
  keys, values = _by_token(keys), _by_token(values)
  prompt_keys, prompt_values = prompt_keys.swapaxes(1, 2), prompt_values.swapaxes(1, 2)
  # The prompts' queries are not needed, but the kernel's causal mask aligns queries and keys by
  # their index in the row. So zeros take the place of the prompts' queries.
  blank = jnp.zeros((*prompt_keys.shape[:2], *queries.shape[3:]), queries.dtype)
  rows = [
    _join(prompt, own, prompt_lengths).reshape(batch * members, -1, *own.shape[3:])
    for prompt, own in ((blank, queries), (prompt_keys, keys), (prompt_values, values))
  ]
  if lengths is not None:
    lengths = prompt_lengths[:, None] + lengths
  out = _causal(config, *rows, lengths=lengths).reshape(batch, members, -1, *queries.shape[3:])
  take_continuations = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=length, axis=1)
  return jax.vmap(take_continuations)(out, prompt_lengths)


@jax.vmap
def _join(
  prompt: Float[Array, "P M H"], own: Float[Array, "G T M H"], length: Int[Array, ""]
) -> Float[Array, "G P+T M H"]:
  """Writes the tokens of each continuation after the tokens of its prompt, over the padding."""
  members = jnp.broadcast_to(prompt, (own.shape[0], *prompt.shape))
  rows = jnp.concatenate([members, jnp.zeros_like(own)], axis=1)
  return jax.lax.dynamic_update_slice_in_dim(rows, own, length, axis=1)


def _constrain(config: ModelConfig, x: Float[Array, "R S M H"]) -> Float[Array, "R S M H"]:
  """Shards rows, and heads over `tensor` where it divides the key-value heads.

  These are the only axes over which the kernel can be partitioned.
  """
  if config.rows is None:
    return x
  mesh = config.rows.mesh
  parts = mesh.shape.get("tensor", 1)
  heads = "tensor" if parts > 1 and config.text.num_key_value_heads % parts == 0 else None
  spec = PartitionSpec(*config.rows.spec, None, heads)
  return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))
