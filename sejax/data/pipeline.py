"""The stream of examples: shuffled per epoch, shared out to processes, batched, restorable.

Every process reads its own part of one endless sequence of records, `stream[process::processes]`,
which runs on across the ends of epochs. A record's place in the sequence is all there is to know:
it gives the epoch and the record, so that an iterator is restored by starting there. Records are
prepared one for one, dropped ones included, so that workers change neither order nor place.
"""

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import grain
import numpy as np
from absl import flags, logging

from sejax.data.prepare import TOO_LONG, Dropped, Example, Preparer
from sejax.data.records import BadRecord, Source
from sejax.errors import quoted, shortened
from sejax.parallel import hosts, preemption

# Images are decoded and resized outside Python's lock, so threads help without workers too. What is
# ahead is memory: an example of 4,096 patches is 19 MB.
_THREADS, _AHEAD = 2, 4
# The share of bad records means nothing before so many have been seen.
_ENOUGH = 100
_TRIED = 16  # records, before anything is made ready for them
_LOGGED = 10  # drops of each kind; further ones are counted
# Records from the first on of which one must be usable. They are a random part of the set.
PATIENCE = 1000

State = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Options:
  """How a source is read.

  Attributes:
    batch_size: prompts in a batch, over all processes.
    seed: of the shuffling.
    workers: processes that prepare examples; 0: threads of this one.
    on_bad_record: `skip` counts and logs it, `stop` ends the run.
    max_bad_share: of the records seen by a process; where more are bad, the run ends.
    once: one pass in the source's order, for evaluation, instead of an endless shuffled one.
  """

  batch_size: int
  seed: int = 0
  workers: int = 0
  on_bad_record: str = "skip"
  max_bad_share: float = 0.05
  once: bool = False


def check(preparer: Preparer, max_bad_share: float, *, needs_gold: bool = False) -> None:
  """Refuses a set that holds nothing, or of which all records that are tried are bad.

  They are from all over it, so that a wrong folder or field is said at once, and some bad records
  are no reason. Answers that cannot be read are said, and refused only where they are needed.

  Args:
    preparer: of the set.
    max_bad_share: of the run; 1 accepts all.
    needs_gold: whether the run asks for answers.

  Raises:
    ValueError: naming the set, a record, and what is wrong with it.
  """
  source = preparer.source
  size = len(source)
  if not size:
    raise ValueError(f"{source.name} holds no records; give a set that does as config.data.path")
  # Not evenly spaced: bad records may be, too.
  places = np.random.default_rng(0).choice(size, min(size, _TRIED), replace=False)
  _check_golds(source, places, needs_gold=needs_gold)
  good, bad, long = [], [], []
  for place in map(int, places):
    prepared = preparer(place)
    if isinstance(prepared, Example):
      good.append(prepared)
      if prepared.pictures:
        return
    else:
      (long if prepared.kind == TOO_LONG else bad).append(prepared)
  # A set that the run would accept hardly ever looks so.
  is_sure = max_bad_share < 1 and (len(places) == size or max_bad_share ** len(places) < 1e-3)
  if len(bad) == len(places) and is_sure:
    raise ValueError(
      f"none of {len(bad)} records of {source.name} that were tried can be used;"
      f" {bad[0].explanation}; mend the set, or give another as config.data.path"
    )
  if good:
    logging.warning(
      "None of %d records of %s that were tried has a picture; images, image, or image_1, image_2"
      " and so on name it",
      len(places),
      source.name,
    )
  elif long:
    logging.warning("None of %d records that were tried fits; %s", len(places), long[0].explanation)


