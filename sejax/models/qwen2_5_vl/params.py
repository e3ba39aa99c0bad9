"""The parameter tree: its shapes and its random initialisation.

A plain nested dict. Kernels are `[in, out]`; blocks and layers are stacked on axis 0, so that one
compiled body runs them all. `lm_head` is absent where the head is tied to the embedding.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike, PRNGKeyArray

from sejax.models.qwen2_5_vl.config import Config, TextConfig, VisionConfig

Params = dict[str, Any]

INIT_STDDEV = 0.02  # `initializer_range` of every released configuration.


def shapes(config: Config) -> Params:
  """Returns the parameter tree with each array's shape, a tuple, in its place."""
  tree = {"vision": _vision(config.vision), "decoder": _decoder(config.text)}
  if not config.tie_word_embeddings:
    tree["lm_head"] = _dense(config.text.hidden_size, config.text.vocab_size, bias=False)
  return tree


def init(key: PRNGKeyArray, config: Config, dtype: DTypeLike = jnp.float32) -> Params:
  """Draws parameters: kernels and embedding normal, biases zero, norm scales one.

  Args:
    key: a PRNG key.
    config: the model.
    dtype: of every array.

  Returns:
    The tree described above; `jax.eval_shape` of it costs no memory.
  """
  leaves, treedef = jax.tree.flatten_with_path(
    shapes(config), is_leaf=lambda node: isinstance(node, tuple)
  )

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


def _vision(c: VisionConfig) -> Params:
  merged = c.hidden_size * c.merge_unit
  return {
    "patch_embed": _dense(c.patch_dim, c.hidden_size, bias=False),
    "blocks": {
      "norm1": {"scale": (c.depth, c.hidden_size)},
      "qkv": _dense(c.hidden_size, 3 * c.hidden_size, stack=c.depth),
      "proj": _dense(c.hidden_size, c.hidden_size, stack=c.depth),
      "norm2": {"scale": (c.depth, c.hidden_size)},
      "gate": _dense(c.hidden_size, c.intermediate_size, stack=c.depth),
      "up": _dense(c.hidden_size, c.intermediate_size, stack=c.depth),
      "down": _dense(c.intermediate_size, c.hidden_size, stack=c.depth),
    },
    "merger": {
      "norm": {"scale": (c.hidden_size,)},
      "fc1": _dense(merged, merged),
      "fc2": _dense(merged, c.out_hidden_size),
    },
  }


def _decoder(c: TextConfig) -> Params:
  layers = c.num_hidden_layers
  queries, keys = c.num_attention_heads * c.head_size, c.num_key_value_heads * c.head_size
  return {
    "embed": {"embedding": (c.vocab_size, c.hidden_size)},
    "layers": {
      "input_norm": {"scale": (layers, c.hidden_size)},
      "q": _dense(c.hidden_size, queries, stack=layers),
      "k": _dense(c.hidden_size, keys, stack=layers),
      "v": _dense(c.hidden_size, keys, stack=layers),
      "o": _dense(queries, c.hidden_size, bias=False, stack=layers),
      "post_norm": {"scale": (layers, c.hidden_size)},
      "gate": _dense(c.hidden_size, c.intermediate_size, bias=False, stack=layers),
      "up": _dense(c.hidden_size, c.intermediate_size, bias=False, stack=layers),
      "down": _dense(c.intermediate_size, c.hidden_size, bias=False, stack=layers),
    },
    "final_norm": {"scale": (c.hidden_size,)},
  }


def _dense(inputs: int, outputs: int, *, bias: bool = True, stack: int | None = None) -> Params:
  lead = () if stack is None else (stack,)
  kernel = {"kernel": (*lead, inputs, outputs)}
  return {**kernel, "bias": (*lead, outputs)} if bias else kernel
