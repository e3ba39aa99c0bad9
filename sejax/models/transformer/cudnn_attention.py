"""Attention with cuDNN's fused kernel, on GPUs that support it.

The kernel keeps no scores in memory, but each of its rows must be a single sequence. In the decoder
it is causal: each continuation gets its own row, with a copy of its prompt's keys in front:

    prompt, continuation, padding

The causal mask is then sufficient: the continuation overwrites the prompt's padding, and the rest
of the padding comes last. The copies exist for one layer at a time and are small beside its
activations, as several query heads share a key-value head. In the vision tower each image gets its
own row. Decoding, where a single token attends to shared keys, and the tower's windows use
`chunked_attention` instead.

Axes: B prompts, G continuations of each prompt, P prompt tokens, T tokens of a sequence, I segments
of a row, N query heads, K key-value heads, M heads of either kind, H head size, R rows and S tokens
of the kernel.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, DTypeLike, Float, Int

from sejax.models.transformer.config import ModelConfig
from sejax.models.transformer.layers import constrain_rows

# Most segments of a row for which the kernel is used. Each takes a row of the kernel as long as all
# of them together; with eight in 4,096 tokens that is about the memory of a chunk's scores.
MAX_SEGMENTS = 8

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


def usable(config: ModelConfig, dtype: DTypeLike, tokens: int, head_size: int) -> bool:
  """Returns whether the model may use the kernel, and the kernel supports its queries.

  Args:
    dtype: precision of queries, keys and values.
    tokens: tokens of a sequence. A single token gains nothing from the kernel.
    head_size: of the decoder or the vision tower, H.
  """
  fits = tokens > 1 and head_size <= _MAX_HEAD_SIZE and head_size % 8 == 0
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
  return _call(config, *rows, lengths=lengths).reshape(queries.shape)


def _by_token(x: Float[Array, "B K G T H"]) -> Float[Array, "B G T K H"]:
  return jnp.moveaxis(x, 1, 3)


def _call(
  config: ModelConfig,
  queries: Float[Array, "R S N H"],
  keys: Float[Array, "R S K H"],
  values: Float[Array, "R S K H"],
  *,
  lengths: Int[Array, "..."] | None,
  causal: bool = True,
) -> Float[Array, "R S N H"]:
  """Computes attention within each row, with the kernel.

  Args:
    lengths: tokens of each of the R rows; None computes all.
  """
  kv_heads = keys.shape[2]
  queries, keys, values = (_constrain(config, x, kv_heads) for x in (queries, keys, values))
  if lengths is not None:
    # At least 1, as the kernel may divide by the sum of no weights.
    lengths = constrain_rows(jnp.maximum(lengths.reshape(-1), 1), config.rows)
  return jax.nn.dot_product_attention(
    queries,
    keys,
    values,
    is_causal=causal,
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
  out = _call(config, *rows, lengths=lengths).reshape(batch, members, -1, *queries.shape[3:])
  take_continuations = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=length, axis=1)
  return jax.vmap(take_continuations)(out, prompt_lengths)


def attend_segments(
  config: ModelConfig,
  queries: Float[Array, "B S N H"],
  keys: Float[Array, "B S K H"],
  values: Float[Array, "B S K H"],
  lengths: Int[Array, "B I"],
) -> Float[Array, "B S N H"]:
  """Computes attention within segments, which follow each other in a row.

  Args:
    config: `rows` gives the sharding of rows.
    lengths: tokens of each segment, at most S in all; what comes after them gets zeros.
  """
  rows, count = lengths.shape
  size = queries.shape[1]
  starts = jnp.cumsum(lengths, axis=1) - lengths
  # The kernel may leave anything in what it skips, outputs as well as gradients. Where nothing else
  # drops that, it would reach the gradients of weights: 0 x NaN is NaN.
  real = (jnp.arange(size) < lengths[..., None]).reshape(rows * count, size, 1, 1)

  def cut(x):  # [B,S,M,H] -> [BI,S,M,H]
    parts = x if count == 1 else _cut(x, starts)
    return jnp.where(real, parts.reshape(rows * count, *x.shape[1:]), 0)

  out = _call(config, *map(cut, (queries, keys, values)), lengths=lengths, causal=False)
  out = jnp.where(real, out, 0)
  return out if count == 1 else _put_back(out.reshape(rows, count, *out.shape[1:]), starts)


@jax.vmap
def _cut(row: Float[Array, "S M H"], starts: Int[Array, " I"]) -> Float[Array, "I S M H"]:
  """Returns each segment with what follows it."""
  padded = jnp.concatenate([row, jnp.zeros_like(row)])
  cut_one = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=len(row))
  return jax.vmap(cut_one, (None, 0))(padded, starts)


@jax.vmap
def _put_back(segments: Float[Array, "I S M H"], starts: Int[Array, " I"]) -> Float[Array, "S M H"]:
  """Writes segments to where they start: each over the padding of the one before it."""
  size = segments.shape[1]
  row = jnp.zeros((2 * size, *segments.shape[2:]), segments.dtype)
  for segment, start in zip(segments, starts, strict=True):
    row = jax.lax.dynamic_update_slice_in_dim(row, segment, start, axis=0)
  return row[:size]


@jax.vmap
def _join(
  prompt: Float[Array, "P M H"], own: Float[Array, "G T M H"], length: Int[Array, ""]
) -> Float[Array, "G P+T M H"]:
  """Writes the tokens of each continuation after the tokens of its prompt, over the padding."""
  members = jnp.broadcast_to(prompt, (own.shape[0], *prompt.shape))
  rows = jnp.concatenate([members, jnp.zeros_like(own)], axis=1)
  return jax.lax.dynamic_update_slice_in_dim(rows, own, length, axis=1)


def _constrain(
  config: ModelConfig, x: Float[Array, "R S M H"], kv_heads: int
) -> Float[Array, "R S M H"]:
  """Shards rows, and heads over `tensor` where it divides the key-value heads.

  These are the only axes over which the kernel can be partitioned.
  """
  if config.rows is None:
    return x
  mesh = config.rows.mesh
  parts = mesh.shape.get("tensor", 1)
  heads = "tensor" if parts > 1 and kv_heads % parts == 0 else None
  spec = PartitionSpec(*config.rows.spec, None, heads)
  return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))
