"""What the sampler is worth on CPU: against transformers, and itself without its ideas.

    python experiments/speed/sampling.py [--tunix_python=FILE]

One random decoder of about 30M parameters with a vocabulary of 32k, fp32, 8 prompts of 8
trajectories of 128 tokens; everything in one run on one machine, each figure the best of several
after a warm-up. Ends with one JSON line:

- `vs_transformers`, `vs_transformers_short`: time of transformers' `generate` on torch with the
  same weights and top-k off, over the sampler's, for prompts of 512 and of 64 tokens.
- `vs_tunix`: time of tunix's sampler on text prompts of 64 tokens over the sampler's, for a random
  decoder of the same sizes; null without `--tunix_python`. It wants another transformers, so give
  it an environment of its own and name its Python:

      python3 -m venv tunix && tunix/bin/pip install google-tunix==0.1.7
      python experiments/speed/sampling.py --tunix_python=tunix/bin/python

- `shared_prefill`: time to read each prompt of 512 tokens 8 times, over that of reading it once.
- `tail_cost`: with lengths of which 90% are an eighth of the limit, time over that of as many
  tokens at the full batch's rate. `tail_packing`: time without packing over time with it.
- `top_p_cost`: time with top-p 0.9 over time without.
- `length_growth`: time per token with a cache of 1,024 slots allocated, over that with 128.
"""

import json
import pathlib
import subprocess
from collections.abc import Callable

import jax
import numpy as np
import torch
from absl import app, flags
from reference import make_config, torch_model
from stopwatch import best_seconds

from sejax.models import qwen2_5_vl as qwen
from sejax.sampling import Filters, Options, Request, Result, Role, Sampler, record_hashes

PROMPTS, TRAJECTORIES, NEW_TOKENS = 8, 8, 128
SHORT, LONG = 64, 512
REPEATS = 3

_TUNIX_PYTHON = flags.DEFINE_string("tunix_python", "", "Python of an environment with tunix.")


def make_request(config: qwen.Config, length: int, limits: np.ndarray | None = None) -> Request:
  """Random prompts of one length."""
  rng = np.random.default_rng(0)
  ids = rng.integers(2, config.image_token_id, (PROMPTS, length)).astype(np.int32)
  positions = np.broadcast_to(np.arange(length, dtype=np.int32), (3, PROMPTS, length))
  prompt = qwen.Prompt(ids, np.full(PROMPTS, length, np.int32), positions)
  return Request(prompt, record_hashes("speed", [str(i) for i in range(PROMPTS)]), limits=limits)


def run_transformers(
  model: torch.nn.Module, request: Request, *, greedy: bool = False
) -> np.ndarray:
  """Continues each prompt 8 times by `generate`, which repeats the prompts."""
  ids = torch.from_numpy(np.repeat(request.prompt.ids, TRAJECTORIES, axis=0)).long()
  how = {"do_sample": False} if greedy else {"do_sample": True, "top_k": 0, "top_p": 1.0}
  with torch.inference_mode():
    out = model.generate(
      input_ids=ids,
      attention_mask=torch.ones_like(ids),
      mm_token_type_ids=torch.zeros_like(ids),
      max_new_tokens=NEW_TOKENS,
      eos_token_id=None,
      pad_token_id=0,
      **how,
    )
  return out[:, ids.shape[1] :].numpy().reshape(PROMPTS, TRAJECTORIES, -1)


class Bench:
  """Samplers for one model, timed in turn with whatever they are compared with."""

  def __init__(self, config: qwen.Config, params: qwen.Params):
    self._config, self._params = config, params

  def sampler(self, request: Request, **changes) -> Callable[[], Result]:
    """Returns what samples once."""
    options = {"trajectories": TRAJECTORIES, "new_tokens": NEW_TOKENS, **changes}
    sampler = Sampler(self._config, Options(**options))
    return lambda: sampler(self._params, request, seed=0, step=0, role=Role.ACTOR)


def show(title: str, found: dict[str, float], tokens: int = PROMPTS * TRAJECTORIES * NEW_TOKENS):
  """Prints times and tokens per second."""
  for name, value in found.items():
    print(f"{title:<22}{name:<14}{value:8.2f} s{tokens / value:10.0f} tokens/s", flush=True)


