"""How full the device batches of a step are: the product's own host loops, run on given lengths.

    python experiments/speed/simulate.py --lengths=FILE [--distribution=mid] [--shards=8] \
      [--max_concurrent_rows=N] [--cache_tokens=N] [--micro_batch_size=N] [--calls=FILE]

Runs the Actor and the Judge of a released step (2,048 and 1,024 new tokens). Admission, pages and
the end of decode runs are decided by the sampler's own code; each of its device programs is
replaced by what it does to lengths, so that no model is computed and the shapes are those that a
run would issue. The file has, for each distribution, `reply` and `verdict` in tokens (`[B][G]`),
and `prompt_tokens` (`[B]`). Prints for both roles, and ends with one JSON line:

- `row_use`: share of the decoded rows that belong to a sequence which has not ended.
- `steps`: decode steps. `row_steps`: their rows, over all shards.
- `valid_share`: of the cache positions that attention reads, those that hold a token of a sequence
  that has not ended; prompts, which are shared, are not counted.
- `given_share`: of the candidates' tokens that are read with padding, those that are real; of the
  Judge alone. `prompt_share`: the same of the prompts.
- `programs`: distinct programs and shapes. `cache_tokens`: most tokens that the pages of a shard
  had room for.

And for the updates, of four mini-batches:

- `micro_batches`: of all four. `shapes`: distinct shapes of these.
- `real_share`: of the tokens in packed rows, those of prompts and replies; `padded_share` would be
  the same if each reply was padded to the longest, as before rows were packed.
"""

import collections
import functools
import json
import pathlib
from typing import Any

import jax
import numpy as np
from absl import app, flags
from jax.sharding import Mesh
from jaxtyping import Int

from sejax import models
from sejax.learner import packing
from sejax.parallel import hosts
from sejax.parallel.programs import BackgroundCompiler, Program
from sejax.rollout import padded_length
from sejax.sampling import Options, Request, Role, Sampler, cache, decode, keys, record_hashes

_LENGTHS = flags.DEFINE_string("lengths", None, "File of lengths.")
_DISTRIBUTION = flags.DEFINE_string("distribution", "mid", "Which of its distributions.")
_SHARDS = flags.DEFINE_integer("shards", 8, "Row shards of the mesh.", lower_bound=1)
_ROWS = flags.DEFINE_integer("max_concurrent_rows", None, "As config.sampling has it.")
_CACHE = flags.DEFINE_integer("cache_tokens", None, "Most tokens in the KV cache of a shard.")
_MICRO = flags.DEFINE_integer(
  "micro_batch_size", None, "As config.train has it; by default one group of each shard."
)
_CALLS = flags.DEFINE_string("calls", None, "File to write what each role issued to, as JSON.")
_STEPS = flags.DEFINE_integer("decode_steps", 32, "As config.sampling has it.")

PROMPT_TOKENS, REPLY, VERDICT = 1024, 2048, 1024  # limits of the released run
MINIBATCHES = 4


