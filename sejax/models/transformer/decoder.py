"""The decoder's layers, whatever their tokens attend to.

One stream `[B,S,D]` of tokens passes through the layers. What it holds (a prompt, G continuations
one after the other, or both) only the attention function given to `run_layers` knows.
"""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array, Float

from sejax.models.transformer.config import ModelConfig
from sejax.models.transformer.layers import dense, mlp, remat, rms_norm, split_rows
from sejax.models.transformer.params import Params
from sejax.models.transformer.rope import rotate

# Queries `[B,S,N,H]`, keys and values `[B,S,K,H]` and this layer's slice of the extra inputs, to
# the attention `[B,S,N,H]` and what is to be kept of the layer.
Attention = Callable[[Array, Array, Array, Any], tuple[Float[Array, "B S N H"], Any]]


def run_layers(
  params: Params,
  config: ModelConfig,
  x: Float[Array, "B S D"],
  angles: Float[Array, "B S H/2"],
  attention: Attention,
  extra: Any = None,
) -> tuple[Float[Array, "B S D"], Any]:
  """Runs all layers and the final norm (HF `Qwen2_5_VLTextModel`).

  Args:
    params: the tree's `decoder` part; layers in a list instead of a stack are compiled one by one.
    config: the model.
    x: embedded tokens.
    angles: of the tokens' rotation.
    attention: what the tokens attend to.
    extra: what `attention` needs of each layer, such as a prefix: a stack or a list, as layers are.

  Returns:
    Normed hidden states, and what `attention` kept of each layer: a stack or a list, likewise.
  """
  text = config.text

  def body(x, inputs):
    layer, layer_extra = inputs
    x = split_rows(x, config.rows)
    h = rms_norm(layer["input_norm"], x, text.rms_norm_eps)
    queries, keys, values = (
      dense(layer[name], h).reshape(*h.shape[:2], -1, text.head_size) for name in ("q", "k", "v")
    )
    out, kept = attention(rotate(queries, angles), rotate(keys, angles), values, layer_extra)
    x = x + dense(layer["o"], out.reshape(*x.shape[:2], -1))
    x = x + mlp(layer, rms_norm(layer["post_norm"], x, text.rms_norm_eps))
    return x, kept

  layers = params["layers"]
  if isinstance(layers, list):
    kept = []
    for inputs in zip(layers, extra, strict=True):
      x, own = body(x, inputs)
      kept.append(own)
  else:
    body = remat(body, config.remat)
    x, kept = jax.lax.scan(body, x, (layers, extra), unroll=config.unroll)
  return rms_norm(params["final_norm"], x, text.rms_norm_eps), kept
