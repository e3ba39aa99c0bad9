"""The sampler: G trajectories for each of B prompts, for Actor, Judge and evaluation alike.

Prompts are read in groups of a few and decoded together, in runs of tokens. Between runs the host
learns who still lives: the living are packed into a smaller state, and prompts that wait enter when
there is room for some. Shapes come from a short list, so programs are few.

Axes: B prompts of this process, G members of a group, P prompt tokens, T given tokens, R new ones.
"""

import contextlib
import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, DTypeLike, Int, Int32

from sejax import models
from sejax.parallel import hosts, layouts
from sejax.sampling import decode, keys, packing
from sejax.sampling.programs import Programs
from sejax.sampling.request import Options, Plan, Request, check
from sejax.sampling.result import Gatherer, Result, Stats, Stop
from sejax.sampling.table import Table, fit, sizes

# Is told tokens `[B,G,R]` and lengths `[B,G]` so far, of this process.
Watch = Callable[[Int[np.ndarray, "B G R"], Int[np.ndarray, "B G"]], None]


class Sampler:
  """Samples from one model; keeps its compiled programs from call to call."""

  def __init__(
    self,
    model: models.Model,
    options: Options,
    mesh: Mesh | None = None,
    dtype: DTypeLike = jnp.float32,
  ):
    """Checks the options.

    Args:
      options: how to sample.
      mesh: with axes data, fsdp and tensor, or some of them; the first device, if None.
      dtype: of weights and cache.

    Raises:
      ValueError: naming the option, its value and what would work.
    """
    self.options, self.dtype = options, dtype
    self.mesh = mesh or Mesh(np.array(jax.local_devices()[:1]), ("data",))
    self.model = dataclasses.replace(model, rows=layouts.row_sharding(self.mesh))
    self.programs = Programs()
    self._shards = layouts.row_shards(self.mesh)
    self._specs = decode.specs(model, self.mesh)
    vocabulary = model.vocab_size
    options.filters.check(vocabulary)
    if outside := [i for i in options.eos_ids if not 0 <= i < vocabulary]:
      raise ValueError(
        f"options.eos_ids holds {outside[0]}; ids run from 0 to vocab_size - 1 = {vocabulary - 1}"
      )
    prompts = options.max_concurrent_prompts
    if prompts is not None and prompts < self._shards:
      raise ValueError(
        f"options.max_concurrent_prompts is {prompts}; the mesh splits rows into {self._shards}"
        " shards, and each decodes at least one prompt"
      )

  def __call__(
    self,
    params: models.Params,
    request: Request,
    *,
    seed: int,
    step: int,
    role: keys.Role,
    stop: Stop | None = None,
    watch: Watch | None = None,
  ) -> Result:
    """Samples; every process calls it, each with its own prompts.

    Args:
      params: the parameter tree, in any layout and precision.
      request: the prompts.
      seed: of the run, below 2**32.
      step: of the run; another step gives other samples.
      role: who samples.
      stop: strings that end a trajectory; looked for after each run.
      watch: called after each run with the tokens and lengths so far.

    Raises:
      ValueError: naming the field, its value and what would work; nothing is compiled then.
    """
    if not 0 <= seed < 2**32:
      raise ValueError(f"seed is {seed}; it must be from 0 to 2**32 - 1")
    check(request, self.options, self.model, self.mesh)
    loop = _Loop(self, request, (seed, step, int(role)), params, stop)
    while loop.going():
      loop.run()
      if watch:
        watch(loop.gatherer.tokens, loop.gatherer.lengths)
    return loop.result()


