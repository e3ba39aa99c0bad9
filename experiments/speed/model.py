"""What reading each prompt once is worth, in one GRPO update.

    python experiments/speed/model.py [--size=small] [--family=qwen2_5_vl] [--only_shared]

A random decoder of about 30M parameters, fp32, one prompt of 512 tokens with 8 trajectories of 128.
With `--size=3b` it is the released 3B's shape in bf16, and a prompt of 1,024 tokens, 784 of them
the features of an image (computed before, as by a frozen vision tower), with 8 trajectories of
2,048; transformers is left out. Measured: loss and gradient of every parameter, layers computed
again in the backward pass.

- `shared_vs_repeated`: time of the same code on 8 rows that each repeat the prompt, over that of
  one row that shares it. The ratio of their tokens is 8 x 640 / (512 + 8 x 128) = 3.33, and
  8 x 3,072 / (1,024 + 8 x 2,048) = 1.41 with `--size=3b`.
- `shared_memory`: the shared step's temporary memory over the repeated one's, as compiled.
- `vs_transformers`: time of the usual repeated-prompt step of transformers on torch with gradient
  checkpointing and the same weights, over time of the shared step.
- `compile_ratio`: compile time of 28 layers over that of 4.
- `forward_tflops`, `step_tflops`: model operations (`sejax.monitoring.flops`) per second of the
  shared loss alone, and with its gradient; `forward_mfu`, `step_mfu`: of what the device can do in
  bf16, null where that is not known.

With `--only_shared` the step is not compared, and only rates are given. Prints a table, then one
line of JSON. Needs torch, which the library itself does not.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import app, flags
from jaxtyping import Array, Float
from reference import make_config, torch_model
from sizes import IMAGE_SIDE, REPEATS, SIZE, chosen, encode, random_prompts, text_ids
from stopwatch import best_seconds

from sejax import models
from sejax.monitoring import flops
from sejax.parallel import chips

GROUP = 8
CLIP = 0.2
FAMILY = flags.DEFINE_enum(
  "family", "qwen2_5_vl", list(models.FAMILIES), "Of the model with --size=small."
)
_ONLY_SHARED = flags.DEFINE_bool("only_shared", False, "Leave out what the step is compared with.")


class Size(NamedTuple):
  """A model and the group it learns from.

  Attributes:
    model: the decoder and vision tower.
    dtype: of weights, activations and gradients.
    side: tokens along each side of the prompt's image; 0 without one.
    prompt: tokens of the prompt.
    response: of each trajectory.
    tolerance: by how much the loss may differ where the same is computed in another order.
  """

  model: models.Model
  dtype: jnp.dtype
  side: int
  prompt: int
  response: int
  tolerance: float


def sizes(family: str) -> dict[str, Size]:
  """Returns the sizes by name."""
  small, large = make_config(9, 2048, family), models.FAMILIES["qwen2_5_vl"].released("3b")
  dry = make_config(1, 2048)
  return {
    "small": Size(small, jnp.dtype("float32"), 0, 512, 128, 1e-5),
    "3b": Size(large, jnp.dtype("bfloat16"), IMAGE_SIDE, 1024, 2048, 1e-3),
    "dry": Size(dry, jnp.dtype("float32"), 0, 32, 16, 1e-5),
  }


@dataclasses.dataclass(frozen=True)
class Batch:
  """One group: a prompt, its trajectories, their log-probs when sampled, and their advantages."""

  prompt: models.Prompt
  features: models.Features | None
  tokens: np.ndarray
  old_logp: np.ndarray
  advantages: np.ndarray

  def for_sejax(self, *, shared: bool) -> tuple:
    """One row with G trajectories, or G rows with one each."""
    rows, members = (1, GROUP) if shared else (GROUP, 1)
    ids, lengths, positions = self.prompt
    shape = (rows, members, self.tokens.shape[-1])
    return (
      models.Prompt(
        np.tile(ids, (rows, 1)), np.tile(lengths, rows), np.tile(positions, (1, rows, 1))
      ),
      jax.tree.map(lambda x: jnp.repeat(x, rows, axis=0), self.features),
      self.tokens.reshape(shape),
      self.old_logp.reshape(shape),
      self.advantages.reshape(shape[:2]),
    )


def make_batch(size: Size, params: models.Params) -> Batch:
  """Draws a batch whose old log-probs are near those of a random model."""
  rng = np.random.default_rng(1)  # Not the one that prompts are drawn with.
  prompt, images = random_prompts(size.model, 1, size.prompt, size.side)
  tokens = rng.integers(2, text_ids(size.model), (GROUP, size.response)).astype(np.int32)
  old_logp = -np.log(size.model.vocab_size) + 0.1 * rng.standard_normal(tokens.shape)
  return Batch(
    prompt=prompt,
    features=encode(params, size.model, images),
    tokens=tokens,
    old_logp=old_logp.astype(np.float32),
    advantages=rng.standard_normal(GROUP).astype(np.float32),
  )


def jax_loss(config: models.Model) -> Callable:
  """Returns the update's loss, not yet compiled."""

  def loss(
    params: models.Params,
    prompt: models.Prompt,
    features: models.Features | None,
    tokens: Array,
    old_logp: Array,
    advantages: Array,
  ) -> Float[Array, ""]:
    last, hidden = config.forward(params, prompt, features, tokens)
    ratio = jnp.exp(config.logp(params, last, hidden, tokens).logp - old_logp)
    advantages = advantages[..., None]
    clipped = jnp.clip(ratio, 1 - CLIP, 1 + CLIP)
    return jnp.maximum(-advantages * ratio, -advantages * clipped).mean()

  return loss