def _check_golds(source: Source, places: np.ndarray, *, needs_gold: bool) -> None:
  said = []
  for place in map(int, places):
    try:
      if source.gold(place) is None and needs_gold:
        raise ValueError(
          f"record {place} of {source.name} has no gold answer; config.rewards.function needs"
          " one of every record"
        )
    except BadRecord as error:
      if error.kind == "bad answer":  # Whatever else is wrong is no fault of the answer.
        said.append(str(error))
  if said and needs_gold:
    raise ValueError(f"{said[0]}; config.rewards.function needs one of every record")
  if said:
    logging.warning(
      "%d answers of %d records of %s that were tried cannot be read; they count as none: %s",
      len(said),
      len(places),
      source.name,
      said[0],
    )


class Pipeline:
  """Iterator over lists of examples, the rows of this process in each batch.

  Every list of an endless pipeline is full. That of a single pass may be short, or empty while
  other processes still have rows, so that all see the same number of batches.

  Attributes:
    seen: records read so far, by this process.
    dropped: how many of them gave no example, by kind.
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
    """Starts at the beginning, or where `states` say.

    Args:
      preparer: makes the examples.
      options: how to read.
      process: this process's number.
      processes: how many there are.
      states: what `state` gave in each of the processes that saved, in any order.

    Raises:
      ValueError: the batch does not divide, the source is empty, the model's directory cannot be
        read, or the states are of another stream or of processes that had not read equally far
        while their number changed.
    """
    if options.batch_size % processes:
      raise ValueError(f"batch_size={options.batch_size} does not divide by {processes} processes")
    if not len(preparer.source):
      raise ValueError(f"{preparer.source.name} holds no records")
    _ = preparer.processor  # What is wrong with the directory is said once, not of every record.
    self._preparer, self._options = preparer, options
    self._process, self._processes = process, processes
    self._rows = options.batch_size // processes
    self._turn, self.seen, self.dropped = 0, 0, collections.Counter()
    self._logged = collections.Counter()  # drops by kind
    self._fruitless = 0  # records since the last example
    self._fruitful = bool(states)  # whether there ever was one
    if states:
      self._restore(states)
    self._prepared = read(preparer, options, self._turn + process, processes)

  def __iter__(self) -> Self:
    return self

  def __next__(self) -> list[Example]:
    """Returns the rows of the next batch.

    Raises:
      StopIteration: a single pass is over in all processes.
      ValueError: a record is bad and that is not allowed, or too many are.
    """
    rows = list(itertools.islice(self._examples(), self._rows))
    if self._options.once and not hosts.any_process(np.array([bool(rows)])).any():
      self._check_share(enough=0)
      self.log_dropped()
      raise StopIteration
    return rows

  def state(self) -> State:
    """Returns what a checkpoint keeps of this process's place, as plain JSON values."""
    return {
      **self._stream(),
      "process": self._process,
      "processes": self._processes,
      "turn": self._turn,
      "seen": self.seen,
      "dropped": dict(self.dropped),
    }

  def _stream(self) -> State:
    """What must be equal for a place to mean the same record."""
    source, options = self._preparer.source, self._options
    return {
      "source": source.name,
      "records": len(source),
      "seed": options.seed,
      "once": options.once,
    }

  def _examples(self) -> Iterator[Example]:
    for prepared in self._prepared:
      turn = self._turn + self._process
      self._turn += self._processes
      self.seen += 1
      if isinstance(prepared, Dropped):
        self._drop(prepared)
      else:
        self._fruitless, self._fruitful = 0, True
        yield prepared._replace(turn=turn)

  def _drop(self, dropped: Dropped) -> None:
    self.dropped[dropped.kind] += 1
    self._fruitless += 1
    said = f"{dropped.explanation} ({dropped.kind})"
    if self._options.on_bad_record == "stop" and dropped.kind != TOO_LONG:
      raise ValueError(f"{said}; on_bad_record='skip' would go on without it")
    self._logged[dropped.kind] += 1
    if self._logged[dropped.kind] <= _LOGGED:
      is_last = self._logged[dropped.kind] == _LOGGED
      more = "; further ones of this kind are counted, not logged" if is_last else ""
      logging.warning("Dropped %s%s", said, more)
    share = -(-len(self._preparer.source) // self._processes)
    self._check_share(min(_ENOUGH, share))
    if not self._options.once:
      self._check_fruitful(dropped)

  def _check_fruitful(self, last: Dropped) -> None:
    # Fewer may lie between the same good record's places in two epochs.
    enough = 2 * len(self._preparer.source)
    if not self._fruitful:
      enough = min(enough, PATIENCE)
    if self._fruitless >= enough:
      raise ValueError(nothing_usable(self._preparer.source, self._fruitless, self.dropped, last))

  def log_dropped(self) -> None:
    """Logs how many records were dropped in all, by kind, where not each of them was logged."""
    if any(count > _LOGGED for count in self._logged.values()):
      logging.warning(
        "Dropped %d of %d records of %s: %s",
        self.dropped.total(),
        self.seen,
        self._preparer.source.name,
        tally(self.dropped),
      )

  def _check_share(self, enough: int) -> None:
    bad = self.dropped.total() - self.dropped[TOO_LONG]
    limit = self._options.max_bad_share
    if self.seen >= enough and bad > limit * self.seen:
      raise ValueError(
        f"{bad} of {self.seen} records of {self._preparer.source.name} are bad, more than"
        f" config.data.max_bad_share={limit}: {tally(self.dropped)}; mend them, or raise it"
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
    if saved == self._processes:
      state = next(state for state in states if state["process"] == self._process)
      self._turn, self.seen = state["turn"], state["seen"]
      self.dropped.update(state["dropped"])
      return
    turns = sorted(state["turn"] for state in states)
    if turns[0] != turns[-1]:
      raise ValueError(
        f"the data cannot go on with {self._processes} processes: the {saved} that saved had read"
        f" {turns[0] // saved} to {turns[-1] // saved} records each; restore with {saved}"
      )
    self._turn = turns[0]
    if self._process == 0:  # It answers for all, so that sums over processes stay.
      self.seen = sum(state["seen"] for state in states)
      for state in states:
        self.dropped.update(state["dropped"])


def read(
  preparer: Preparer, options: Options, first: int = 0, step: int = 1
) -> Iterator[Example | Dropped]:
  """Returns what becomes of every `step`-th record, in the stream's order.

  Args:
    preparer: makes the examples.
    options: how to read; its batch size and what to do with bad records do not matter here.
    first: place in the stream to begin at.
    step: how far it is from one record to the next.
  """
  records = grain.MapDataset.range(len(preparer.source))
  if not options.once:
    records = records.shuffle(options.seed).repeat()
  if first >= len(records):
    return iter(())
  return in_parallel(records[first::step].map(preparer), options.workers)


def in_parallel(
  dataset: grain.MapDataset, workers: int, threads: int = _THREADS, ahead: int = _AHEAD
) -> Iterator[Any]:
  """Returns the elements of a data set in its order, made by threads.

  Args:
    dataset: whose elements are made when they are asked for.
    workers: processes that make them; 0: this one does.
    threads: of each process.
    ahead: elements that may wait to be asked for.
  """
  elements = dataset.to_iter_dataset(
    grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
  )
  if workers:
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # grain's workers read flags; outside of main nobody parses.
    preemption.start_resource_tracker()
    elements = elements.mp_prefetch(
      grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2),
      worker_init_fn=preemption.ignore_signals_in_worker,
    )
  return iter(elements)


def tally(dropped: Mapping[str, int]) -> str:
  """Returns the counts of dropped records by kind, the largest first."""
  return ", ".join(f"{count} {kind}" for kind, count in collections.Counter(dropped).most_common())


def nothing_usable(source: Source, seen: int, dropped: Mapping[str, int], last: Dropped) -> str:
  """Says that no record of a set can be used."""
  return (
    f"none of {seen} records of {shortened(source.name)} in a row gave an example (dropped so far:"
    f" {tally(dropped)}); the last one: {last.explanation}; see --mode=inspect"
  )
