"""Input pipeline: shuffles, shards over processes, prepares examples, batches; restorable.

The records form one endless stream that is reshuffled every epoch. Each process reads its own
shard, `stream[process::processes]`. The position in the stream is the whole state: it determines
epoch and record, so an iterator is restored by starting there. Dropped records keep their position,
so the order does not depend on the number of worker processes.
"""

import collections
import dataclasses
import functools
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import grain
import numpy as np
from absl import flags, logging

from sejax.data.prepare import TOO_LONG, Dropped, Example, Preparer, with_views
from sejax.data.records import NO_GOLD, Source, gold_errors
from sejax.errors import quoted, shortened
from sejax.parallel import hosts, preemption

_AHEAD = 16  # records that are prepared in advance where nothing else is said
_MIN_SEEN = 100  # records to see before `max_bad_share` is enforced
_NUM_CHECKED = 16  # records that `check` tries
_MAX_LOGGED = 10  # dropped records of each kind that are logged one by one
# The run ends if none of the first so many records, a random sample of the set, is usable.
PATIENCE = 1000

State = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """Options of the pipeline.

  Attributes:
    batch_size: prompts per batch, over all processes.
    seed: seed of the shuffling.
    workers: worker processes that prepare examples; 0 prepares them in threads of this process.
    on_bad_record: `skip` counts and logs a bad record, `stop` ends the run.
    max_bad_share: the run ends if a process sees a larger share of bad records.
    once: a single pass in the source's order, for evaluation, instead of endless shuffled epochs.
  """

  batch_size: int
  seed: int = 0
  workers: int = 0
  on_bad_record: str = "skip"
  max_bad_share: float = 0.05
  once: bool = False


def check(preparer: Preparer, max_bad_share: float, *, needs_gold: bool = False) -> None:
  """Checks a few random records before the run starts.

  This reports a wrong folder, field or format at once instead of after the model is loaded. A few
  bad records are tolerated. It warns if no checked record has an image, if none fits the size
  limits, or if gold answers are unreadable but not needed.

  Args:
    preparer: prepares the records that are checked.
    max_bad_share: the run's limit; with 1, any share of bad records is accepted.
    needs_gold: whether the reward function reads gold answers.

  Raises:
    ValueError: the source is empty, all checked records are bad, or a gold answer that is needed is
      missing or unreadable.
  """
  source = preparer.source
  size = len(source)
  if not size:
    raise ValueError(f"{source.name} holds no records; give a set that does as config.data.path")
  # Random rather than evenly spaced, because bad records may be evenly spaced.
  chosen = np.random.default_rng(0).choice(size, min(size, _NUM_CHECKED), replace=False)
  indices = [int(index) for index in chosen]
  _check_golds(source, indices, needs_gold=needs_gold)
  good, bad, long = [], [], []
  for index in indices:
    prepared = preparer(index)
    if isinstance(prepared, Example):
      good.append(prepared)
      if prepared.image_files:
        return
    elif prepared.kind == TOO_LONG:
      long.append(prepared)
    else:
      bad.append(prepared)
  # By chance, a set with an acceptable share of bad records looks like this once in 1,000 times.
  is_sure = max_bad_share < 1 and (len(indices) == size or max_bad_share ** len(indices) < 1e-3)
  if len(bad) == len(indices) and is_sure:
    raise ValueError(
      f"none of {len(bad)} records of {source.name} that were tried can be used;"
      f" {bad[0].explanation}; fix the set, or give another as config.data.path"
    )
  if good:
    logging.warning(
      "None of %d records of %s that were tried has a picture; images, image, or image_1, image_2"
      " and so on name it",
      len(indices),
      source.name,
    )
  elif long:
    logging.warning(
      "None of %d records that were tried fits; %s", len(indices), long[0].explanation
    )


def _check_golds(source: Source, indices: Sequence[int], *, needs_gold: bool) -> None:
  errors = list(gold_errors(source, indices))
  missing = [error for error in errors if error.kind == NO_GOLD]
  # Errors of other kinds concern the whole record, which will be dropped anyway.
  unreadable = [error for error in errors if error.kind == "bad answer"]
  if needs_gold and (missing or unreadable):
    first = (missing + unreadable)[0]
    raise ValueError(f"{first}; config.rewards.function needs one of every record")
  if unreadable:
    logging.warning(
      "%d answers of %d records of %s that were tried cannot be read; they count as none: %s",
      len(unreadable),
      len(indices),
      source.name,
      unreadable[0],
    )


