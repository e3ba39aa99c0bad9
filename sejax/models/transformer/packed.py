"""The decoder's forward pass over packed rows, for training: no token of it is padding.

A token computes what it would in `generation.forward`: continuations attend to their prompt and to
themselves.

Axes: as in `packing`; and D hidden size, V vocabulary.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sejax.models.transformer import decoder, generation, packed_attention
from sejax.models.transformer.config import ModelConfig
from sejax.models.transformer.logp import LogProbs, logp_of_tokens
from sejax.models.transformer.packing import Packing, pack, pack_prompts, unpack_continuations
from sejax.models.transformer.params import Params
from sejax.models.transformer.rope import text_angles
from sejax.models.transformer.state import Prompt


def log_probs(
  params: Params,
  config: ModelConfig,
  prompt: Prompt,
  features: generation.Features | None,
  tokens: Int[Array, "NU G R"],
  packing: Packing,
  *,
  block: int,
  temperature: float | Float[Array, ""] = 1.0,
  banned: Bool[Array, " V"] | None = None,
) -> LogProbs:
  """Computes log-probs and entropies of continuations, see `logp.logp`; those of padding are 0.

  Args:
    prompt: prompts of the groups, padded on the right; anything for groups that are left out.
    features: their image features from `encode`; None without images.
    tokens: continuations of the groups, padded on the right.
    packing: where their tokens lie.
    block: tokens of a block; must divide C.
  """
  hidden = forward(params, config, prompt, features, tokens, packing, block=block)
  before = _hidden_before(hidden, packing)
  ids = pack(packing, prompt.ids, tokens)
  found = logp_of_tokens(params, config, before, ids, temperature, banned)
  return jax.tree.map(lambda x: unpack_continuations(packing, x, tokens.shape[2]), found)


def forward(
  params: Params,
  config: ModelConfig,
  prompt: Prompt,
  features: generation.Features | None,
  tokens: Int[Array, "NU G R"],
  packing: Packing,
  *,
  block: int,
) -> Float[Array, "N C D"]:
  """Returns the hidden states of packed rows after the final norm; those of padding mean nothing.

  The arguments are those of `log_probs`.
  """
  start = generation.next_position(prompt)[:, None, None]
  own = jnp.broadcast_to(start + jnp.arange(tokens.shape[2]), tokens.shape)
  positions = jnp.stack([pack(packing, axis, own) for axis in prompt.positions])
  embedded, levels = generation.embed_prompt(params, config, prompt, features)
  x = jnp.where(
    packing.is_prompt[..., None],
    pack_prompts(packing, embedded),
    generation.embed(params, pack(packing, prompt.ids, tokens)),
  )

  def attention(queries, keys, values, _):
    out = packed_attention.attend(
      config,
      queries,
      keys,
      values,
      packing=packing,
      prompt_size=prompt.ids.shape[1],
      continuation_size=tokens.shape[2],
      block=block,
    )
    return out, None

  hidden, _ = decoder.run_layers(
    params["decoder"],
    config,
    x,
    text_angles(config.text, positions),
    attention,
    deepstack=tuple(pack_prompts(packing, level) for level in levels),
  )
  return hidden


def _hidden_before(hidden: Float[Array, "N C D"], packing: Packing) -> Float[Array, "N C D"]:
  """Returns the hidden state of the token before each token of a continuation.

  Before the first token of a continuation that is the last token of its prompt.
  """
  rows, size, width = hidden.shape
  prompt_end = packing.starts[..., 0] + jnp.maximum(packing.lengths[..., 0], 1) - 1
  last = jnp.take_along_axis(hidden, prompt_end[..., None], axis=1)[:, :, None]
  starts = jnp.where(packing.lengths > 0, packing.starts, size)[..., 1:]
  last = jnp.broadcast_to(last, (*starts.shape, width)).reshape(rows, -1, width)
  before = jnp.pad(hidden, [(0, 0), (1, 0), (0, 0)])[:, :-1]
  put = jax.vmap(lambda x, index, new: x.at[index].set(new, mode="drop"))
  return put(before, starts.reshape(rows, -1), last)