class _Loop:
  """One call of the sampler: the host's side of it."""

  def __init__(
    self,
    sampler: Sampler,
    request: Request,
    stream: tuple[int, int, int],
    params: models.Params,
    stop: Stop | None,
  ):
    self._stop = stop
    self._sampler, self._options, self._mesh = sampler, sampler.options, sampler.mesh
    self._programs, self._model = sampler.programs, sampler.model
    self._seconds: Counter[str] = Counter()
    self._compiled_before = self._programs.count, self._programs.seconds
    self._steps = self._row_steps = self._moves = 0

    with self._stage("layout"):
      self._params = layouts.place(params, self._mesh, self._model.decode_layout, sampler.dtype)
      self._rows = self._place_rows(request, stream)
      jax.block_until_ready((self._params, self._rows))

    size, self._width = request.prompt.ids.shape
    self._shards = sampler._shards
    local = hosts.local_shards(self._mesh)
    members = self._options.members
    self._total = size // len(local)
    given = 0 if request.given is None else request.given.shape[-1]
    plan = Plan.of(self._options, self._total, self._shards, given)
    self._capacity, self._unit, self._given, self._slots = plan
    self._entered = 0
    self._used = self._given
    self.gatherer = Gatherer(size, members, self._options.new_tokens, self._options.pad_id, local)
    self._table = Table.empty(self._shards, self._capacity, members)
    self._state = self._programs(
      packing.empty,
      out_shardings=self._shardings(sampler._specs),
      model=self._model,
      groups=self._shards * self._capacity,
      members=members,
      prompt=self._width,
      slots=self._slots,
      dtype=jnp.dtype(sampler.dtype),
    )

  def going(self) -> bool:
    """Returns whether anybody lives or waits."""
    return self._waiting > 0 or bool(self._table.alive.any())

  def run(self) -> None:
    """Packs and lets in who can be, then draws a run of tokens."""
    records = self._table.places(self._options.members)
    refill = self._waiting > 0 and records <= self._capacity - self._unit
    shape = self._shape(refill)
    reshape = shape != self._table.alive.shape[1:]
    if reshape or self._short_of_slots or (refill and self._entered):
      self._move(*shape, self._given if refill else 0)
    while refill and self._waiting and self._room >= min(self._unit, self._waiting):
      self._enter()
    self._decode()

  def result(self) -> Result:
    """Returns what was gathered."""
    programs, compiling = self._compiled_before
    seconds = {**self._seconds, "compile": self._programs.seconds - compiling}
    stats = Stats(
      self._programs.count - programs, self._steps, self._row_steps, self._moves, seconds
    )
    return self.gatherer.result(self._options.eos_ids, self._options.pad_id, stats)

  @property
  def _waiting(self) -> int:
    """Prompts of each shard that have not entered."""
    return self._total - self._entered

  @property
  def _room(self) -> int:
    return self._capacity - self._table.places(self._options.members)

  @property
  def _short_of_slots(self) -> bool:
    """Whether the next run wants more slots than are free, and aligning would free some."""
    wanted = min(self._options.decode_steps, self._options.new_tokens - self._table.youngest)
    return self._used + wanted > self._slots and self._used > self._table.longest

  def _shape(self, refill: bool) -> tuple[int, int]:
    """Returns the shape that the state should have now: of fewest rows, then of fewest places."""
    full, now = (self._capacity, self._options.members), self._table.alive.shape[1:]
    if refill or not self._options.pack:
      return full
    shapes = []
    for members in sizes(full[1]):
      places = self._table.places(members)
      if places <= self._capacity:
        shapes.append((self._capacity if self._waiting else fit(places, self._capacity), members))
    best = min(shapes, key=lambda shape: (math.prod(shape), shape))
    return best if math.prod(best) < math.prod(now) else now

  def _move(self, groups: int, members: int, least: int) -> None:
    """Packs the living; at least so many slots are used afterwards."""
    in_place = (groups, members) == self._table.alive.shape[1:]
    with self._stage("pack"):
      self._table, sources = self._table.pack(groups, members)
      self._used = max(self._table.longest, least)
      self._state = self._programs(
        packing.move,
        self._state,
        self._split(sources),
        self._split(self._table.alive),
        hosts.replicate(self._mesh, np.int32(self._used)),
        donate=(0,) if in_place else (),
        out_shardings=self._shardings(self._sampler._specs),
        mesh=self._mesh,
        specs=self._sampler._specs,
      )
      self._moves += 1

  def _enter(self) -> None:
    with self._stage("prefill"):
      records = range(self._entered, self._entered + self._unit)
      self._table, places = self._table.enter(records, self._total)
      index = np.broadcast_to(np.minimum(records, self._total - 1), places.shape)
      entry = self._programs(
        packing.enter,
        self._params,
        self._rows,
        self._split(index),
        model=self._model,
        mesh=self._mesh,
      )
      state = self._state._replace(
        cache=self._state.cache._replace(used=hosts.replicate(self._mesh, np.int32(self._used)))
      )
      self._state = self._programs(
        packing.insert,
        state,
        entry,
        self._split(places),
        donate=(0,),
        out_shardings=self._shardings(self._sampler._specs),
        mesh=self._mesh,
        specs=self._sampler._specs,
      )
      self._entered = min(self._entered + self._unit, self._total)
      jax.block_until_ready(self._state)

  def _decode(self) -> None:
    with self._stage("decode"):
      state, drawn, report = self._programs(
        decode.run,
        self._params,
        self._state,
        self._split(self._table.alive),
        hosts.replicate(self._mesh, self._few()),
        donate=(1,),
        out_shardings=self._shardings(
          (self._sampler._specs, self._sampler._specs.count, PartitionSpec())
        ),
        model=self._model,
        mesh=self._mesh,
        settings=self._options.filters,
        eos_ids=self._options.eos_ids,
        steps=self._options.decode_steps,
        filled=self._filled(),
      )
      self._state = state
      report = decode.Report(*(np.asarray(x.addressable_data(0)) for x in report))
      drawn = [hosts.to_host(x) for x in drawn]
    shape = self._table.alive.shape
    alive, count, lengths = (x.reshape(shape) for x in report[:3])
    stopped = self.gatherer.add(self._table, count, drawn, self._stop)
    if self._stop:
      stopped = hosts.any_process(stopped)
    self._table = self._table._replace(alive=alive & ~stopped, count=count, lengths=lengths)
    self._used += int(report.steps)
    self._steps += int(report.steps)
    self._row_steps += int(report.steps) * alive.size

  def _few(self) -> Int32[np.ndarray, " n"]:
    """Returns how few places let a run end early, as `decode.run` takes them.

    They are those of the largest states with fewer rows than now, or that let prompts enter.
    """
    groups, members = self._table.alive.shape[1:]
    few = np.full(len(sizes(members)), -1, np.int32)
    if self._options.pack:
      allowed = [self._capacity] if self._waiting else [0, *sizes(self._capacity)]
      for i, size in enumerate(sizes(members)):
        few[i] = max((n for n in allowed if n * size < groups * members), default=-1)
    few[-1] = max(few[-1], self._capacity - self._unit if self._waiting else 0)
    return few

  def _filled(self) -> int:
    """Returns how much of the cache the next run attends to: a multiple of its tokens, doubling."""
    runs = -(-self._used // self._options.decode_steps) + 1
    return min(self._slots, self._options.decode_steps * fit(runs, self._slots))

  def _place_rows(self, request: Request, stream: tuple[int, int, int]) -> packing.Rows:
    options, prompt = self._options, request.prompt
    member = np.arange(options.members, dtype=np.int32)
    numbers = (np.uint32(stream[0]), *(np.uint32(x) for x in stream[1:]))
    row_keys = self._programs(
      keys.trajectory_keys,
      *numbers,
      request.records,
      member // options.repeats,
      member % options.repeats,
    )
    shape = (len(prompt.ids), options.members)
    limits = np.full(shape, options.new_tokens) if request.limits is None else request.limits
    given = None if request.given is None else np.repeat(request.given, options.repeats, axis=1)
    given_lengths = request.given_lengths
    if given_lengths is not None:
      given_lengths = np.repeat(given_lengths, options.repeats, axis=1).astype(np.int32)
    rows = packing.Rows(
      ids=prompt.ids,
      lengths=prompt.lengths,
      positions=np.moveaxis(np.asarray(prompt.positions), 0, 1),
      features=request.features,
      given=given,
      given_lengths=given_lengths,
      keys=np.asarray(row_keys),
      limit=limits.astype(np.int32),
    )
    return jax.tree.map(lambda x: hosts.shard_rows(self._mesh, x), rows)

  def _split(self, x: np.ndarray) -> Array:
    """Puts `[N,B,...]`, known to all processes, on the shards as `[N*B,...]`."""
    x = x.reshape(-1, *x.shape[2:])
    return hosts.shard_identical(self._mesh, x.astype(bool if x.dtype == bool else np.int32))

  def _shardings(self, specs: decode.State | tuple) -> decode.State | tuple:
    return jax.tree.map(lambda spec: NamedSharding(self._mesh, spec), specs)

  @contextlib.contextmanager
  def _stage(self, name: str) -> Iterator[None]:
    """Counts the time of a stage, without what was compiled in it."""
    start, compiling = time.perf_counter(), self._programs.seconds
    yield
    self._seconds[name] += time.perf_counter() - start - (self._programs.seconds - compiling)
