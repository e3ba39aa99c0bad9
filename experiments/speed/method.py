"""Time of the method's host and device parts: texts to votes, and votes to advantages.

    python experiments/speed/method.py

One run, one machine, best of several after a warm-up. Prints the time of reading 512 groups of 8
trajectories of 1,500 characters (ordinary and hostile ones; every repetition gets fresh texts, so
that no cache helps), of the jitted kernel from votes and scores to advantages, and of a plain
Python loop
over the same groups. Ends with one JSON line:

- `kernel_ms`: the kernel for 512 groups, arrays handed over from the host, result waited for;
- `kernel_speedup`: the plain loop's time over the kernel's;
- `text_ms`, `hostile_ms`: extraction, format and votes of 4,096 texts; the worst hostile kind;
- `growth`: time for 4,096 groups over 64 times that for 64 groups, the larger of text and kernel;
- `compiles`: programs compiled for one shape and several batches.
"""

import json
import math
import random
import time
from collections.abc import Callable

import jax
import numpy as np

from sejax import method
from sejax.text import answers

G = 8
CHARACTERS = 1500
REPEATS = 7
FORMS = (
  lambda r: str(r.randrange(-50, 500)),
  lambda r: rf"\frac{{{r.randrange(1, 99)}}}{{{r.randrange(1, 99)}}}",
  lambda r: rf"{r.randrange(2, 30)}\sqrt{{{r.randrange(2, 99)}}}",
  lambda r: rf"{r.randrange(1, 180)}^\circ",
  lambda r: r.choice("ABCD"),
  lambda r: f"{50 * r.random():.2f}",
  lambda r: rf"{r.randrange(1, 99)} \text{{ cm}}^2",
  lambda r: f"({r.randrange(9)},{r.randrange(9)})",
  lambda r: rf"x = {r.randrange(99)}\pi",
)
BOX = "<think></think>\\boxed{"
HOSTILE = {
  "open boxes": "\\boxed{" * 220,
  "open braces": BOX + "{" * CHARACTERS,
  "pairs of braces": BOX + "{}" * 730 + "}",
  "deep braces": BOX + "{" * 730 + "1" + "}" * 731,
  "escaped braces": BOX + "\\{" * 730 + "}",
  "nested fractions": BOX + "\\frac{1}{" * 130 + "1" + "}" * 131,
  "tower of powers": BOX + "2^" * 730 + "2}",
  "digits": BOX + "9" * 1470 + "}",
  "think tags": "<think>" * 220,
  "closing tags": "<think>" + "</think>\\boxed{" * 100,
  "backslashes": "\\" * CHARACTERS,
  "vulgar fractions": BOX + "½" * 1400 + "}",
}


def main() -> None:
  """Measures both parts and prints the figures."""
  text = {count: best(ordinary(count), read, REPEATS) for count in (64, 512, 4096)}
  print(f"texts, 512 groups           {text[512]:9.2f} ms")
  hostile = {kind: best(lambda seed, t=t: vary(t, seed), read, 3) for kind, t in HOSTILE.items()}
  for kind, milliseconds in sorted(hostile.items(), key=lambda item: -item[1]):
    print(f"  hostile, {kind:<17}{milliseconds:9.2f} ms")

  kernel = {count: best(votes(count), run_kernel, 50) for count in (64, 512, 4096)}
  compiles = count_compiles(512)
  loop = best(lambda seed: [a.tolist() for a in votes(512)(seed)], plain_loop, REPEATS)
  print(f"kernel, 512 groups          {kernel[512]:9.3f} ms, {compiles} compile")
  print(f"plain Python, 512 groups    {loop:9.2f} ms")
  print(f"step 2 + 4, 512 groups      {text[512] + kernel[512]:9.2f} ms")
  growth = {"text": text[4096] / (64 * text[64]), "kernel": kernel[4096] / (64 * kernel[64])}
  print("64 to 4,096 groups, over linear: " + ", ".join(f"{k} {v:.2f}" for k, v in growth.items()))
  print(
    json.dumps(
      {
        "kernel_ms": round(kernel[512], 4),
        "kernel_speedup": round(loop / kernel[512], 1),
        "text_ms": round(text[512], 1),
        "hostile_ms": round(max(hostile.values()), 1),
        "growth": round(max(growth.values()), 3),
        "compiles": compiles,
      }
    )
  )