def against_transformers(bench: Bench, model: torch.nn.Module, request: Request) -> float:
  """Compares, after making sure that both compute the same."""
  greedy = bench.sampler(request, filters=Filters(temperature=0.0))()
  same = (greedy.tokens == run_transformers(model, request, greedy=True)).mean()
  if same < 0.9:  # After a near tie of a random model the rest of a row may differ.
    raise ValueError(f"only {same:.0%} of the greedy tokens are those of transformers")
  found = best_seconds(
    {
      "sejax": bench.sampler(request),
      "transformers": lambda: run_transformers(model, request),
    },
    REPEATS,
  )
  show(f"prompts of {request.prompt.ids.shape[1]}", found)
  return found["transformers"] / found["sejax"]


def against_tunix(bench: Bench, request: Request) -> float | None:
  """Compares with tunix in a process of its own; None where there is no environment for it."""
  python = _TUNIX_PYTHON.value
  if not python or not pathlib.Path(python).is_file():
    print("tunix is not measured: name its Python by --tunix_python, as said on top of this file")
    return None
  script = pathlib.Path(__file__).with_name("tunix_sampler.py")
  sizes = PROMPTS, TRAJECTORIES, request.prompt.ids.shape[1], NEW_TOKENS, REPEATS
  done = subprocess.run([python, script, *map(str, sizes)], capture_output=True, text=True)
  if done.returncode:
    raise ValueError(f"tunix failed: {done.stderr.strip().splitlines()[-1]}")
  found = best_seconds({"sejax": bench.sampler(request)}, REPEATS)
  found["tunix"] = float(done.stdout.split()[-1])
  show("text prompts", found)
  return found["tunix"] / found["sejax"]


def shared_prefill(config: qwen.Config, params: qwen.Params, request: Request) -> float:
  """Compares reading each prompt once with reading it for each trajectory."""
  prompt = request.prompt
  repeated = qwen.Prompt(
    np.repeat(prompt.ids, TRAJECTORIES, axis=0),
    np.repeat(prompt.lengths, TRAJECTORIES),
    np.repeat(prompt.positions, TRAJECTORIES, axis=1),
  )
  prefill = jax.jit(lambda params, prompt: qwen.prefill(params, config, prompt))
  found = best_seconds(
    {
      "shared": lambda: jax.block_until_ready(prefill(params, prompt)),
      "repeated": lambda: jax.block_until_ready(prefill(params, repeated)),
    },
    REPEATS,
  )
  show("prefill", found, prompt.ids.size)
  return found["repeated"] / found["shared"]


def tail(bench: Bench, config: qwen.Config) -> tuple[float, float]:
  """Samples lengths of which nine in ten are short, with packing and without."""
  rng = np.random.default_rng(0)
  rows = PROMPTS * TRAJECTORIES
  long = (rng.permutation(rows) < rows // 10).reshape(PROMPTS, TRAJECTORIES)
  limits = np.where(long, NEW_TOKENS, NEW_TOKENS // 8)
  request = make_request(config, SHORT, limits)
  found = best_seconds(
    {
      "full": bench.sampler(make_request(config, SHORT)),
      "packed": bench.sampler(request),
      "unpacked": bench.sampler(request, pack=False),
    },
    REPEATS,
  )
  show("long tail", found)
  share = limits.sum() / (limits.size * NEW_TOKENS)
  return found["packed"] / (found["full"] * share), found["unpacked"] / found["packed"]


def main(_: list[str]) -> None:
  """Measures everything and prints it."""
  config = make_config(layers=5, vocab_size=32_000)
  params = qwen.init(jax.random.key(0), config)
  count = sum(x.size for x in jax.tree.leaves(params["decoder"]))
  print(f"{count / 1e6:.1f}M parameters; B={PROMPTS} G={TRAJECTORIES} R={NEW_TOKENS}")
  bench, model = Bench(config, params), torch_model(config, params)
  short, long = (make_request(config, length) for length in (SHORT, LONG))

  result = {
    "vs_transformers": against_transformers(bench, model, long),
    "vs_transformers_short": against_transformers(bench, model, short),
    "vs_tunix": against_tunix(bench, short),
    "shared_prefill": shared_prefill(config, params, long),
  }
  result["tail_cost"], result["tail_packing"] = tail(bench, config)
  found = best_seconds(
    {
      "plain": bench.sampler(short),
      "top-p 0.9": bench.sampler(short, filters=Filters(top_p=0.9)),
      "1,024 slots": bench.sampler(
        short._replace(limits=np.full((PROMPTS, TRAJECTORIES), NEW_TOKENS)), new_tokens=1024
      ),
    },
    REPEATS,
  )
  show("prompts of 64", found)
  result["top_p_cost"] = found["top-p 0.9"] / found["plain"]
  result["length_growth"] = found["1,024 slots"] / found["plain"]
  print(json.dumps({name: value and round(value, 3) for name, value in result.items()}))


if __name__ == "__main__":
  app.run(main)
