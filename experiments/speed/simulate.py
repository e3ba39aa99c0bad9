"""How full the sampler's device batches are: its own host loop, run on given lengths.

    python experiments/speed/simulate.py --lengths=FILE [--distribution=mid] [--shards=8] \
      [--max_concurrent_prompts=64]

Runs the Actor and the Judge of a released step (2,048 and 1,024 new tokens). Admission, packing
and the end of decode runs are decided by the sampler's own code; each of its device programs is
replaced by what it does to lengths, so that no model is computed and the shapes are those that a
run would issue. The file has, for each distribution, `reply` and `verdict` in tokens (`[B][G]`),
and `prompt_tokens` (`[B]`). Prints for both roles, and ends with one JSON line:

- `row_use`: share of the decoded rows that belong to a sequence which has not ended.
- `steps`: decode steps. `row_steps`: their rows, over all shards.
- `valid_share`: of the cache positions that attention reads, those that hold a token of a sequence
  that has not ended; prompts, which are shared, are not counted.
- `given_share`: of the candidates' tokens that are read with padding, those that are real; of the
  Judge alone. `prompt_share`: the same of the prompts.
- `programs`: distinct programs and shapes.
"""

import collections
import json
import pathlib
from typing import Any

import jax
import numpy as np
from absl import app, flags
from jax.sharding import Mesh
from jaxtyping import Int

from sejax import models
from sejax.parallel import hosts
from sejax.parallel.programs import Program
from sejax.rollout import padded_length
from sejax.sampling import (
  Options,
  Request,
  Role,
  Sampler,
  decode,
  keys,
  packing,
  record_hashes,
  scheduler,
)

_LENGTHS = flags.DEFINE_string("lengths", None, "File of lengths.")
_DISTRIBUTION = flags.DEFINE_string("distribution", "mid", "Which of its distributions.")
_SHARDS = flags.DEFINE_integer("shards", 8, "Row shards of the mesh.", lower_bound=1)
_CONCURRENT = flags.DEFINE_integer("max_concurrent_prompts", 64, "As config.sampling has it.")
_STEPS = flags.DEFINE_integer("decode_steps", 32, "As config.sampling has it.")

PROMPT_TOKENS, REPLY, VERDICT = 1024, 2048, 1024  # limits of the released run


