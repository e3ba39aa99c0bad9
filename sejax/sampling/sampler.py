"""The sampler: G trajectories for each of B prompts, for Actor, Judge and evaluation alike.

Prompts are read in groups of a few and decoded together, in runs of tokens. Between runs the host
learns who still lives: the living are packed into a smaller state, and prompts that wait enter when
there is room for some. Shapes come from a short list, so programs are few.

Axes: B prompts of this process, G members of a group, P prompt tokens, T given tokens, R new ones.
"""

import contextlib
import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, DTypeLike, Float, Int, UInt32

from sejax.models import qwen2_5_vl as qwen
from sejax.parallel import hosts, layouts
from sejax.sampling import decode, keys, packing
from sejax.sampling.filters import Filters
from sejax.sampling.programs import Programs
from sejax.sampling.result import Gatherer, Result, Stats, Stop
from sejax.sampling.table import Table, fit, smaller

# Is told tokens `[B,G,R]` and lengths `[B,G]` so far, of this process.
Watch = Callable[[Int[np.ndarray, "B G R"], Int[np.ndarray, "B G"]], None]


@dataclasses.dataclass(frozen=True)
class Options:
  """How to sample.

  Attributes:
    trajectories: of each prompt.
    new_tokens: drawn for a trajectory at most, R.
    filters: what the distribution becomes before a token is drawn.
    eos_ids: tokens that end a trajectory.
    pad_id: what fills up the rows; may be an EOS id.
    repeats: samples of each trajectory number, such as readings of the same candidate; G is
      trajectories x repeats, repeats of one trajectory side by side.
    context: prompt, given and new tokens together, at most; the model's own limit, if None.
    groups: prompts decoded at once, over all devices; others wait. All of them, if None.
    run: tokens drawn between two looks of the host.
    pack: make the state smaller as trajectories end.
  """

  trajectories: int
  new_tokens: int
  filters: Filters = dataclasses.field(default_factory=Filters)
  eos_ids: tuple[int, ...] = ()
  pad_id: int = 0
  repeats: int = 1
  context: int | None = None
  groups: int | None = None
  run: int = 32
  pack: bool = True

  def __post_init__(self):
    for name in ("trajectories", "new_tokens", "repeats", "context", "groups", "run"):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise ValueError(f"options.{name} is {value}; it must be at least 1")

  @property
  def members(self) -> int:
    """Trajectories and their repeats in one group, G."""
    return self.trajectories * self.repeats


class Request(NamedTuple):
  """What to sample from: this process's prompts.

  Attributes:
    prompt: the prompts. All processes bring the same shapes.
    records: of each prompt, from `keys.record_hashes`.
    features: of the prompts' images, from `encode`; None where there is none.
    given: tokens that a trajectory (each of its repeats) begins with, padded on the right.
    given_lengths: real ones of these.
    limits: tokens to draw, where fewer than `new_tokens` will do; 0 for a row that only pads.
  """

  prompt: qwen.Prompt
  records: UInt32[np.ndarray, "B 2"]
  features: Float[Array, "B s D"] | None = None
  given: Int[np.ndarray, "B G T"] | None = None
  given_lengths: Int[np.ndarray, "B G"] | None = None
  limits: Int[np.ndarray, "B G"] | None = None


