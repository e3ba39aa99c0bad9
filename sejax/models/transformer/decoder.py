"""The decoder's layers, independent of what their tokens attend to.

The layers process tokens `[B,S,D]`: a prompt, its G continuations one after the other, or both. The
attention function that is passed to `run_layers` tells them apart.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sejax.models.transformer.config import ModelConfig
from sejax.models.transformer.layers import constrain_rows, dense, mlp, remat, rms_norm
from sejax.models.transformer.params import Params
from sejax.models.transformer.rope import rotate

# Maps rotated queries `[B,S,N,H]` and keys `[B,S,K,H]`, values `[B,S,K,H]` and the layer's extra
# input to the attention `[B,S,N,H]` and an output that is collected from every layer.
Attention = Callable[[Array, Array, Array, Any], tuple[Float[Array, "B S N H"], Any]]


def run_layers(
  params: Params,
  config: ModelConfig,
  x: Float[Array, "B S D"],
  angles: Float[Array, "B S H/2"],
  attention: Attention,
  extra: Any = None,
  deepstack: Sequence[Float[Array, "B P D"]] = (),
) -> tuple[Float[Array, "B S D"], Any]:
  """Runs all layers and the final norm (HF `Qwen2_5_VLTextModel`).

  Args:
    params: the `decoder` part of the parameter tree. Stacked layers run in a scan; layers in a list
      are compiled one by one.
    x: embedded tokens.
    angles: rotation angles of the tokens, from `rope.text_angles`.
    attention: computes attention from a layer's queries, keys and values.
    extra: extra inputs of `attention` for each layer, such as the prefix; stacked or a list, like
      the layers.
    deepstack: the n-th is added to the hidden states of the first P tokens after layer n, counted
      from 0 (arXiv:2406.04334).

  Returns:
    Hidden states after the final norm, and the collected outputs of `attention`, stacked or a list.
  """
  text = config.text
  levels = jnp.stack(deepstack) if deepstack else None

  def body(x, inputs):
    layer, layer_extra, number = inputs
    x = constrain_rows(x, config.rows)
    h = rms_norm(layer["input_norm"], x, text.rms_norm_eps)
    queries, keys, values = (
      dense(layer[name], h).reshape(*h.shape[:2], -1, text.head_size) for name in ("q", "k", "v")
    )
    if text.qk_norm:
      queries = rms_norm(layer["q_norm"], queries, text.rms_norm_eps)
      keys = rms_norm(layer["k_norm"], keys, text.rms_norm_eps)
    out, kept = attention(rotate(queries, angles), rotate(keys, angles), values, layer_extra)
    x = x + dense(layer["o"], out.reshape(*x.shape[:2], -1))
    x = x + mlp(layer, rms_norm(layer["post_norm"], x, text.rms_norm_eps))
    if levels is not None:
      # All layers of a scan are the same program; those without a level of their own add zeros. The
      # compiler fuses the padding into the sum, which it cannot do with an update of a slice.
      level = levels[jnp.minimum(number, len(levels) - 1)]
      level = jnp.where(number < len(levels), level, 0)
      x = x + jnp.pad(level, [(0, 0), (0, x.shape[1] - level.shape[1]), (0, 0)])
    return x, kept

  layers = params["layers"]
  if isinstance(layers, list):
    kept = []
    extra = [None] * len(layers) if extra is None else extra
    for number, (layer, layer_extra) in enumerate(zip(layers, extra, strict=True)):
      x, layer_kept = body(x, (layer, layer_extra, number))
      kept.append(layer_kept)
  else:
    body = remat(body, config.remat)
    numbers = None if levels is None else jnp.arange(text.num_hidden_layers)
    x, kept = jax.lax.scan(body, x, (layers, extra, numbers), unroll=config.unroll)
  return rms_norm(params["final_norm"], x, text.rms_norm_eps), kept