class Simulation:
  """Stands in for a `ProgramCache`: does to lengths what the sampler's programs do.

  Attributes:
    ahead: as of a `ProgramCache`, like `seconds`; nothing is compiled.
    tally: sums of what was issued.
    issued: how often each program was called with each number of rows, pages and prompts of a
      shard, or of tokens that are read together.
  """

  def __init__(self, mesh: Mesh, shards: int):
    self.ahead, self.seconds = BackgroundCompiler(1), 0.0
    self.tally = collections.Counter()
    self.issued = collections.Counter()
    self._mesh, self._shards = mesh, shards
    self._programs: set[Any] = set()
    self._decoded: set[Any] = set()
    self._prepared: set[Any] = set()

  @property
  def count(self) -> int:
    """Distinct programs and shapes so far."""
    return len(self._programs)

  @property
  def prepared(self) -> int:
    """Decode programs that would be compiled ahead."""
    return len(self._prepared)

  @property
  def most_pages(self) -> int:
    """Pages of a shard in the largest KV cache that was read."""
    return max(key[2] for key in self.issued if key[0] == "decode, a token")

  @property
  def forecast(self) -> float:
    """Share of the decode programs that were prepared before they were called."""
    return len(self._decoded & self._prepared) / len(self._decoded)

  def guess(self, program: Program, *args: Any) -> None:
    """Notes that a decode program would be compiled ahead, unless it was called already."""
    del program
    self._prepared |= {_sizes(args[-1])} - self._decoded

  def call(self, program: Program, *args: Any) -> Any:
    """Does what a program does to lengths."""
    shapes = tuple(np.shape(x) for x in jax.tree.leaves(args))
    self._programs.add((program, shapes))
    simulate = {
      keys.sequence_keys: self._sequence_keys,
      cache.empty_state: self._empty_state,
      cache.read_prompts: self._read_prompts,
      cache.read_given: self._read_given,
      cache.write: self._write,
      cache.take: self._take,
      decode.decode_tokens: self._decode,
    }[program.function]
    return simulate(dict(program.static), *args)

  def _count(self, name: str, *sizes: int) -> None:
    self.issued[name, *(size // self._shards for size in sizes)] += 1

  def _sequence_keys(self, static, seed, step, role, records, trajectory, repeat):
    del static, seed, step, role, repeat
    return np.zeros((len(records), len(trajectory), 2), np.uint32)

  def _empty_state(self, static):
    """Pages and prompts are as many zeros; nothing else is kept of them."""
    self._page_size = static["page_size"]
    prefix = models.Prefix(*[np.zeros(static["prompts"])] * len(models.Prefix._fields))
    pages = models.Pages(*[np.zeros(static["pages"])] * 2)
    return decode.State(prefix, pages, np.zeros(static["sequences"]))

  def _read_prompts(self, static, params, prefix, hidden, rows, index, places):
    del static, params, places
    lengths, index = np.asarray(rows.lengths).reshape(self._shards, -1), np.asarray(index)
    by_shard = index.reshape(self._shards, -1)
    read = [row[at[at < len(row)]] for row, at in zip(lengths, by_shard, strict=True)]
    self.tally["prompt_real"] += sum(row.sum() for row in read)
    self.tally["prompt_read"] += index.size * rows.ids.shape[1]
    self._count("prefill", index.size * rows.ids.shape[1])
    return prefix, hidden

  def _read_given(self, static, params, pages, hidden, prefix, rows):
    del static, params, prefix
    self.tally["given_real"] += np.asarray(rows.lengths).sum()
    self.tally["given_read"] += rows.tokens.size
    self._count("given tokens", rows.tokens.size)
    return pages, hidden

  def _write(self, static, x, recent, count, targets, start):
    del static, recent, count, start
    self._count("write", len(targets), len(x))
    return x

  def _take(self, static, x, index):
    del static, x
    self._count("move", len(index))
    return np.zeros(len(index))

  def _decode(self, static, params, hidden, prefix, pages, sequences, batch):
    del params
    self._decoded.add(_sizes(batch))
    batch = jax.tree.map(np.asarray, batch)
    rows, size = len(batch.sequence), len(hidden) // self._shards
    shard = np.arange(rows) // (rows // self._shards)
    at = shard * size + np.minimum(batch.sequence, size - 1)
    limit = np.asarray(sequences.limit)[at]
    active = batch.active & (batch.num_sampled < limit)
    cached, sampled, steps = batch.table.lengths.copy(), batch.num_sampled.copy(), 0
    while steps < static["steps"]:
      counts = active.reshape(self._shards, -1).sum(-1)
      if counts.max() <= batch.stop_at_fullest or counts.sum() <= batch.stop_at_total:
        break
      self.tally["active"] += active.sum()
      sampled += active
      active = active & (sampled < limit)
      self.tally["valid"] += cached[active].sum()
      cached += active
      steps += 1
    self.tally["steps"] += steps
    self.tally["row_steps"] += steps * rows
    read = len(pages.keys) * self._page_size + rows * static["steps"]
    self.tally["read"] += steps * read
    for _ in range(steps):
      self._count("decode, a token", rows, len(pages.keys), len(prefix.keys))
    empty = hosts.shard_identical(self._mesh, np.zeros((rows, static["steps"]), np.int32))
    replicate = functools.partial(hosts.replicate, self._mesh)
    status = decode.Status(*map(replicate, (active, sampled, np.int32(steps))))
    new = np.zeros((rows, static["steps"]))
    recent = models.Recent(new, new, np.int32(steps))
    return hidden, recent, decode.SampledTokens(empty, empty, empty), status


def _sizes(batch: decode.Batch) -> tuple[int, ...]:
  """Returns what a decode program is compiled for."""
  table = batch.table
  return (*batch.sequence.shape, *table.row_of_page.shape, *table.row_of_member.shape)


def simulate(
  lengths: Int[np.ndarray, "B G"],
  prompts: Int[np.ndarray, " B"],
  given: Int[np.ndarray, "B G"] | None,
  *,
  limit: int,
) -> tuple[dict[str, float], collections.Counter]:
  """Returns the figures of a role, and what was issued.

  Args:
    lengths: tokens that are sampled.
    prompts: tokens of the prompts.
    given: tokens of the candidates; None without any.
    limit: most tokens of a sequence.
  """
  mesh = Mesh(np.array(jax.devices()), ("data",))
  options = Options(
    trajectories=lengths.shape[1],
    max_new_tokens=limit,
    max_concurrent_rows=_ROWS.value,
    cache_tokens=_CACHE.value,
    decode_steps=_STEPS.value,
  )
  sampler = Sampler(models.released("Qwen/Qwen2.5-VL-7B-Instruct"), options, mesh)
  sampler.compiled = simulation = Simulation(mesh, _SHARDS.value)
  size = len(prompts)
  ids = np.zeros((size, PROMPT_TOKENS), np.int32)
  request = Request(
    models.Prompt(ids, prompts.astype(np.int32), np.broadcast_to(ids, (3, *ids.shape))),
    record_hashes("simulation", [str(i) for i in range(size)]),
    limits=lengths,
  )
  if given is not None:
    padded = np.zeros((*given.shape, padded_length(REPLY)), np.int32)
    request = request._replace(given=padded, given_lengths=given)
  sampler({}, request, seed=0, step=0, role=Role.ACTOR)
  tally = simulation.tally
  figures = {
    "row_use": tally["active"] / tally["row_steps"],
    "steps": tally["steps"],
    "row_steps": tally["row_steps"],
    "valid_share": tally["valid"] / tally["read"],
    "prompt_share": tally["prompt_real"] / tally["prompt_read"],
    "programs": simulation.count,
    "forecast": simulation.forecast,
    "prepared": simulation.prepared,
    "cache_tokens": simulation.most_pages * options.page_size,
  }
  if given is not None:
    figures["given_share"] = tally["given_real"] / tally["given_read"]
  return {name: round(float(value), 3) for name, value in figures.items()}, simulation.issued


def simulate_updates(
  lengths: Int[np.ndarray, "B G"], prompts: Int[np.ndarray, " B"]
) -> tuple[dict[str, float], collections.Counter]:
  """Returns the figures of the updates, and what was issued: micro-batches by their row's size.

  Args:
    lengths: tokens of the replies.
    prompts: tokens of the prompts.
  """
  shards = _SHARDS.value
  capacity = packing.Capacity.of(
    max(1, (_MICRO.value or shards) // shards),
    PROMPT_TOKENS + lengths.shape[1] * REPLY,
    packing.block_size(lengths.shape[1] * REPLY),
  )
  sequences = np.concatenate([prompts[:, None], lengths], axis=1)
  micro_batches = [
    rows
    for part in np.split(sequences, MINIBATCHES)
    for rows in packing.pack(part, shards, capacity)
  ]
  sizes = [rows.packing.sequence.shape[1] for rows in micro_batches]
  slots = [rows.groups.shape[1] for rows in micro_batches]
  padded = len(lengths) * (PROMPT_TOKENS + lengths.shape[1] * REPLY)
  # The keys that a token attends to are those before it in its own sequence and prompt.
  ends = np.concatenate([prompts[:, None], prompts[:, None] + lengths], axis=1)
  issued = collections.Counter(("add gradient", size / capacity.tokens) for size in sizes)
  issued["attention",] = int((ends.astype(np.int64) ** 2 // 2).sum())
  return {
    "micro_batches": len(micro_batches),
    "real_share": round(sequences.sum() / (shards * sum(sizes)), 3),
    "padded_share": round(sequences.sum() / padded, 3),
    "shapes": len({*zip(slots, sizes, strict=True)}),
  }, issued


def main(argv: list[str]) -> None:
  """Simulates both roles and the updates, and prints."""
  del argv
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", _SHARDS.value)
  read = json.loads(pathlib.Path(_LENGTHS.value).read_text(encoding="utf-8"))
  prompts = np.minimum(read["prompt_tokens"], PROMPT_TOKENS)
  chosen = {name: np.array(x) for name, x in read[_DISTRIBUTION.value].items()}
  found = {
    "actor": simulate(chosen["reply"], prompts, None, limit=REPLY),
    "judge": simulate(chosen["verdict"], prompts, chosen["reply"], limit=VERDICT),
    "learner": simulate_updates(chosen["reply"], prompts),
  }
  result = {role: figures for role, (figures, _) in found.items()}
  if _CALLS.value:
    calls = {
      role: [[*call, count] for call, count in issued.items()]
      for role, (_, issued) in found.items()
    }
    pathlib.Path(_CALLS.value).write_text(json.dumps(calls), encoding="utf-8")
  for role, figures in result.items():
    print(role, *(f"{name} {value:g}" for name, value in figures.items()), sep="  ")
  print(json.dumps({"distribution": _DISTRIBUTION.value, "shards": _SHARDS.value} | result))


if __name__ == "__main__":
  flags.mark_flag_as_required("lengths")
  app.run(main)
