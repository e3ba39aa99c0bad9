"""What the sampler is worth: against transformers, and itself without its ideas.

    python experiments/speed/sampling.py [--size=small] [--parts=NAMES] [--tunix_python=FILE]

One random decoder of about 30M parameters with a vocabulary of 32k, fp32, 8 prompts of 8
trajectories of 128 tokens; everything in one run on one device, each figure the best of several
after a warm-up. With `--size=3b` it is the released 3B's shape in bf16, and prompts of 1,024 tokens
with an image of 784, continued by up to 2,048; what torch or tunix takes part in is left out.
`--parts` names what is measured, all by default, and `--tokens` sets another limit. Ends with one
JSON line:

- `vs_transformers`, `vs_transformers_short`: time of transformers' `generate` on torch with the
  same weights and top-k off, over the sampler's, for prompts of 512 and of 64 tokens.
- `vs_tunix`: time of tunix's sampler on text prompts of 64 tokens over the sampler's, for a random
  decoder of the same sizes; null without `--tunix_python`. It wants another transformers, so give
  it an environment of its own and name its Python:

      python3 -m venv tunix && tunix/bin/pip install google-tunix==0.1.7
      python experiments/speed/sampling.py --tunix_python=tunix/bin/python

- `prefill_tokens_per_second`: prompt tokens read per second, each prompt once, without encoding its
  image; `prefill_mfu`: model operations (`sejax.monitoring.flops`) of that per second, of what the
  device can do in bf16, null where that is not known.
- `shared_prefill`: time to read each prompt of 512 tokens 8 times, over that of reading it once.
- `tail_cost`: with lengths of which 90% are an eighth of the limit, time over that of as many
  tokens at the full batch's rate. `tail_packing`: time without packing over time with it.
- `top_p_cost`: time with top-p 0.9 over time without. `certainty_cost`: with entropy and
  self-certainty measured, as every training run does, over without.
- `length_growth`: time per token with a limit of 1,024 tokens, over that with 128; of 2,048 over
  256 with `--size=3b`.
- `tokens_per_second`: trajectories that run to the limit, prompts read and all.
- `decode_gbs`: bytes that decoding these must read (weights, prompts once for a group, own tokens)
  per second; `decode_bandwidth`: of the device's, null where that is not known.
"""

import json
import pathlib
import subprocess
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import app, flags
from reference import make_config, torch_model
from sizes import IMAGE_SIDE, REPEATS, SIZE, TOKENS, chosen, decode_bytes, encode, random_prompts
from stopwatch import best_seconds

from sejax import models
from sejax.models import qwen2_5_vl as qwen
from sejax.monitoring import flops
from sejax.parallel import chips
from sejax.sampling import Filters, Options, Request, Result, Role, Sampler, record_hashes

PROMPTS, TRAJECTORIES = 8, 8
# "others" is what the sampler is compared with, "prefill" and "full" are rates of the sampler, and
# the rest is the sampler with and without one of its ideas.
PARTS = ("others", "prefill", "shared_prefill", "full", "tail", "options")


class Size(NamedTuple):
  """A model and what it reads.

  Attributes:
    model: the decoder and vision tower.
    dtype: of weights and cache.
    side: tokens along each side of a prompt's image; 0 without one.
    short: tokens of a prompt where prompts matter little.
    long: where they matter.
    max_new_tokens: limit of a trajectory's sampled tokens.
    few: tokens of one where the cache's size matters, an eighth of what is allocated.
  """

  model: qwen.Qwen25VL
  dtype: jnp.dtype
  side: int
  short: int
  long: int
  max_new_tokens: int
  few: int


SIZES = {
  "small": Size(make_config(5, 32_000), jnp.dtype("float32"), 0, 64, 512, 128, 128),
  "3b": Size(
    qwen.Qwen25VL.released("3b"), jnp.dtype("bfloat16"), IMAGE_SIDE, 1024, 1024, 2048, 256
  ),
  "dry": Size(make_config(1, 2048), jnp.dtype("float32"), 0, 16, 32, 16, 16),
}
_PARTS = flags.DEFINE_list("parts", list(PARTS), f"What is measured, of {', '.join(PARTS)}.")
flags.register_validator("parts", lambda names: {*names} <= {*PARTS}, f"choose from {PARTS}")
_TUNIX_PYTHON = flags.DEFINE_string("tunix_python", "", "Python of an environment with tunix.")