def best(make: Callable, run: Callable, repeats: int) -> float:
  """Least time in milliseconds over fresh inputs, after one warm-up."""
  run(make(0))
  times = []
  for seed in range(1, repeats + 1):
    inputs = make(seed)
    start = time.perf_counter()
    run(inputs)
    times.append(time.perf_counter() - start)
  return 1e3 * min(times)


def ordinary(groups: int) -> Callable[[int], list[list[str]]]:
  """Groups whose trajectories choose among three answers."""

  def make(seed: int) -> list[list[str]]:
    rng = random.Random(seed)
    return [[_trajectory(rng, options) for _ in range(G)] for options in _options(rng, groups)]

  return make


def _options(rng: random.Random, groups: int) -> list[list[str]]:
  return [[rng.choice(FORMS)(rng) for _ in range(3)] for _ in range(groups)]


def _trajectory(rng: random.Random, options: list[str]) -> str:
  end = f"</think>\n\\boxed{{{rng.choice(options)}}}"
  body = "the angle at the centre is twice the angle at the arc, so "
  return "<think>" + (body * 30)[: CHARACTERS - len(end) - 7] + end


def vary(text: str, seed: int) -> list[list[str]]:
  """512 groups of the same hostile text, each told apart by its last characters but one."""
  return [[f"{text[:-1]}{seed}{b}{g}{text[-1]}" for g in range(G)] for b in range(512)]


def read(groups: list[list[str]]) -> np.ndarray:
  """Step 2: answers, format and votes."""
  extracted = [[answers.extract(text) for text in group] for group in groups]
  format_ok = [[answers.format_ok(text) for text in group] for group in groups]
  return answers.vote_ids(extracted), format_ok


def votes(groups: int) -> Callable[[int], tuple[np.ndarray, ...]]:
  """Random votes, formats and verdicts."""

  def make(seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    shape = (groups, G)
    ids = rng.integers(-1, 4, shape).astype(np.int32)
    scores = rng.random(shape, np.float32)
    return ids, rng.random(shape) < 0.9, scores, rng.random(shape) < 0.95

  return make


def run_kernel(inputs: tuple[np.ndarray, ...]) -> method.Group:
  """Step 4: rewards, log q and advantages, in one compiled call."""
  return jax.block_until_ready(method.group(*inputs))


def count_compiles(groups: int) -> int:
  """Programs compiled while several batches of one shape pass through an empty cache."""
  jax.clear_caches()
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **_: compiled.append(name) if "backend_compile" in name else None
  )
  for seed in range(5):
    run_kernel(votes(groups)(seed))
  return len(compiled)


def plain_loop(inputs: list[list]) -> list[list[float]]:
  """The same step for the released options, written as a person would without arrays."""
  results = []
  for ids, formats, scores, valid in zip(*inputs, strict=True):
    counts = {i: ids.count(i) for i in ids if i >= 0}
    top = max(counts.values(), default=0)
    rewards = []
    for answer, well_formed, score, readable in zip(ids, formats, scores, valid, strict=True):
      share = counts.get(answer, 0) / G
      consistency = float(counts.get(answer) == top) if top / G > 0.85 else share
      factor = 1.0
      if readable:
        raised = 0.2 / (1 + math.exp(-(score - 0.95) / 0.02))
        cut = 0.2 / (1 + math.exp(-(0.40 - score) / 0.05))
        factor = min(max(1 + raised - cut, 0.8), 1.2)
      penalty = 0.0 if well_formed else -0.5
      rewards.append(min(max(consistency * factor + penalty, 0.0), 1.0))
    log_sum = math.log(sum(math.exp(reward) for reward in rewards))
    log_q = [reward - log_sum for reward in rewards]
    mean = sum(log_q) / G
    results.append([value - mean for value in log_q])
  return results


if __name__ == "__main__":
  main()