def torch_step(model: torch.nn.Module, batch: Batch) -> float:
  """Computes loss and gradient on G rows that repeat the prompt; logits of the response only."""
  tokens = torch.from_numpy(batch.tokens).long()
  prompt = torch.from_numpy(batch.prompt.ids).long().expand(GROUP, -1)
  model.zero_grad(set_to_none=True)
  ids = torch.cat([prompt, tokens], dim=1)
  logits = model(input_ids=ids, logits_to_keep=tokens.shape[1] + 1, use_cache=False).logits[:, :-1]
  logp = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
  ratio = (logp - torch.from_numpy(batch.old_logp)).exp()
  advantages = torch.from_numpy(batch.advantages)[:, None]
  clipped = ratio.clamp(1 - CLIP, 1 + CLIP)
  loss = torch.maximum(-advantages * ratio, -advantages * clipped).mean()
  loss.backward()
  return loss.item()


def compile_seconds(size: Size, batch: Batch, layers: int) -> float:
  """Returns the time to compile the update of a model with so many layers; nothing is allocated."""
  text = dataclasses.replace(size.model.text, num_hidden_layers=layers)
  config = dataclasses.replace(size.model, text=text)
  params = jax.eval_shape(lambda key: config.init(key, size.dtype), jax.random.key(0))
  step = jax.jit(jax.value_and_grad(jax_loss(config)))
  lowered = step.lower(params, *batch.for_sejax(shared=True))
  start = time.perf_counter()
  lowered.compile()
  return time.perf_counter() - start


def rates(size: Size, seconds: dict[str, float]) -> dict[str, float | None]:
  """Returns model operations per second, and which share that is of what the device can do."""
  forward = flops.of_tokens(size.model, size.prompt, GROUP * size.response)
  done = {"forward": forward / seconds["forward"], "step": 3 * forward / seconds["shared"]}
  chip = chips.current()
  return {f"{name}_tflops": rate / 1e12 for name, rate in done.items()} | {
    f"{name}_mfu": chip and rate / chip.flops for name, rate in done.items()
  }


def main(_: list[str]) -> None:
  """Measures everything and prints it."""
  size = chosen(sizes(FAMILY.value))
  # On the device and array by array: all at once would need several times the memory.
  params = size.model.init(jax.random.key(0), size.dtype)
  batch = make_batch(size, params)
  count = sum(x.size for x in jax.tree.leaves(params["decoder"]))
  device = jax.devices()[0].device_kind
  print(f"{device}; decoder of {count / 1e6:.1f}M parameters; P={size.prompt} R={size.response}")

  loss, shared = jax_loss(size.model), batch.for_sejax(shared=True)
  compiled = {
    "forward": jax.jit(loss).lower(params, *shared).compile(),
    "shared": jax.jit(jax.value_and_grad(loss)).lower(params, *shared).compile(),
  }
  steps = {
    "forward": lambda: jax.block_until_ready(compiled["forward"](params, *shared)),
    "shared": lambda: jax.block_until_ready(compiled["shared"](params, *shared))[0],
  }
  compared = not _ONLY_SHARED.value
  if compared:
    repeated = batch.for_sejax(shared=False)
    compiled["repeated"] = jax.jit(jax.value_and_grad(loss)).lower(params, *repeated).compile()
    steps["repeated"] = lambda: jax.block_until_ready(compiled["repeated"](params, *repeated))[0]
  if compared and SIZE.value == "small":  # torch runs on a CPU, and could not share an accelerator.
    model = torch_model(size.model, params)
    model.train()
    model.gradient_checkpointing_enable()
    steps["transformers"] = lambda: torch_step(model, batch)
  memory = {n: c.memory_analysis().temp_size_in_bytes / 2**20 for n, c in compiled.items()}
  losses = {name: float(step()) for name, step in steps.items()}
  if max(losses.values()) - min(losses.values()) > size.tolerance:
    raise ValueError(f"the steps do not compute the same loss: {losses}")

  seconds = best_seconds(steps, REPEATS.value)
  print(f"{'step':<14}{'seconds':>9}{'temporaries':>14}{'loss':>12}")
  for name, value in seconds.items():
    temporaries = f"{memory[name]:.0f} MiB" if name in memory else "-"
    print(f"{name:<14}{value:>9.2f}{temporaries:>14}{losses[name]:>12.6f}")

  result = rates(size, seconds)
  if compared:
    compiling = {n: min(compile_seconds(size, batch, n) for _ in range(2)) for n in (4, 28)}
    for layers, value in compiling.items():
      print(f"compiling {layers:>2} layers: {value:.1f} s")
    result |= {
      "shared_vs_repeated": seconds["repeated"] / seconds["shared"],
      "shared_memory": memory["shared"] / memory["repeated"],
      "compile_ratio": compiling[28] / compiling[4],
    }
  if "transformers" in seconds:
    result["vs_transformers"] = seconds["transformers"] / seconds["shared"]
  named = {"device": device, "family": size.model.model_type}
  print(json.dumps(named | {k: v and round(v, 3) for k, v in result.items()}))


if __name__ == "__main__":
  app.run(main)