def run_transformers(
  model: torch.nn.Module, request: Request, max_new_tokens: int, *, greedy: bool = False
) -> np.ndarray:
  """Continues each prompt 8 times by `generate`, which repeats the prompts."""
  ids = torch.from_numpy(np.repeat(request.prompt.ids, TRAJECTORIES, axis=0)).long()
  how = {"do_sample": False} if greedy else {"do_sample": True, "top_k": 0, "top_p": 1.0}
  with torch.inference_mode():
    out = model.generate(
      input_ids=ids,
      attention_mask=torch.ones_like(ids),
      mm_token_type_ids=torch.zeros_like(ids),
      max_new_tokens=max_new_tokens,
      eos_token_id=None,
      pad_token_id=0,
      **how,
    )
  return out[:, ids.shape[1] :].numpy().reshape(PROMPTS, TRAJECTORIES, -1)


class Bench:
  """A model, and samplers for it that are timed in turn with whatever they are compared with."""

  def __init__(self, size: Size):
    self.size = size
    # On the device and array by array: all at once would need several times the memory.
    self.params = size.model.init(jax.random.key(0), size.dtype)

  def request(self, length: int, limits: np.ndarray | None = None) -> Request:
    """Returns random prompts of one length."""
    prompt, images = random_prompts(self.size.model, PROMPTS, length, self.size.side)
    hashes = record_hashes("speed", [str(i) for i in range(PROMPTS)])
    return Request(prompt, hashes, encode(self.params, self.size.model, images), limits=limits)

  def sampler(self, request: Request, **changes) -> Callable[[], Result]:
    """Returns what samples once."""
    options = {"trajectories": TRAJECTORIES, "max_new_tokens": self.size.max_new_tokens, **changes}
    model = self.size.model.for_device(jax.devices()[0], fused_attention=True, layered_cache=None)
    sampler = Sampler(model, Options(**options), dtype=self.size.dtype)
    return lambda: sampler(self.params, request, seed=0, step=0, role=Role.ACTOR)


def show(title: str, found: dict[str, float], tokens: int) -> None:
  """Prints times and tokens per second."""
  for name, value in found.items():
    print(f"{title:<22}{name:<14}{value:8.2f} s{tokens / value:10.0f} tokens/s", flush=True)


def against_transformers(bench: Bench, model: torch.nn.Module, request: Request) -> float:
  """Compares, after making sure that both compute the same."""
  max_new_tokens = bench.size.max_new_tokens
  greedy = bench.sampler(request, filters=Filters(temperature=0.0))()
  same = (greedy.tokens == run_transformers(model, request, max_new_tokens, greedy=True)).mean()
  if same < 0.9:  # After a near tie of a random model the rest of a row may differ.
    raise ValueError(f"only {same:.0%} of the greedy tokens are those of transformers")
  found = best_seconds(
    {
      "sejax": bench.sampler(request),
      "transformers": lambda: run_transformers(model, request, max_new_tokens),
    },
    REPEATS.value,
  )
  show(f"prompts of {request.prompt.ids.shape[1]}", found, greedy.tokens.size)
  return found["transformers"] / found["sejax"]


def against_tunix(bench: Bench, request: Request) -> float | None:
  """Compares with tunix in a process of its own; None where there is no environment for it."""
  python = _TUNIX_PYTHON.value
  if not python or not pathlib.Path(python).is_file():
    print("tunix is not measured: name its Python by --tunix_python, as said on top of this file")
    return None
  script = pathlib.Path(__file__).with_name("tunix_sampler.py")
  length, new = request.prompt.ids.shape[1], bench.size.max_new_tokens
  sizes = PROMPTS, TRAJECTORIES, length, new, REPEATS.value
  done = subprocess.run([python, script, *map(str, sizes)], capture_output=True, text=True)
  if done.returncode:
    raise ValueError(f"tunix failed: {done.stderr.strip().splitlines()[-1]}")
  found = best_seconds({"sejax": bench.sampler(request)}, REPEATS.value)
  found["tunix"] = float(done.stdout.split()[-1])
  show("text prompts", found, PROMPTS * TRAJECTORIES * bench.size.max_new_tokens)
  return found["tunix"] / found["sejax"]


def prefill(bench: Bench, request: Request) -> dict[str, float | None]:
  """Measures reading each prompt once, and compares with reading it for each trajectory."""
  prompt, features = request.prompt, request.features
  inputs = {"shared": (prompt, features)}
  if "shared_prefill" in _PARTS.value:
    repeated = models.Prompt(
      np.repeat(prompt.ids, TRAJECTORIES, axis=0),
      np.repeat(prompt.lengths, TRAJECTORIES),
      np.repeat(prompt.positions, TRAJECTORIES, axis=1),
    )
    copies = None if features is None else jnp.repeat(features, TRAJECTORIES, axis=0)
    inputs["repeated"] = repeated, copies
  model = bench.size.model
  compiled = jax.jit(model.prefill)
  found = best_seconds(
    {
      name: lambda inputs=inputs: jax.block_until_ready(
        compiled(bench.params, prompt=inputs[0], features=inputs[1])
      )
      for name, inputs in inputs.items()
    },
    REPEATS.value,
  )
  tokens = int(prompt.lengths.sum())
  show("prefill", found, tokens)
  chip, rate = chips.current(), flops.of_tokens(model, tokens, 0) / found["shared"]
  result = {
    "prefill_tokens_per_second": tokens / found["shared"],
    "prefill_mfu": chip and rate / chip.flops,
  }
  if "repeated" in found:
    result["shared_prefill"] = found["repeated"] / found["shared"]
  return result