class Simulation:
  """Stands in for a `ProgramCache`: does to lengths what the sampler's programs do.

  Attributes:
    seconds: as of a `ProgramCache`; nothing is compiled.
    tally: sums of what was issued.
  """

  def __init__(self, mesh: Mesh, shards: int):
    self.seconds = 0.0
    self.tally = collections.Counter()
    self._mesh, self._shards = mesh, shards
    self._issued: set[Any] = set()
    self._cache_length = 0
    self._rows: packing.PromptRows | None = None

  @property
  def count(self) -> int:
    """Distinct programs and shapes so far."""
    return len(self._issued)

  def call(self, program: Program, *args: Any) -> Any:
    """Does what a program does to lengths."""
    shapes = tuple(np.shape(x) for x in jax.tree.leaves(args))
    self._issued.add((program, shapes))
    simulate = {
      keys.sequence_keys: self._sequence_keys,
      packing.empty_state: self._empty_state,
      packing.prefill: self._prefill,
      packing.insert: self._insert,
      packing.repack: self._repack,
      decode.decode_tokens: self._decode,
    }[program.function]
    return simulate(dict(program.static), *args)

  def _sequence_keys(self, static, seed, step, role, records, trajectory, repeat):
    del static, seed, step, role, repeat
    return np.zeros((len(records), len(trajectory), 2), np.uint32)

  def _empty_state(self, static):
    self._cache_length = static["cache_length"]
    rows = (static["slots"], static["members"])
    return _state(np.zeros(static["slots"], int), *np.zeros((3, *rows), int), used=0)

  def _prefill(self, static, params, rows, index):
    del static, params
    at = self._of_shards(np.asarray(index), len(rows.lengths) // self._shards)
    lengths, limit = np.asarray(rows.lengths)[at], np.asarray(rows.limit)[at]
    given = np.zeros_like(limit)
    self.tally["prompt_real"] += lengths.sum()
    self.tally["prompt_read"] += lengths.size * rows.ids.shape[1]
    if rows.given is not None:
      given = np.asarray(rows.given_lengths)[at]
      self.tally["given_real"] += given.sum()
      self.tally["given_read"] += given.size * rows.given.shape[-1]
    return _state(lengths, given, np.zeros_like(limit), limit, used=0)

  def _insert(self, static, state, groups, slots):
    del static
    size = len(state.limit) // self._shards
    slots = np.asarray(slots)
    at = self._of_shards(slots, size)[slots < size]

    def put(x, new):
      x = x.copy()
      x[at] = new[slots < size]
      return x

    return _state(
      put(state.prefix, groups.prefix),
      put(state.cache.lengths, groups.cache.lengths),
      put(state.num_sampled, groups.num_sampled),
      put(state.limit, groups.limit),
      used=int(state.cache.used),
    )

  def _repack(self, static, state, sources, active, used):
    del static, active
    sources = np.asarray(sources)
    slots, members = np.divmod(sources, state.limit.shape[1])
    rows = slots + self._first(len(sources), len(state.limit) // self._shards)[:, None]
    return _state(
      state.prefix[rows[:, 0]],
      state.cache.lengths[rows, members],
      state.num_sampled[rows, members],
      state.limit[rows, members],
      used=int(used),
    )

  def _decode(self, static, params, state, active, thresholds):
    del params
    active = np.asarray(active) & (state.num_sampled < state.limit)
    cached, sampled, used = state.cache.lengths.copy(), state.num_sampled.copy(), state.cache.used
    sizes, thresholds = np.array(scheduler.sizes(active.shape[1])), np.asarray(thresholds)
    used, steps = int(used), 0
    while steps < static["steps"] and used < self._cache_length:
      needed = -(-active.sum(-1, keepdims=True) // sizes)
      if not (needed.reshape(self._shards, -1, len(sizes)).sum(1).max(0) > thresholds).all():
        break
      self.tally["active"] += active.sum()
      sampled += active
      active = active & (sampled < state.limit)
      cached += active
      used, steps = used + 1, steps + 1
      self.tally["valid"] += cached[active].sum()
    self.tally["steps"] += steps
    self.tally["row_steps"] += steps * active.size
    self.tally["read"] += steps * active.size * static["attended_length"]
    empty = np.zeros((*active.shape, static["steps"]), np.int32)
    tokens = hosts.shard_identical(self._mesh, empty)
    status = decode.Status(active, sampled, cached, np.int32(steps))
    return (
      _state(state.prefix, cached, sampled, state.limit, used=used),
      decode.SampledTokens(tokens, tokens, tokens),
      jax.tree.map(lambda x: hosts.replicate(self._mesh, x), status),
    )

  def _of_shards(self, index: Int[np.ndarray, " n"], size: int) -> Int[np.ndarray, " n"]:
    """Converts indices within each shard, of so many rows, to those of all rows."""
    return index + self._first(len(index), size)

  def _first(self, count: int, size: int) -> Int[np.ndarray, " n"]:
    return np.repeat(np.arange(self._shards) * size, count // self._shards)


def _state(prefix, cached, sampled, limit, *, used: int) -> decode.State:
  """Returns a state that has lengths alone."""
  cache = models.Cache(keys=None, values=None, valid=None, lengths=cached, used=used)
  return decode.State(
    prefix=prefix, cache=cache, hidden=None, keys=None, num_sampled=sampled, limit=limit
  )


def simulate(
  lengths: Int[np.ndarray, "B G"],
  prompts: Int[np.ndarray, " B"],
  given: Int[np.ndarray, "B G"] | None,
  *,
  limit: int,
) -> dict[str, float]:
  """Returns the figures of a role.

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
    max_concurrent_prompts=_CONCURRENT.value,
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
  }
  if given is not None:
    figures["given_share"] = tally["given_real"] / tally["given_read"]
  return {name: round(float(value), 3) for name, value in figures.items()}


def main(argv: list[str]) -> None:
  """Simulates both roles and prints."""
  del argv
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_num_cpu_devices", _SHARDS.value)
  read = json.loads(pathlib.Path(_LENGTHS.value).read_text(encoding="utf-8"))
  prompts = np.minimum(read["prompt_tokens"], PROMPT_TOKENS)
  chosen = {name: np.array(x) for name, x in read[_DISTRIBUTION.value].items()}
  result = {
    "actor": simulate(chosen["reply"], prompts, None, limit=REPLY),
    "judge": simulate(chosen["verdict"], prompts, chosen["reply"], limit=VERDICT),
  }
  for role, figures in result.items():
    print(role, *(f"{name} {value:g}" for name, value in figures.items()), sep="  ")
  print(json.dumps({"distribution": _DISTRIBUTION.value, "shards": _SHARDS.value} | result))


if __name__ == "__main__":
  flags.mark_flag_as_required("lengths")
  app.run(main)
