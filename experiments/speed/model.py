"""What reading each prompt once is worth, in one GRPO update on CPU.

    python experiments/speed/model.py

A random decoder of about 30M parameters, fp32, one prompt of 512 tokens with 8 trajectories of 128.
Measured: loss and gradient of every parameter, layers computed again in the backward pass.

- `shared_vs_repeated`: time of the same code on 8 rows that each repeat the prompt, over that of
  one row that shares it. The ratio of their tokens is 8 x 640 / (512 + 8 x 128) = 3.33.
- `shared_memory`: the shared step's temporary memory over the repeated one's, as compiled.
- `vs_transformers`: time of the usual repeated-prompt step of transformers on torch with gradient
  checkpointing and the same weights, over time of the shared step.
- `compile_ratio`: compile time of 28 layers over that of 4.

Prints a table, then one line of JSON. Needs torch, which the library itself does not.
"""

import dataclasses
import json
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array, Float
from reference import make_config, torch_model
from stopwatch import best_seconds

from sejax.models import qwen2_5_vl as qwen

PROMPT, RESPONSE, GROUP = 512, 128, 8
LAYERS, VOCABULARY = 9, 2048
CLIP = 0.2
REPEATS = 3


@dataclasses.dataclass(frozen=True)
class Batch:
  """One group: a prompt, its trajectories, their log-probs when sampled, and their advantages."""

  prompt: np.ndarray
  tokens: np.ndarray
  old_logp: np.ndarray
  advantages: np.ndarray

  def for_sejax(self, *, shared: bool) -> tuple:
    """One row with G trajectories, or G rows with one each."""
    rows, members = (1, GROUP) if shared else (GROUP, 1)
    prompt = qwen.Prompt(
      ids=np.tile(self.prompt, (rows, 1)),
      lengths=np.full(rows, PROMPT, np.int32),
      positions=np.broadcast_to(np.arange(PROMPT, dtype=np.int32), (3, rows, PROMPT)),
    )
    shape = (rows, members, RESPONSE)
    return (
      prompt,
      self.tokens.reshape(shape),
      self.old_logp.reshape(shape),
      self.advantages.reshape(shape[:2]),
    )


def make_batch(config: qwen.Config) -> Batch:
  """Draws a batch whose old log-probs are near those of a random model."""
  rng = np.random.default_rng(0)
  text_ids = config.image_token_id
  tokens = rng.integers(2, text_ids, (GROUP, RESPONSE)).astype(np.int32)
  old_logp = -np.log(config.text.vocab_size) + 0.1 * rng.standard_normal(tokens.shape)
  return Batch(
    prompt=rng.integers(2, text_ids, PROMPT).astype(np.int32),
    tokens=tokens,
    old_logp=old_logp.astype(np.float32),
    advantages=rng.standard_normal(GROUP).astype(np.float32),
  )


def jax_step(config: qwen.Config) -> Callable:
  """Returns the update's loss and gradient, not yet compiled."""

  def loss(
    params: qwen.Params, prompt: qwen.Prompt, tokens: Array, old_logp: Array, advantages: Array
  ) -> Float[Array, ""]:
    last, hidden = qwen.forward(params, config, prompt, None, tokens)
    ratio = jnp.exp(qwen.logp(params, config, last, hidden, tokens).logp - old_logp)
    advantages = advantages[..., None]
    clipped = jnp.clip(ratio, 1 - CLIP, 1 + CLIP)
    return jnp.maximum(-advantages * ratio, -advantages * clipped).mean()

  return jax.value_and_grad(loss)


def torch_step(model: torch.nn.Module, batch: Batch) -> float:
  """Computes loss and gradient on G rows that repeat the prompt; logits of the response only."""
  tokens = torch.from_numpy(batch.tokens).long()
  prompt = torch.from_numpy(batch.prompt).long().expand(GROUP, -1)
  model.zero_grad(set_to_none=True)
  ids = torch.cat([prompt, tokens], dim=1)
  logits = model(input_ids=ids, logits_to_keep=RESPONSE + 1, use_cache=False).logits[:, :-1]
  logp = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
  ratio = (logp - torch.from_numpy(batch.old_logp)).exp()
  advantages = torch.from_numpy(batch.advantages)[:, None]
  clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
  loss = torch.maximum(-advantages * ratio, -advantages * clipped).mean()
  loss.backward()
  return loss.item()


def compile_seconds(layers: int) -> float:
  """Returns the time to compile the update of a model with so many layers; nothing is allocated."""
  config = make_config(layers, VOCABULARY)
  params = jax.eval_shape(lambda key: qwen.init(key, config), jax.random.key(0))
  lowered = jax.jit(jax_step(config)).lower(params, *make_batch(config).for_sejax(shared=True))
  start = time.perf_counter()
  lowered.compile()
  return time.perf_counter() - start


def main() -> None:
  """Measures everything and prints it."""
  config = make_config(LAYERS, VOCABULARY)
  params = qwen.init(jax.random.key(0), config)
  batch = make_batch(config)
  count = sum(x.size for x in jax.tree.leaves(params["decoder"]))
  print(f"decoder of {count / 1e6:.1f}M parameters; P={PROMPT} R={RESPONSE} G={GROUP}")

  step = jax.jit(jax_step(config))
  shared, repeated = (batch.for_sejax(shared=shared) for shared in (True, False))
  compiled = {
    name: step.lower(params, *inputs).compile()
    for name, inputs in (("shared", shared), ("repeated", repeated))
  }
  memory = {n: c.memory_analysis().temp_size_in_bytes / 2**20 for n, c in compiled.items()}

  model = torch_model(config, params)
  model.train()
  model.gradient_checkpointing_enable()
  losses = {
    "shared": float(compiled["shared"](params, *shared)[0]),
    "repeated": float(compiled["repeated"](params, *repeated)[0]),
    "transformers": torch_step(model, batch),
  }
  if max(losses.values()) - min(losses.values()) > 1e-5:
    raise ValueError(f"the three steps do not compute the same loss: {losses}")

  seconds = best_seconds(
    {
      "shared": lambda: jax.block_until_ready(compiled["shared"](params, *shared)),
      "repeated": lambda: jax.block_until_ready(compiled["repeated"](params, *repeated)),
      "transformers": lambda: torch_step(model, batch),
    },
    REPEATS,
  )
  compiling = {layers: min(compile_seconds(layers) for _ in range(2)) for layers in (4, 28)}

  print(f"{'step':<14}{'seconds':>9}{'temporaries':>14}{'loss':>12}")
  for name, value in seconds.items():
    temporaries = f"{memory[name]:.0f} MiB" if name in memory else "-"
    print(f"{name:<14}{value:>9.2f}{temporaries:>14}{losses[name]:>12.6f}")
  for layers, value in compiling.items():
    print(f"compiling {layers:>2} layers: {value:.1f} s")
  result = {
    "shared_vs_repeated": seconds["repeated"] / seconds["shared"],
    "shared_memory": memory["shared"] / memory["repeated"],
    "vs_transformers": seconds["transformers"] / seconds["shared"],
    "compile_ratio": compiling[28] / compiling[4],
  }
  print(json.dumps({name: round(value, 3) for name, value in result.items()}))


if __name__ == "__main__":
  main()
