"""The host's part of sampling: which sequences are read, decoded and written, run by run.

Axes as in `sampler`: B prompts of this process, G sequences of a group, T given tokens; N row
shards, R rows of a shard's batch, Q sequences of a shard, U rows that are read together.
"""

import contextlib
import functools
import time
from collections import Counter
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Array, Int, Int32

from sejax import models
from sejax.parallel import hosts, layouts
from sejax.parallel.programs import Program, ProgramCache, rounded_up
from sejax.sampling import cache, decode, keys
from sejax.sampling.forecast import forecast
from sejax.sampling.programs import DecodeSize, SamplerPrograms
from sejax.sampling.request import BatchPlan, Request
from sejax.sampling.result import (
  Finish,
  OutputBuffer,
  Progress,
  Result,
  Stats,
  StopStrings,
  Watch,
)
from sejax.sampling.scheduler import Schedule


class SamplingLoop:
  """Host-side loop of one sampler call: admits sequences, decodes, writes what was decoded.

  Each `run_step` covers one decode run.
  """

  def __init__(
    self,
    *,
    programs: SamplerPrograms,
    compiled: ProgramCache,
    params: models.Params,
    request: Request,
    seed: int,
    step: int,
    role: keys.Role,
    stop: StopStrings | None,
    watch: Watch | None,
  ):
    self._stop, self._request, self._watch = stop, request, watch
    self._options, self._mesh = programs.options, programs.mesh
    self._programs, self._compiled = programs, compiled
    self._seconds: Counter[str] = Counter()
    self._programs_before, self._compiling_before = self._compiled.count, self._compiled.seconds
    self._steps = self._row_steps = 0

    with self._stage("layout"):
      self._params = self._decoding_params(params)
      self._prompts, self._sequences = self._shard_prompts(request, seed, step, role)
      jax.block_until_ready((self._params, self._prompts, self._sequences))

    num_prompts, prompt_length = request.prompt.ids.shape
    self._shards, self._local = layouts.row_shards(self._mesh), hosts.local_shards(self._mesh)
    per_shard = num_prompts // len(self._local)
    given_length = 0 if request.given is None else request.given.shape[-1]
    self._plan = BatchPlan.of(
      self._options,
      prompts=per_shard,
      shards=self._shards,
      prompt_length=prompt_length,
      given_length=given_length,
    )
    self._outputs = OutputBuffer(
      num_prompts,
      self._options.members,
      self._options.max_new_tokens,
      pad_id=self._options.pad_id,
      shards=self._local,
      certainty=self._options.certainty_temperature is not None,
      watched=len(self._options.watched),
    )
    limits = self._plan.limits
    given, limit = (
      hosts.gather_shards(self._mesh, x).reshape(self._shards, -1)
      for x in (self._given_lengths(), self._limits())
    )
    self._schedule = Schedule(given, limit, self._options.members, limits)
    # As much as the first decode run writes.
    self._pages, self._places = self._programs.pages(limits.rows, limits), limits.prompts
    self._state = self._compiled.call(self._empty_state(self._places, self._pages))
    self._ended = 0.0  # share of the sequences that ended in the last decode run

  def _empty_state(self, prompts: int, pages: int) -> Program:
    """Returns the program that allocates a state with so many prompts and pages in a shard."""
    return self._programs.empty_state(
      prompts=self._shards * prompts,
      prompt_length=self._request.prompt.ids.shape[1],
      pages=self._shards * pages,
      sequences=len(self._sequences.limit),
    )

  def is_done(self) -> bool:
    """Returns whether every sequence was admitted and has ended."""
    return not self._schedule.waiting and not any(self._schedule.counts)

  def run_step(self) -> None:
    """Admits sequences where possible, then decodes up to `decode_steps` tokens."""
    admission = self._schedule.admit()
    if admission:
      with self._stage("read"):
        self._read_prompts(admission.prompts)
        self._fit_pages()
        self._read_given(admission.sequences)
        jax.block_until_ready(self._state)
    rows, steps, recent = self._decode()
    with self._stage("write"):
      self._write(rows, steps, recent)

  def _progress(self) -> Progress:
    outputs = self._outputs
    return Progress(
      tokens=outputs.tokens,
      lengths=outputs.lengths,
      complete=self._schedule.complete[self._local].reshape(-1),
      truncated=outputs.finish(self._options.eos_ids) == Finish.LENGTH,
    )

  def result(self) -> Result:
    """Returns the sampled sequences of this process's prompts."""
    if self._watch:
      self._watch(self._progress())
    compiling = self._compiled.seconds - self._compiling_before
    stats = Stats(
      programs=self._compiled.count - self._programs_before,
      steps=self._steps,
      row_steps=self._row_steps,
      evicted=self._schedule.evicted,
      seconds={**self._seconds, "compile": compiling},
    )
    return self._outputs.result(self._options.eos_ids, self._options.pad_id, stats)

  def _read_prompts(self, prompts: list[list[tuple[int, int]]]) -> None:
    """Reads admitted prompts, in parts of one size.

    Args:
      prompts: for each shard, pairs of a prompt and its place.
    """
    most = max(map(len, prompts))
    size = min(self._plan.read_prompts, rounded_up(max(most, 1), 1))
    none = (len(self._prompts.lengths) // self._shards, self._places)
    for start in range(0, most, size):
      part = np.full((self._shards, size, 2), none)
      for shard, pairs in enumerate(prompts):
        chosen = pairs[start : start + size]
        part[shard, : len(chosen)] = np.reshape(chosen, (-1, 2))
      prefix, hidden = self._compiled.call(
        self._programs.read_prompts,
        self._params,
        self._state.prefix,
        self._state.hidden,
        self._prompts,
        self._shard(part[..., 0]),
        self._shard(part[..., 1]),
      )
      self._state = self._state._replace(prefix=prefix, hidden=hidden)

  def _read_given(self, sequences: list[list[int]]) -> None:
    """Reads the tokens that admitted sequences start with; longest first, in parts of like length.

    These are given tokens, and of sequences that were evicted those that they sampled, too.
    """
    cached = self._schedule.num_cached
    left = [
      sorted((q for q in row if cached[shard, q]), key=lambda q: -cached[shard, q])
      for shard, row in enumerate(sequences)
    ]
    while any(left):
      longest = max(int(cached[shard, row[0]]) for shard, row in enumerate(left) if row)
      size, length = self._programs.given(longest)
      part = np.full((self._shards, size), cached.shape[1])
      for shard, row in enumerate(left):
        part[shard, : len(row[:size])] = row[:size]
      left = [row[size:] for row in left]
      width = length // self._options.page_size
      rows = cache.GivenRows(
        tokens=hosts.shard_rows(self._mesh, self._tokens_of(part[self._local], length)),
        lengths=self._shard(self._schedule.cached(part)),
        sequence=self._shard(part),
        place=self._shard(self._schedule.prompt_places(part)),
        pages=self._shard(
          self._schedule.pages_of(part, np.zeros_like(part), width, none=self._pages)
        ),
      )
      pages, hidden = self._compiled.call(
        self._programs.read_given,
        self._params,
        self._state.pages,
        self._state.hidden,
        self._state.prefix,
        rows,
      )
      self._state = self._state._replace(pages=pages, hidden=hidden)

  def _tokens_of(self, sequences: Int[np.ndarray, "n U"], length: int) -> Int32[np.ndarray, "nU T"]:
    """Returns the tokens so far of this process's sequences; zeros for those that are none."""
    given, given_lengths = self._request.given, self._given_lengths().reshape(-1)
    members, repeats = self._options.members, self._options.repeats
    per_shard = len(given_lengths) // len(sequences)
    tokens = np.zeros((*sequences.shape, length), np.int32)
    for (shard, row), sequence in np.ndenumerate(sequences):
      if sequence < per_shard:
        at = shard * per_shard + sequence
        prompt, member = divmod(at, members)
        count, sampled = given_lengths[at], self._outputs.lengths[prompt, member]
        if given is not None:
          tokens[shard, row, :count] = given[prompt, member // repeats, :count]
        tokens[shard, row, count : count + sampled] = self._outputs.tokens[prompt, member, :sampled]
    return tokens.reshape(-1, length)

  def _decode(self) -> tuple[Int[np.ndarray, "N R"], int, models.Recent]:
    """Decodes up to `decode_steps` tokens, collects them, and updates the schedule.

    Returns:
      The sequence of each row, the steps, and the keys and values of the new tokens.
    """
    schedule, options = self._schedule, self._options
    full = self._plan.limits.rows
    size = self._programs.rows(max(schedule.counts), full)
    is_shrinking = options.pack and not schedule.waiting
    smaller = self._programs.rows_below(size, full) if is_shrinking else 0
    # Where prompts have few rows left, their keys need not meet the queries of whole groups.
    members = options.members
    if is_shrinking:
      members = self._programs.members(schedule.most_members)
    rows = schedule.rows(size)
    sampled_before = schedule.sampled(rows)
    with self._stage("decode"):
      batch = decode.Batch(
        sequence=self._shard(rows),
        active=self._shard(schedule.is_sequence(rows)),
        num_sampled=self._shard(sampled_before),
        table=jax.tree.map(self._shard_flat, schedule.table(rows, self._pages, members)),
        stop_at_fullest=hosts.replicate(self._mesh, np.int32(smaller)),
        stop_at_total=hosts.replicate(self._mesh, np.int32(schedule.few)),
      )
      hidden, recent, sampled, status = self._compiled.call(
        self._programs.decode,
        self._params,
        self._state.hidden,
        self._state.prefix,
        self._state.pages,
        self._sequences,
        batch,
      )
      self._state = self._state._replace(hidden=hidden)
      if self._compiled.ahead.is_free:
        self._compile_ahead(DecodeSize(size, self._pages, self._places, members), is_shrinking)
      if self._watch:  # Before anything waits for the devices.
        self._watch(self._progress())
      status = jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), status)
      sampled = jax.tree.map(hosts.to_host, sampled)
    num_sampled, active = (x.reshape(rows.shape) for x in (status.num_sampled, status.active))
    counts = schedule.counts
    self._ended = 1 - active.sum() / sum(counts)
    before = [row[:n] for row, n in zip(sampled_before, counts, strict=True)]
    after = [row[:n] for row, n in zip(num_sampled, counts, strict=True)]
    stopped = self._outputs.add(schedule.running, before, after, sampled, self._stop)
    if self._stop:
      active = active & ~hosts.any_process(stopped)
    schedule.advance([row[:n] for row, n in zip(active, counts, strict=True)], after)
    steps = int(status.steps)
    self._steps += steps
    self._row_steps += steps * rows.size
    return rows, steps, recent

  def _compile_ahead(self, now: DecodeSize, is_shrinking: bool) -> None:
    """Compiles what the next decode runs may need, see `forecast`."""
    sizes = forecast(
      self._schedule,
      self._programs,
      self._plan.limits,
      now,
      is_shrinking=is_shrinking,
      ended=self._ended,
    )
    for size in sizes:
      state = self._empty_state(size.prompts, size.pages).eval_shape()
      args = self._programs.decode_args(self._params, state, self._sequences, size)
      self._compiled.guess(self._programs.decode, *args)

  def _write(self, rows: Int[np.ndarray, "N R"], steps: int, recent: models.Recent) -> None:
    """Writes the tokens of a decode run to pages, of the sequences that have not ended."""
    schedule, page_size = self._schedule, self._options.page_size
    schedule.evict()
    if not any(schedule.counts):
      return
    # While sequences wait, what has become free will be needed again.
    is_shrinking = self._options.pack and not schedule.waiting
    self._fit_pages(is_shrinking)
    if is_shrinking:
      self._shrink_prompts()
    number, start = np.divmod(np.maximum(schedule.cached(rows) - steps, 0), page_size)
    targets = schedule.pages_of(rows, number, self._programs.written_pages, none=self._pages)
    targets, start = self._shard(targets), self._shard(start)

    def write(x, new, spec):
      return self._compiled.call(self._programs.write(spec), x, new, recent.count, targets, start)

    new = models.Pages(recent.keys, recent.values)
    pages = jax.tree.map(write, self._state.pages, new, self._programs.specs.pages)
    self._state = self._state._replace(pages=pages)

  def _fit_pages(self, is_shrinking: bool = False) -> None:
    """Gives running sequences the pages they need, after changing the number of pages if need be.

    Args:
      is_shrinking: make it smaller, too.
    """
    pages = self._programs.pages(self._schedule.pages_needed, self._plan.limits)
    if pages > self._pages or (is_shrinking and pages < self._pages):
      self._take("pages", self._shard(self._schedule.compact_pages(self._pages, pages)))
      self._pages = pages
    self._schedule.allocate(self._pages)

  def _shrink_prompts(self) -> None:
    """Halves the prompts on the device, perhaps several times, when no more are needed."""
    places = self._programs.prompts(self._schedule.prompts_used, self._places)
    if places < self._places:
      self._take("prefix", self._shard(self._schedule.compact_prompts(places)))
      self._places = places

  def _take(self, kind: str, sources: Array) -> None:
    """Takes pages or prompts of the state, array by array, so that few bytes are there twice.

    Args:
      kind: field of the state.
      sources: the old index of each.
    """
    arrays, structure = jax.tree.flatten(getattr(self._state, kind))
    specs = structure.flatten_up_to(getattr(self._programs.specs, kind))
    self._state = self._state._replace(**{kind: None})
    for i, spec in enumerate(specs):
      program = self._programs.take(spec, arrays[i].ndim)
      arrays[i] = self._compiled.call(program, arrays[i], sources)
    self._state = self._state._replace(**{kind: structure.unflatten(arrays)})

  def _decoding_params(self, params: models.Params) -> models.Params:
    """Returns parameters in the layout, precision and form for decoding."""
    model = self._programs.model
    params = layouts.place(params, self._mesh, model.decode_layout, self._programs.dtype)
    if not model.layered_cache:
      return params
    layers = model.layers(params)
    return model.with_layers(params, self._compiled.call(self._programs.unstack(layers), layers))

  def _given_lengths(self) -> Int32[np.ndarray, "B G"]:
    """Returns the given tokens of each sequence of this process."""
    options, lengths = self._options, self._request.given_lengths
    if lengths is None:
      return np.zeros((len(self._request.prompt.ids), options.members), np.int32)
    # Each repeat of a trajectory starts with the same tokens.
    return np.repeat(lengths, options.repeats, axis=1).astype(np.int32)

  def _limits(self) -> Int32[np.ndarray, "B G"]:
    """Returns the most tokens that each sequence of this process may sample."""
    options, limits = self._options, self._request.limits
    if limits is None:
      shape = (len(self._request.prompt.ids), options.members)
      return np.full(shape, options.max_new_tokens, np.int32)
    return np.asarray(limits, np.int32)

  def _shard_prompts(
    self, request: Request, seed: int, step: int, role: keys.Role
  ) -> tuple[cache.PromptRows, decode.Sequences]:
    """Shards this process's prompts, their random keys and limits over the mesh."""
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
    prompts = cache.PromptRows(
      ids=prompt.ids,
      lengths=prompt.lengths,
      positions=np.moveaxis(np.asarray(prompt.positions), 0, 1),
      features=request.features,
    )
    sequences = decode.Sequences(
      keys=np.asarray(sequence_keys).reshape(-1, 2), limit=self._limits().reshape(-1)
    )
    shard_rows = functools.partial(hosts.shard_rows, self._mesh)
    return jax.tree.map(shard_rows, prompts), jax.tree.map(shard_rows, sequences)

  def _shard(self, x: np.ndarray) -> Array:
    """Shards an array `[N,m,...]` that is identical on every process as rows `[N*m,...]`."""
    return self._shard_flat(x.reshape(-1, *x.shape[2:]))

  def _shard_flat(self, x: np.ndarray) -> Array:
    """Shards an array `[N*m,...]` that is identical on every process by rows."""
    return hosts.shard_identical(self._mesh, x.astype(bool if x.dtype == bool else np.int32))

  @contextlib.contextmanager
  def _stage(self, name: str) -> Iterator[None]:
    """Adds the time of the enclosed code to a stage, without the compilation in it."""
    start, compiling = time.perf_counter(), self._compiled.seconds
    yield
    self._seconds[name] += time.perf_counter() - start - (self._compiled.seconds - compiling)