class Sampler:
  """Samples from one model; keeps its compiled programs from call to call."""

  def __init__(
    self,
    config: qwen.Config,
    options: Options,
    mesh: Mesh | None = None,
    dtype: DTypeLike = jnp.float32,
  ):
    """Checks the options.

    Args:
      config: the model.
      options: how to sample.
      mesh: with axes data, fsdp and tensor, or some of them; the first device, if None.
      dtype: of weights and cache.

    Raises:
      ValueError: naming the option, its value and what would work.
    """
    self.config, self.options, self.dtype = config, options, dtype
    self.mesh = mesh or Mesh(np.array(jax.local_devices()[:1]), ("data",))
    self.programs = Programs()
    self._shards = layouts.row_shards(self.mesh)
    self._specs = decode.specs(config, self.mesh)
    vocabulary = config.text.vocab_size
    options.filters.check(vocabulary)
    if outside := [i for i in options.eos_ids if not 0 <= i < vocabulary]:
      raise ValueError(
        f"options.eos_ids holds {outside[0]}; ids run from 0 to vocab_size - 1 = {vocabulary - 1}"
      )
    if options.groups is not None and options.groups < self._shards:
      raise ValueError(
        f"options.groups is {options.groups}; the mesh splits rows into {self._shards} shards, and"
        " each decodes at least one group"
      )

  def __call__(
    self,
    params: qwen.Params,
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
    self._check(request, seed)
    loop = _Loop(self, request, (seed, step, int(role)), params, stop)
    while loop.going():
      loop.run()
      if watch:
        watch(loop.gatherer.tokens, loop.gatherer.lengths)
    return loop.result()

  def _check(self, request: Request, seed: int) -> None:
    options, prompt = self.options, request.prompt
    size, width = prompt.ids.shape
    given = 0 if request.given is None else request.given.shape[-1]
    context = options.context or self.config.text.max_position_embeddings
    if width + given + options.new_tokens > context:
      raise ValueError(
        f"prompts of {width}, {given} given and options.new_tokens={options.new_tokens} tokens are"
        f" more than the context of {context}; at most {context - width - given} new tokens fit"
      )
    local = len(hosts.local_shards(self.mesh))
    if size == 0 or size % local:
      raise ValueError(
        f"request.prompt has {size} rows; the mesh needs a multiple of {local}: pad with rows whose"
        " limits are 0"
      )
    shapes = {
      "records": (size, 2),
      "given": (size, options.trajectories, given),
      "given_lengths": (size, options.trajectories),
      "limits": (size, options.members),
    }
    for name, shape in shapes.items():
      value = getattr(request, name)
      if value is not None and value.shape != shape:
        raise ValueError(f"request.{name} has shape {value.shape}; it must be {shape}")
    if (request.given is None) != (request.given_lengths is None):
      raise ValueError("request.given and request.given_lengths go together; one is None")
    _require_range("prompt.lengths", prompt.lengths, 1, width)
    _require_range("given_lengths", request.given_lengths, 0, given)
    _require_range("limits", request.limits, 0, options.new_tokens)
    if not 0 <= seed < 2**32:
      raise ValueError(f"seed is {seed}; it must be from 0 to 2**32 - 1")
    hosts.require_equal("rows, prompt tokens and given tokens of a request", size, width, given)


def _require_range(name: str, values: Int[np.ndarray, "..."] | None, low: int, high: int) -> None:
  if values is None:
    return
  values = np.asarray(values)
  bad = values[(values < low) | (values > high)]
  if bad.size:
    raise ValueError(f"request.{name} holds {bad[0]}; it must be from {low} to {high}")


class _Loop:
  """One call of the sampler: the host's side of it."""

  def __init__(
    self,
    sampler: Sampler,
    request: Request,
    stream: tuple[int, int, int],
    params: qwen.Params,
    stop: Stop | None,
  ):
    self._stop = stop
    self._sampler, self._options, self._mesh = sampler, sampler.options, sampler.mesh
    self._programs, self._config = sampler.programs, sampler.config
    self._seconds: Counter[str] = Counter()
    self._compiled_before = self._programs.count, self._programs.seconds
    self._steps = self._row_steps = self._moves = 0

    with self._stage("layout"):
      self._params = layouts.place(params, self._mesh, layouts.DECODE, sampler.dtype)
      self._rows = self._place_rows(request, stream)
      jax.block_until_ready((self._params, self._rows))

    size, self._width = request.prompt.ids.shape
    self._shards = sampler._shards
    local = hosts.local_shards(self._mesh)
    members = self._options.members
    self._total = size // len(local)
    groups = self._options.groups or self._total * self._shards
    self._capacity = min(self._total, groups // self._shards)
    self._unit = max(1, self._capacity // 4)
    self._entered = 0
    self._given = 0 if request.given is None else request.given.shape[-1]
    self._slots = self._given + self._options.new_tokens
    if self._capacity < self._total:
      self._slots += self._options.run  # So that the oldest never keeps others from a whole run.
    self._used = self._given
    self.gatherer = Gatherer(size, members, self._options.new_tokens, self._options.pad_id, local)
    self._table = Table.empty(self._shards, self._capacity, members)
    self._state = self._programs(
      packing.empty,
      out_shardings=self._shardings(sampler._specs),
      config=self._config,
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
    refill = self._waiting > 0 and self._table.groups <= self._capacity - self._unit
    groups, members = self._shape(refill)
    reshape = (groups, members) != self._table.alive.shape[1:]
    if reshape or self._short_of_slots or (refill and self._entered):
      self._move(groups, members, self._given if refill else 0)
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
    return self._table.alive.shape[1] - self._table.groups

  @property
  def _short_of_slots(self) -> bool:
    """Whether the next run wants more slots than are free, and aligning would free some."""
    wanted = min(self._options.run, self._options.new_tokens - self._table.youngest)
    return self._used + wanted > self._slots and self._used > self._table.longest

  def _shape(self, refill: bool) -> tuple[int, int]:
    """Returns the shape that the state should have now."""
    full = self._capacity, self._options.members
    if refill or not self._options.pack:
      return full
    groups = self._table.groups + (self._capacity if self._waiting else 0)
    return fit(groups, full[0]), fit(self._table.members, full[1])

  def _move(self, groups: int, members: int, least: int) -> None:
    """Packs the living; at least so many slots are used afterwards."""
    with self._stage("pack"):
      self._table, moves = self._table.pack(groups, members)
      self._used = max(self._table.longest, least)
      flat = (moves.groups, moves.members, self._table.alive)
      self._state = self._programs(
        packing.move,
        self._state,
        *(self._split(x) for x in flat),
        hosts.known(self._mesh, np.int32(self._used)),
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
        config=self._config,
        mesh=self._mesh,
      )
      state = self._state._replace(
        cache=self._state.cache._replace(used=hosts.known(self._mesh, np.int32(self._used)))
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
      few_groups, few_members = self._few()
      state, drawn, report = self._programs(
        decode.run,
        self._params,
        self._state,
        self._split(self._table.alive),
        *(hosts.known(self._mesh, np.int32(few)) for few in (few_groups, few_members)),
        donate=(1,),
        out_shardings=self._shardings(
          (self._sampler._specs, self._sampler._specs.count, PartitionSpec())
        ),
        config=self._config,
        mesh=self._mesh,
        settings=self._options.filters,
        eos_ids=self._options.eos_ids,
        steps=self._options.run,
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

  def _few(self) -> tuple[int, int]:
    """Returns how few groups and members must be left for a run to end early."""
    groups, members = self._table.alive.shape[1:]
    if self._waiting:
      few_groups = self._capacity - self._unit
    else:
      few_groups = smaller(groups) if self._options.pack else 0
    return few_groups, smaller(members) if self._options.pack else 0

  def _filled(self) -> int:
    """Returns how much of the cache the next run attends to: a multiple of its tokens, doubling."""
    runs = -(-self._used // self._options.run) + 1
    return min(self._slots, self._options.run * fit(runs, self._slots))

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
    return jax.tree.map(lambda x: hosts.to_mesh(self._mesh, x), rows)

  def _split(self, x: np.ndarray) -> Array:
    """Puts `[N,B,...]`, known to all processes, on the shards as `[N*B,...]`."""
    x = x.reshape(-1, *x.shape[2:])
    return hosts.known(self._mesh, x.astype(bool if x.dtype == bool else np.int32), split=True)

  def _shardings(self, specs: decode.State | tuple) -> decode.State | tuple:
    return jax.tree.map(lambda spec: NamedSharding(self._mesh, spec), specs)

  @contextlib.contextmanager
  def _stage(self, name: str) -> Iterator[None]:
    """Counts the time of a stage, without what was compiled in it."""
    start, compiling = time.perf_counter(), self._programs.seconds
    yield
    self._seconds[name] += time.perf_counter() - start - (self._programs.seconds - compiling)