class Pipeline:
  """Iterator over this process's share of each batch, a list of examples.

  In an endless pipeline every list has `batch_size / processes` examples. In a single pass the last
  lists may be shorter or empty, so that all processes see the same number of batches.

  Attributes:
    seen: number of records this process has read.
    dropped: number of these that were dropped, by kind.
  """

  def __init__(
    self,
    preparer: Preparer,
    options: Options,
    *,
    process: int = 0,
    processes: int = 1,
    states: Sequence[State] = (),
  ):
    """Creates a pipeline at the start of the stream, or restores one.

    Args:
      preparer: makes the examples.
      options: how to read the source.
      process: index of this process.
      states: to restore, the `state()` of every process that saved, in any order. Their number may
        differ from that of the processes now.

    Raises:
      ValueError: `batch_size` is not a multiple of `processes`, the source is empty, the model
        directory cannot be read, or the states do not belong to this stream and these processes.
    """
    if options.batch_size % processes:
      raise ValueError(f"batch_size={options.batch_size} does not divide by {processes} processes")
    if preparer.view is not None and options.batch_size // processes % 2:
      raise ValueError(
        f"config.batch_size={options.batch_size} gives each of {processes} processes an odd number"
        " of rows; with config.data.view.use=True each problem needs two"
      )
    if not len(preparer.source):
      raise ValueError(f"{preparer.source.name} holds no records")
    _ = preparer.processor  # Loads it here, so that an error is raised once and not per record.
    self._preparer, self._options = preparer, options
    self._process, self._processes = process, processes
    self._rows = options.batch_size // processes
    self._position, self.seen, self.dropped = 0, 0, collections.Counter()
    # Positions from here on that were read when the run had another number of processes.
    self._read_before: set[int] = set()
    self._logged = collections.Counter()  # dropped records since the start or restore, by kind
    self._dropped_in_a_row = 0
    self._any_usable = bool(states)  # whether the run has had an example
    if states:
      self._restore(states)
    # The next batch is prepared while the devices are busy with this one. That costs memory: an
    # example of 4,096 patches is 19 MB.
    self._prepared = read(
      preparer, options, self._position + process, processes, ahead=max(self._rows, 1)
    )

  def __iter__(self) -> Self:
    return self

  def __next__(self) -> list[Example]:
    """Returns this process's examples of the next batch.

    Raises:
      StopIteration: a single pass has ended in all processes.
      ValueError: a record is bad with `on_bad_record="stop"`, or too many records are bad.
    """
    rows = list(itertools.islice(self._examples(), self._rows))
    if self._options.once and not hosts.any_process(np.array([bool(rows)])).any():
      self._check_bad_share(min_seen=0)
      self.log_dropped()
      raise StopIteration
    return rows

  def state(self) -> State:
    """Returns this process's position and counts as JSON values, for a checkpoint."""
    return {
      **self._stream(),
      "process": self._process,
      "processes": self._processes,
      "turn": self._position,  # the key in existing checkpoints
      "read_before": sorted(x for x in self._read_before if x >= self._position),
      "seen": self.seen,
      "dropped": dict(self.dropped),
    }

  def _stream(self) -> State:
    """Returns what identifies the stream: positions are meaningless in any other."""
    source, options = self._preparer.source, self._options
    return {
      "source": source.name,
      "records": len(source),  # the number of records, under the key in existing checkpoints
      "seed": options.seed,
      "once": options.once,
    }

  def _examples(self) -> Iterator[Example]:
    for prepared in self._prepared:
      position = self._position + self._process
      self._position += self._processes
      if position in self._read_before:
        continue
      self.seen += 1
      if isinstance(prepared, Dropped):
        self._drop(prepared)
      else:
        self._dropped_in_a_row, self._any_usable = 0, True
        yield from with_views(prepared._replace(position=position))

  def _drop(self, dropped: Dropped) -> None:
    self.dropped[dropped.kind] += 1
    self._dropped_in_a_row += 1
    reason = f"{dropped.explanation} ({dropped.kind})"
    if self._options.on_bad_record == "stop" and dropped.kind != TOO_LONG:
      raise ValueError(f"{reason}; on_bad_record='skip' would go on without it")
    self._logged[dropped.kind] += 1
    if self._logged[dropped.kind] <= _MAX_LOGGED:
      is_last = self._logged[dropped.kind] == _MAX_LOGGED
      more = "; further ones of this kind are counted, not logged" if is_last else ""
      logging.warning("Dropped %s%s", reason, more)
    records_per_process = -(-len(self._preparer.source) // self._processes)
    self._check_bad_share(min_seen=min(_MIN_SEEN, records_per_process))
    if not self._options.once:
      self._check_any_usable(dropped)

  def _check_any_usable(self, last: Dropped) -> None:
    # Shuffling may put nearly two epochs between two occurrences of the only usable record.
    limit = 2 * len(self._preparer.source)
    if not self._any_usable:
      limit = min(limit, PATIENCE)
    if self._dropped_in_a_row >= limit:
      raise ValueError(
        none_usable(self._preparer.source, self._dropped_in_a_row, self.dropped, last)
      )

  def log_dropped(self) -> None:
    """Logs the number of dropped records by kind, unless every one was logged."""
    if any(count > _MAX_LOGGED for count in self._logged.values()):
      logging.warning(
        "Dropped %d of %d records of %s: %s",
        self.dropped.total(),
        self.seen,
        self._preparer.source.name,
        tally(self.dropped),
      )

  def _check_bad_share(self, min_seen: int) -> None:
    bad = self.dropped.total() - self.dropped[TOO_LONG]
    limit = self._options.max_bad_share
    if self.seen >= min_seen and bad > limit * self.seen:
      raise ValueError(
        f"{bad} of {self.seen} records of {self._preparer.source.name} are bad, more than"
        f" config.data.max_bad_share={limit}: {tally(self.dropped)}; fix them, or raise it"
      )

  def _restore(self, states: Sequence[State]) -> None:
    for state in states:
      for name, value in self._stream().items():
        if state[name] != value:
          raise ValueError(
            f"the data's state has {name}={quoted(state[name])}; this run has {quoted(value)}"
          )
    saved = states[0]["processes"]
    if sorted(state["process"] for state in states) != list(range(saved)):
      raise ValueError(f"the data's state is of {saved} processes, and {len(states)} are given")
    self._read_before.update(x for state in states for x in state.get("read_before", ()))
    if saved == self._processes:
      state = next(state for state in states if state["process"] == self._process)
      self._position, self.seen = state["turn"], state["seen"]
      self.dropped.update(state["dropped"])
      return
    # Processes take turns; some may be further than others, as bad records are passed over.
    first = min(state["turn"] for state in states)
    for state in states:
      ends = first + state["process"], state["turn"] + state["process"]
      self._read_before.update(range(*ends, saved))
    self._position = first
    if self._process == 0:  # It takes over all counts, so that sums over processes do not change.
      self.seen = sum(state["seen"] for state in states)
      for state in states:
        self.dropped.update(state["dropped"])


def read(
  preparer: Preparer, options: Options, first: int = 0, step: int = 1, *, ahead: int = _AHEAD
) -> Iterator[Example | Dropped]:
  """Prepares every `step`-th record of the stream, starting at position `first`, in order.

  Args:
    preparer: makes the examples.
    options: `seed`, `workers` and `once` are used.
    first: position in the stream.
    step: distance between records; the number of processes in training.
    ahead: records prepared in advance.
  """
  stream = grain.MapDataset.range(len(preparer.source))
  if not options.once:
    stream = stream.shuffle(options.seed).repeat()
  if first >= len(stream):
    return iter(())
  prepared = stream.map_with_index(functools.partial(_prepare, preparer))
  return in_parallel(prepared[first::step], options.workers, ahead)


def _prepare(preparer: Preparer, position: int, index: int) -> Example | Dropped:
  """Prepares a record at a position of the stream."""
  return preparer(index, position // len(preparer.source))


def in_parallel(dataset: grain.MapDataset, workers: int, ahead: int) -> Iterator[Any]:
  """Computes the elements of a lazy data set with threads or processes; yields them in order.

  Args:
    dataset: its elements are computed on access.
    workers: worker processes; 0 computes in this process.
    ahead: elements computed in advance.
  """
  # Images are decoded and resized without the GIL, so threads help even without worker processes.
  processes, cores = max(workers, 1), os.cpu_count() or 1
  ahead = -(-ahead // processes)
  threads = min(-(-cores // processes), ahead)
  elements = dataset.to_iter_dataset(
    grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
  )
  if workers:
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # grain's workers read absl flags, which only main parses.
    preemption.start_resource_tracker()
    elements = elements.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2),
      worker_init_fn=preemption.ignore_signals_in_worker,
    )
  return iter(elements)


def tally(dropped: Mapping[str, int]) -> str:
  """Formats the numbers of dropped records by kind, largest first: `3 broken, 1 too long`."""
  return ", ".join(f"{count} {kind}" for kind, count in collections.Counter(dropped).most_common())


def none_usable(source: Source, seen: int, dropped: Mapping[str, int], last: Dropped) -> str:
  """Returns the error message for a source of which no record was usable.

  Args:
    source: the source.
    seen: number of records read in a row without getting an example.
    dropped: number of dropped records by kind.
    last: the record that was dropped last.
  """
  return (
    f"none of {seen} records of {shortened(source.name)} in a row gave an example (dropped so far:"
    f" {tally(dropped)}); the last one: {last.explanation}; see --mode=inspect"
  )