def decode(bench: Bench) -> dict[str, float | None]:
  """Samples lengths that all run to the limit, and those of which nine in ten are short."""
  rng = np.random.default_rng(0)
  size, rows, results = bench.size, PROMPTS * TRAJECTORIES, []
  long = (rng.permutation(rows) < rows // 10).reshape(PROMPTS, TRAJECTORIES)
  limits = np.where(long, size.max_new_tokens, size.max_new_tokens // 8)
  request, full = bench.request(size.short, limits), bench.sampler(bench.request(size.short))
  steps = {"full": lambda: results.append(full())}
  if "tail" in _PARTS.value:
    steps |= {"packed": bench.sampler(request), "unpacked": bench.sampler(request, pack=False)}
  found = best_seconds(steps, REPEATS.value)

  tokens = rows * size.max_new_tokens
  show("all to the limit", {"full": found["full"]}, tokens)
  lengths, stats = results[0].lengths, results[0].stats
  read = decode_bytes(size.model, size.dtype, stats.steps, request.prompt.lengths, lengths)
  rate = read / min(result.stats.seconds["decode"] for result in results)
  chip = chips.current()
  rates = {
    "tokens_per_second": tokens / found["full"],
    "decode_gbs": rate / 1e9,
    "decode_bandwidth": chip and rate / chip.bandwidth,
  }
  if "tail" not in _PARTS.value:
    return rates
  show("long tail", {name: found[name] for name in ("packed", "unpacked")}, limits.sum())
  return {
    "tail_cost": found["packed"] / (found["full"] * limits.sum() / tokens),
    "tail_packing": found["unpacked"] / found["packed"],
    **rates,
  }


def options(bench: Bench) -> dict[str, float]:
  """Compares with top-p, with measured certainty, and with a cache that is hardly used."""
  size = bench.size
  request = bench.request(size.short)
  limits = np.full((PROMPTS, TRAJECTORIES), size.few)
  found = best_seconds(
    {
      "plain": bench.sampler(request, max_new_tokens=size.few),
      "top-p 0.9": bench.sampler(request, max_new_tokens=size.few, filters=Filters(top_p=0.9)),
      "certainty": bench.sampler(request, max_new_tokens=size.few, certainty_temperature=1.0),
      f"limit {8 * size.few:,}": bench.sampler(
        request._replace(limits=limits), max_new_tokens=8 * size.few
      ),
    },
    REPEATS.value,
  )
  show(f"prompts of {size.short}", found, limits.sum())
  plain, top_p, certainty, long = found.values()
  return {
    "top_p_cost": top_p / plain,
    "certainty_cost": certainty / plain,
    "length_growth": long / plain,
  }


def main(_: list[str]) -> None:
  """Measures everything and prints it."""
  size = chosen(SIZES)
  if TOKENS.value is not None:
    size = size._replace(max_new_tokens=TOKENS.value)
  bench = Bench(size)
  count = sum(x.size for x in jax.tree.leaves(bench.params["decoder"]))
  device = jax.devices()[0].device_kind
  print(
    f"{device}; {count / 1e6:.1f}M parameters; B={PROMPTS} G={TRAJECTORIES} R={size.max_new_tokens}"
  )
  short, long = bench.request(size.short), bench.request(size.long)

  result = {}
  # The others run on a CPU, and could not share an accelerator.
  if "others" in _PARTS.value and SIZE.value == "small":
    model = torch_model(size.model, bench.params)
    result["vs_transformers"] = against_transformers(bench, model, long)
    result["vs_transformers_short"] = against_transformers(bench, model, short)
    result["vs_tunix"] = against_tunix(bench, short)
  if {"prefill", "shared_prefill"} & {*_PARTS.value}:
    result |= prefill(bench, long)
  if {"full", "tail"} & {*_PARTS.value}:
    result |= decode(bench)
  if "options" in _PARTS.value:
    result |= options(bench)
  print(json.dumps({"device": device} | {k: v and round(v, 3) for k, v in result.items()}))


if __name__ == "__main__":
  app.run(main)
