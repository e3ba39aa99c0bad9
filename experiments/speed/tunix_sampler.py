"""Times tunix's sampler on a random decoder; run by sampling.py in an environment of its own.

Prints the best of several times in seconds, after a warm-up. Text prompts, each repeated for its
trajectories as tunix has it; greedy, the cheapest way it draws. Arguments: prompts, trajectories,
prompt tokens, new tokens, repeats.
"""

import sys
import time

import jax
import numpy as np
from flax import nnx
from tunix.generate import sampler as tunix_sampler
from tunix.models.qwen2 import model as qwen2

VOCABULARY = 32_000


class Digits:
  """A tokenizer of numbers between spaces, as the sampler takes text."""

  def encode(self, text: str) -> list[int]:
    """Returns the numbers."""
    return [int(number) for number in text.split()]

  def decode(self, ids: list[int]) -> str:
    """Returns the text of numbers."""
    return " ".join(str(number) for number in ids)

  def bos_id(self) -> int:
    """The token that begins every prompt."""
    return 0

  def eos_id(self) -> int:
    """The token that ends one."""
    return 1

  def pad_id(self) -> int:
    """The token that fills rows up."""
    return 0


def main() -> None:
  """Measures and prints."""
  prompts, trajectories, length, new_tokens, repeats = map(int, sys.argv[1:])
  config = qwen2.ModelConfig(
    num_layers=5,
    vocab_size=VOCABULARY,
    embed_dim=512,
    hidden_dim=1536,
    num_heads=8,
    head_dim=64,
    num_kv_heads=2,
    rope_theta=1_000_000,
    norm_eps=1e-6,
    use_tied_embedding=True,
  )
  sampler = tunix_sampler.Sampler(
    qwen2.Qwen2(config, rngs=nnx.Rngs(0)),
    Digits(),
    tunix_sampler.CacheConfig(
      cache_size=length + new_tokens, num_layers=5, num_kv_heads=2, head_dim=64
    ),
  )
  ids = np.random.default_rng(0).integers(2, VOCABULARY, (prompts, length - 1))
  texts = [" ".join(map(str, row)) for row in ids for _ in range(trajectories)]
  seconds = []
  for _ in range(repeats + 1):
    start = time.perf_counter()
    out = sampler(texts, max_generation_steps=new_tokens, max_prompt_length=length)
    jax.block_until_ready(out.tokens)
    seconds.append(time.perf_counter() - start)
  drawn = [len(row) for row in out.tokens]
  if min(drawn) < new_tokens:
    raise ValueError(f"a row ended after {min(drawn)} of {new_tokens} tokens")
  print(min(seconds[1:]))


if __name__ == "__main__":
  main()
