"""The sampler: generates G sequences for each of B prompts with continuous batching.

Each prompt is prefilled once and its prefix shared by its group. All active sequences are decoded
together, for `decode_steps` tokens at a time. In between, the host reads which sequences are still
active, repacks these into a smaller device batch, and admits waiting prompts to free slots. Batch
shapes come from a short list, so that few programs are compiled. The steps between two host
synchronisations are a decode run, at most `decode_steps` long.

Axes: B prompts of this process, G sequences of a group, P prompt tokens, T given tokens, R new
tokens, N row shards.
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
from jax.sharding import Mesh
from jaxtyping import Array, DTypeLike, Int, Int32

from sejax import models
from sejax.parallel import hosts, layouts
from sejax.parallel.programs import ProgramCache
from sejax.sampling import keys, packing
from sejax.sampling.programs import SamplerPrograms
from sejax.sampling.request import BatchPlan, Options, Request, check
from sejax.sampling.result import OutputBuffer, Result, Stats, StopStrings
from sejax.sampling.scheduler import Schedule, sizes, smallest_size

# Callback that receives this process's tokens `[B,G,R]` and lengths `[B,G]` so far.
Watch = Callable[[Int[np.ndarray, "B G R"], Int[np.ndarray, "B G"]], None]


class Sampler:
  """Samples from one model; keeps its compiled programs between calls.

  Attributes:
    programs: the sampler's device programs.
    compiled: cache of programs compiled ahead of time, with their count and seconds; `encode` does
      not use it.
  """

  def __init__(
    self,
    model: models.Model,
    options: Options,
    mesh: Mesh | None = None,
    dtype: DTypeLike = jnp.float32,
  ):
    """Creates a sampler and checks its options; nothing is compiled yet.

    Args:
      mesh: mesh with any of the axes data, fsdp and tensor; None is the first device.
      dtype: precision of weights and KV cache.

    Raises:
      ValueError: an option cannot work; the message names it, its value and what would work.
    """
    self.options, self.dtype = options, dtype
    self.mesh = mesh or Mesh(np.array(jax.local_devices()[:1]), ("data",))
    self.model = dataclasses.replace(model, rows=layouts.row_sharding(self.mesh))
    self.programs = SamplerPrograms(self.model, options, self.mesh, dtype)
    self.compiled = ProgramCache()
    self._shards = layouts.row_shards(self.mesh)
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

  def encode(self, params: models.Params, images: models.Images) -> models.Features:
    """Returns the features of this process's images, on the mesh.

    Args:
      params: parameter tree, in any layout and precision.
    """
    images = jax.tree.map(lambda x: hosts.shard_rows(self.mesh, x), images)
    return self.programs.encode(self.model.vision_params(params), images)

  def __call__(
    self,
    params: models.Params,
    request: Request,
    *,
    seed: int,
    step: int,
    role: keys.Role,
    stop: StopStrings | None = None,
    watch: Watch | None = None,
  ) -> Result:
    """Samples G sequences for each prompt.

    Every process must call it, each with its own prompts. Seed, step, role and record decide the
    samples of a prompt, whatever batch it is in, see `keys`.

    Args:
      params: parameter tree, in any layout and precision.
      seed: seed of the training run, from 0 to 2**32 - 1.
      step: step of the training run.
      stop: strings that end a sequence; checked at each host synchronisation.
      watch: callback for progress, called at each host synchronisation.

    Raises:
      ValueError: seed or request cannot work; the message names the field, its value and what would
        work. Nothing was compiled then.
    """
    if not 0 <= seed < 2**32:
      raise ValueError(f"seed is {seed}; it must be from 0 to 2**32 - 1")
    check(request, self.options, self.model, self.mesh)
    loop = _SamplingLoop(
      sampler=self, params=params, request=request, seed=seed, step=step, role=role, stop=stop
    )
    while not loop.is_done():
      loop.run_step()
      if watch:
        watch(loop.outputs.tokens, loop.outputs.lengths)
    return loop.result()


class _SamplingLoop:
  """Host-side loop of one sampler call: admits prompts, repacks the batch, decodes.

  Each `run_step` covers one decode run.
  """

  def __init__(
    self,
    *,
    sampler: Sampler,
    params: models.Params,
    request: Request,
    seed: int,
    step: int,
    role: keys.Role,
    stop: StopStrings | None,
  ):
    self._stop = stop
    self._options, self._mesh = sampler.options, sampler.mesh
    self._programs, self._compiled = sampler.programs, sampler.compiled
    self._seconds: Counter[str] = Counter()
    self._programs_before, self._compiling_before = self._compiled.count, self._compiled.seconds
    self._steps = self._row_steps = self._repacks = 0

    with self._stage("layout"):
      self._params = layouts.place(params, self._mesh, sampler.model.decode_layout, sampler.dtype)
      self._rows = self._shard_prompts(request, seed, step, role)
      jax.block_until_ready((self._params, self._rows))

    num_prompts, prompt_length = request.prompt.ids.shape
    shards, local_shards = sampler._shards, hosts.local_shards(self._mesh)
    members = self._options.members
    self._prompts_per_shard = num_prompts // len(local_shards)
    given_length = 0 if request.given is None else request.given.shape[-1]
    self._plan = BatchPlan.of(self._options, self._prompts_per_shard, shards, given_length)
    self._admitted = 0  # prompts of each shard
    self._used = given_length  # cache positions, see `models.Cache`
    self.outputs = OutputBuffer(
      num_prompts,
      members,
      self._options.max_new_tokens,
      pad_id=self._options.pad_id,
      shards=local_shards,
    )
    self._schedule = Schedule.empty(shards, self._plan.capacity, members)
    self._state = self._compiled.call(
      self._programs.empty_state(
        slots=shards * self._plan.capacity,
        prompt_length=prompt_length,
        cache_length=self._plan.cache_length,
      )
    )

  def is_done(self) -> bool:
    """Returns whether every prompt was admitted and every sequence has ended."""
    return self._waiting == 0 and not self._schedule.active.any()

  def run_step(self) -> None:
    """Repacks the batch and admits prompts where possible, then decodes `decode_steps` tokens."""
    slots_needed = self._schedule.slots_needed(self._options.members)
    can_admit = self._waiting > 0 and slots_needed <= self._plan.capacity - self._plan.admit_size
    shape = self._target_shape(can_admit)
    reshape = shape != self._schedule.active.shape[1:]
    # Prompts are admitted to the slots after the occupied ones, so these must be packed first.
    # Before the first admission no slot is occupied.
    if reshape or self._cache_runs_short or (can_admit and self._admitted):
      self._repack(*shape, min_used=self._plan.given_length if can_admit else 0)
    while (
      can_admit and self._waiting and self._free_slots >= min(self._plan.admit_size, self._waiting)
    ):
      self._admit()
    self._decode()

  def result(self) -> Result:
    """Returns the sampled sequences of this process's prompts."""
    compiling = self._compiled.seconds - self._compiling_before
    stats = Stats(
      programs=self._compiled.count - self._programs_before,
      steps=self._steps,
      row_steps=self._row_steps,
      repacks=self._repacks,
      seconds={**self._seconds, "compile": compiling},
    )
    return self.outputs.result(self._options.eos_ids, self._options.pad_id, stats)

  @property
  def _waiting(self) -> int:
    """Prompts of each shard that have not been admitted."""
    return self._prompts_per_shard - self._admitted

  @property
  def _free_slots(self) -> int:
    """Free slots of the fullest shard."""
    return self._plan.capacity - self._schedule.slots_needed(self._options.members)

  @property
  def _cache_runs_short(self) -> bool:
    """Whether the next decode run lacks cache positions, and aligning the caches frees some."""
    remaining = self._options.max_new_tokens - self._schedule.fewest_sampled
    wanted = min(self._options.decode_steps, remaining)
    is_short = self._used + wanted > self._plan.cache_length
    return is_short and self._used > self._schedule.longest_cached

  def _target_shape(self, can_admit: bool) -> tuple[int, int]:
    """Returns the slots of a shard and the sequences of a slot that the batch should have now.

    Admission needs the full shape. Otherwise it is the shape with the fewest rows, then with the
    fewest slots, and the current one if none has fewer rows.
    """
    capacity, full_members = self._plan.capacity, self._options.members
    current = self._schedule.active.shape[1:]
    if can_admit or not self._options.pack:
      return capacity, full_members
    shapes = []
    for members in sizes(full_members):
      needed = self._schedule.slots_needed(members)
      if needed <= capacity:
        # While prompts wait, only the members of a slot shrink: slots will be needed again.
        slots = capacity if self._waiting else smallest_size(needed, capacity)
        shapes.append((slots, members))
    best = min(shapes, key=lambda shape: (math.prod(shape), shape))
    return best if math.prod(best) < math.prod(current) else current

  def _repack(self, slots: int, members: int, min_used: int) -> None:
    """Moves the active sequences into a batch of this shape and aligns their caches.

    Args:
      slots: slots of a shard.
      members: sequences of a slot.
      min_used: minimum number of cache positions in use afterwards.
    """
    in_place = (slots, members) == self._schedule.active.shape[1:]
    with self._stage("pack"):
      self._schedule, sources = self._schedule.repack(slots, members)
      self._used = max(self._schedule.longest_cached, min_used)
      self._state = self._compiled.call(
        self._programs.repack(in_place=in_place),
        self._state,
        self._shard(sources),
        self._shard(self._schedule.active),
        hosts.replicate(self._mesh, np.int32(self._used)),
      )
      self._repacks += 1

  def _admit(self) -> None:
    """Prefills the next `admit_size` prompts of each shard and inserts them into free slots."""
    with self._stage("prefill"):
      prompts = range(self._admitted, self._admitted + self._plan.admit_size)
      self._schedule, slots = self._schedule.admit(prompts, self._prompts_per_shard)
      index = np.broadcast_to(np.minimum(prompts, self._prompts_per_shard - 1), slots.shape)
      groups = self._compiled.call(
        self._programs.prefill(given=self._rows.given is not None),
        self._params,
        self._rows,
        self._shard(index),
      )
      state = self._state._replace(
        cache=self._state.cache._replace(used=hosts.replicate(self._mesh, np.int32(self._used)))
      )
      self._state = self._compiled.call(self._programs.insert, state, groups, self._shard(slots))
      self._admitted = min(self._admitted + self._plan.admit_size, self._prompts_per_shard)
      jax.block_until_ready(self._state)

  def _decode(self) -> None:
    """Decodes up to `decode_steps` tokens, collects them, and updates the schedule."""
    with self._stage("decode"):
      self._state, sampled, status = self._compiled.call(
        self._programs.decode(attended_length=self._attended_length()),
        self._params,
        self._state,
        self._shard(self._schedule.active),
        hosts.replicate(self._mesh, self._repack_thresholds()),
      )
      status = jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), status)
      sampled = jax.tree.map(hosts.to_host, sampled)
    shape = self._schedule.active.shape
    num_sampled = status.num_sampled.reshape(shape)
    stopped = self.outputs.add(self._schedule, num_sampled, sampled, self._stop)
    if self._stop:
      stopped = hosts.any_process(stopped)
    self._schedule = self._schedule._replace(
      active=status.active.reshape(shape) & ~stopped,
      num_sampled=num_sampled,
      num_cached=status.num_cached.reshape(shape),
    )
    steps = int(status.steps)
    self._used += steps
    self._steps += steps
    self._row_steps += steps * math.prod(shape)

  def _repack_thresholds(self) -> Int32[np.ndarray, " n"]:
    """Returns the slot counts at which a decode run should end early, see `decode_tokens`.

    They are the slots of the largest batch shapes with fewer rows than the current one, and those
    that leave room to admit waiting prompts.
    """
    slots, members = self._schedule.active.shape[1:]
    thresholds = np.full(len(sizes(members)), -1, np.int32)
    if self._options.pack:
      allowed = [self._plan.capacity] if self._waiting else [0, *sizes(self._plan.capacity)]
      for i, size in enumerate(sizes(members)):
        thresholds[i] = max((n for n in allowed if n * size < slots * members), default=-1)
    # With whole groups in a slot: room for the next prompts, or nothing left to decode.
    enough = self._plan.capacity - self._plan.admit_size if self._waiting else 0
    thresholds[-1] = max(thresholds[-1], enough)
    return thresholds

  def _attended_length(self) -> int:
    """Returns the leading cache positions that the next decode run attends to.

    A multiple of `decode_steps` that doubles, so that few programs are compiled.
    """
    steps, cache_length = self._options.decode_steps, self._plan.cache_length
    decode_runs = -(-self._used // steps) + 1
    return min(cache_length, steps * smallest_size(decode_runs, cache_length))

  def _shard_prompts(
    self, request: Request, seed: int, step: int, role: keys.Role
  ) -> packing.PromptRows:
    """Shards this process's prompts and their random keys over the mesh."""
    options, prompt = self._options, request.prompt
    member = np.arange(options.members, dtype=np.int32)
    sequence_keys = self._compiled.call(
      self._programs.sequence_keys,
      np.uint32(seed),
      np.uint32(step),
      np.uint32(role),
      request.record_hashes,
      member // options.repeats,
      member % options.repeats,
    )
    limits = request.limits
    if limits is None:
      limits = np.full((len(prompt.ids), options.members), options.max_new_tokens)
    given, given_lengths = request.given, request.given_lengths
    if given is not None:
      # Each repeat of a trajectory starts with the same tokens.
      given = np.repeat(given, options.repeats, axis=1)
      given_lengths = np.repeat(given_lengths, options.repeats, axis=1).astype(np.int32)
    rows = packing.PromptRows(
      ids=prompt.ids,
      lengths=prompt.lengths,
      positions=np.moveaxis(np.asarray(prompt.positions), 0, 1),
      features=request.features,
      given=given,
      given_lengths=given_lengths,
      keys=np.asarray(sequence_keys),
      limit=limits.astype(np.int32),
    )
    return jax.tree.map(lambda x: hosts.shard_rows(self._mesh, x), rows)

  def _shard(self, x: np.ndarray) -> Array:
    """Shards an array `[N,B,...]` that is identical on every process as rows `[N*B,...]`."""
    x = x.reshape(-1, *x.shape[2:])
    return hosts.shard_identical(self._mesh, x.astype(bool if x.dtype == bool else np.int32))

  @contextlib.contextmanager
  def _stage(self, name: str) -> Iterator[None]:
    """Adds the time of the enclosed code to a stage, without the compilation in it."""
    start, compiling = time.perf_counter(), self._compiled.seconds
    yield
    self._seconds[name] += time.perf_counter() - start - (self._compiled.seconds - compiling)
