"""The parameter tree: its shapes and its random initialisation.

The tree is a plain nested dict. Kernels are `[in, out]`, and `[in, 3, out]` where one kernel makes
queries, keys and values. The parameters of all layers (or vision blocks) are stacked on axis 0, so
that `jax.lax.scan` compiles one layer for all of them. `lm_head` is absent where the head is tied
to the embedding.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike, PRNGKeyArray

from sejax.models.transformer.config import TextConfig

Params = dict[str, Any]

INIT_STDDEV = 0.02  # `initializer_range` of every released configuration.

# Path of the decoder's layers in the tree, and the dense layers in each; these can get adapters.
LAYERS = ("decoder", "layers")
DENSE_LAYERS = ("q", "k", "v", "o", "gate", "up", "down")

# Paths of the arrays of `qkv_shape`.
_QKV = re.compile(r"(^|/)qkv/(kernel|bias)$")

# Module in the tree -> module in the published files; `{}` stands for the layer's index.
DECODER_TENSOR_NAMES = {
  "decoder/embed": "model.embed_tokens",
  "decoder/layers/input_norm": "model.layers.{}.input_layernorm",
  "decoder/layers/q": "model.layers.{}.self_attn.q_proj",
  "decoder/layers/k": "model.layers.{}.self_attn.k_proj",
  "decoder/layers/v": "model.layers.{}.self_attn.v_proj",
  "decoder/layers/q_norm": "model.layers.{}.self_attn.q_norm",
  "decoder/layers/k_norm": "model.layers.{}.self_attn.k_norm",
  "decoder/layers/o": "model.layers.{}.self_attn.o_proj",
  "decoder/layers/post_norm": "model.layers.{}.post_attention_layernorm",
  "decoder/layers/gate": "model.layers.{}.mlp.gate_proj",
  "decoder/layers/up": "model.layers.{}.mlp.up_proj",
  "decoder/layers/down": "model.layers.{}.mlp.down_proj",
  "decoder/final_norm": "model.norm",
  "lm_head": "lm_head",
}


def init(key: PRNGKeyArray, shapes: Params, dtype: DTypeLike = jnp.float32) -> Params:
  """Initialises parameters at random: kernels and embeddings normal, biases zero, norm scales one.

  Args:
    shapes: parameter tree with the shape of each array, a tuple, in its place.
    dtype: precision of every array.
  """
  leaves, treedef = jax.tree.flatten_with_path(shapes, is_leaf=lambda node: isinstance(node, tuple))

  def draw(key, path, shape):
    match path[-1].key:
      case "scale":
        return jnp.ones(shape, dtype)
      case "bias":
        return jnp.zeros(shape, dtype)
      case _:
        return (INIT_STDDEV * jax.random.normal(key, shape)).astype(dtype)

  keys = jax.random.split(key, len(leaves))
  return jax.tree.unflatten(treedef, [draw(k, *leaf) for k, leaf in zip(keys, leaves, strict=True)])


def decoder_shapes(c: TextConfig) -> Params:
  """Returns the `decoder` part of the parameter tree, with shapes in place of arrays."""
  layers = c.num_hidden_layers
  queries, keys = c.num_attention_heads * c.head_size, c.num_key_value_heads * c.head_size
  head_norms = ("q_norm", "k_norm") if c.qk_norm else ()
  return {
    "embed": {"embedding": (c.vocab_size, c.hidden_size)},
    "layers": {
      "input_norm": {"scale": (layers, c.hidden_size)},
      "q": dense_shape(c.hidden_size, queries, bias=c.attention_bias, stack=layers),
      "k": dense_shape(c.hidden_size, keys, bias=c.attention_bias, stack=layers),
      "v": dense_shape(c.hidden_size, keys, bias=c.attention_bias, stack=layers),
      **{name: {"scale": (layers, c.head_size)} for name in head_norms},
      "o": dense_shape(queries, c.hidden_size, bias=False, stack=layers),
      "post_norm": {"scale": (layers, c.hidden_size)},
      "gate": dense_shape(c.hidden_size, c.intermediate_size, bias=False, stack=layers),
      "up": dense_shape(c.hidden_size, c.intermediate_size, bias=False, stack=layers),
      "down": dense_shape(c.intermediate_size, c.hidden_size, bias=False, stack=layers),
    },
    "final_norm": {"scale": (c.hidden_size,)},
  }


def head_shapes(c: TextConfig) -> Params:
  """Returns the `lm_head` part of the parameter tree, for a head that is not tied."""
  return dense_shape(c.hidden_size, c.vocab_size, bias=False)


def norm_shape(size: int, *, stack: int | None = None) -> Params:
  """Returns the shapes of a LayerNorm, or of a stack of them."""
  lead = () if stack is None else (stack,)
  return {"scale": (*lead, size), "bias": (*lead, size)}


def qkv_shape(size: int, *, stack: int) -> Params:
  """Returns the shapes of stacked dense layers that make queries, keys and values at once.

  The three have an axis of their own, `[size, 3, size]`, so that a mesh can split each by heads. In
  parts of one axis of `3 * size`, a device would not hold the same heads of all three.
  """
  return {"kernel": (stack, size, 3, size), "bias": (stack, 3, size)}


def fused_shape(path: str, shape: Sequence[int]) -> tuple[int, ...]:
  """Returns the shape with queries, keys and values in one axis, see `qkv_shape`.

  Published files and checkpoints of older versions have this shape. The elements are in the same
  order in both. The shape of any other array is returned unchanged.

  Args:
    path: path in the parameter tree, such as `vision/blocks/qkv/kernel`.
    shape: shape of the array in the tree, with or without the axis of stacked layers.
  """
  if not _QKV.search(path):
    return tuple(shape)
  *lead, parts, size = shape
  return (*lead, parts * size)


def dense_shape(
  inputs: int, outputs: int, *, bias: bool = True, stack: int | None = None
) -> Params:
  """Returns the shapes of a dense layer's parameters.

  Args:
    stack: number of stacked layers; None is a single layer without the leading axis.
  """
  lead = () if stack is None else (stack,)
  kernel = {"kernel": (*lead, inputs, outputs)}
  return {**kernel, "bias": (*lead, outputs)} if bias else kernel
