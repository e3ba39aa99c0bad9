"""Host-side scheduler: which sequences are decoded, and which pages hold their keys and values.

A sequence is one sampled continuation of a prompt; the G sequences of a prompt are its members. A
running sequence has a row of the device batch, its prompt a place among the prompts on the device,
and its tokens pages of the KV cache. Each sequence is admitted by itself, as soon as its shard has
room.

Nothing limits how many tokens a sequence may sample, so all that are admitted may need more pages
than there are. Then the sequences with the fewest tokens are evicted; they wait again, and their
tokens are read anew when they are admitted (recomputation as in vLLM, arXiv:2309.06180).

The schedule covers the row shards of all processes and is identical on each of them, so that every
process takes the same decisions without communication. Sequences never move between shards.

Axes: N row shards, R rows of a shard's batch, Q sequences of a shard, B prompts on a shard's
device, G members of a prompt, J pages of a shard, W pages of a sequence.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from sejax import models

NONE = -1  # no page, no prompt


class Limits(NamedTuple):
  """What the devices have room for, in each row shard.

  Attributes:
    rows: sequences that are decoded at once.
    prompts: prompts on the device.
    pages: pages of the KV cache; None if nothing limits them.
    page_size: tokens of a page.
    growth: pages that a sequence may need for one decode run.
    refill: share of the rows at or below which waiting sequences are admitted.
  """

  rows: int
  prompts: int
  pages: int | None
  page_size: int
  growth: int
  refill: float = 0.875


class Admission(NamedTuple):
  """What enters the device.

  Attributes:
    prompts: for each shard, pairs of a prompt and its place on the device.
    sequences: for each shard, the sequences that get a row; those with tokens come by their number.
  """

  prompts: list[list[tuple[int, int]]]
  sequences: list[list[int]]


class Schedule:
  """The sequences of a call and their progress.

  Attributes:
    running: for each shard, the sequence of each row.
    num_sampled: tokens that each sequence sampled.
    num_cached: tokens of each sequence, given and sampled ones; those of a running one have pages.
    evicted: times that a sequence was evicted.
  """

  def __init__(
    self,
    given: Int[np.ndarray, "N Q"],
    limit: Int[np.ndarray, "N Q"],
    members: int,
    limits: Limits,
  ):
    """Lets all sequences wait.

    Args:
      given: tokens that each sequence starts with.
      limit: tokens that it may sample; sequences of 0 are done.
      members: sequences of a prompt, G; those of prompt b are b * G and the following.
    """
    shards, sequences = given.shape
    self.num_sampled = np.zeros_like(given)
    self.num_cached = given.copy()
    self.running: list[list[int]] = [[] for _ in range(shards)]
    self.evicted = 0
    self._members, self._limits = members, limits
    # As many prompts at a time as rows, in their order. Among their sequences, those that start
    # with as many tokens come together, so that they are read with little padding.
    at_a_time = -(-limits.rows // members) * members
    order = np.lexsort((given, np.broadcast_to(np.arange(sequences) // at_a_time, given.shape)))
    # Sequences of each shard that there was room for when some were last admitted: fewer than rows
    # where pages are scarce.
    self._full = [limits.rows] * shards
    self._waiting = [[int(q) for q in row if limit[n, q] > 0] for n, row in enumerate(order)]
    self._unfinished = (limit > 0).reshape(shards, -1, members).sum(-1)
    self._place = np.full((shards, limits.prompts), NONE)
    width = -(-int((given + limit).max(initial=1)) // limits.page_size) + 1
    self._pages = np.full((shards, sequences, width), NONE, np.int32)

  @property
  def waiting(self) -> int:
    """Sequences of all shards that wait."""
    return sum(map(len, self._waiting))

  @property
  def counts(self) -> list[int]:
    """Running sequences of each shard."""
    return list(map(len, self.running))

  @property
  def prompts_used(self) -> int:
    """Prompts on the device in the shard where these are most."""
    return int((self._place != NONE).sum(-1).max())

  @property
  def _enough(self) -> int:
    """Sequences for which admission is worth its cost."""
    full = sum(full for full, waiting in zip(self._full, self._waiting, strict=True) if waiting)
    return math.ceil((1 - self._limits.refill) * full)

  @property
  def few(self) -> int:
    """Running sequences of all shards at which enough have ended to admit others; 0 for never."""
    room = sum(
      max(full - count, 0)
      for full, count, waiting in zip(self._full, self.counts, self._waiting, strict=True)
      if waiting
    )
    missing = self._enough - room
    return max(sum(self.counts) - missing, 0) if missing > 0 else 0

  @property
  def complete(self) -> Bool[np.ndarray, "N B"]:
    """Prompts of each shard whose sequences have all ended."""
    return self._unfinished == 0

  def admit(self) -> Admission | None:
    """Admits waiting sequences; None if there are none, or too few for the cost of admitting them.

    Their tokens have no pages until `allocate`.
    """
    found = [self._admissible(shard) for shard in range(len(self.running))]
    count, running = sum(map(len, found)), sum(self.counts)
    if not count or (running and count < min(self.waiting, self._enough)):
      return None
    prompts = []
    for shard, sequences in enumerate(found):
      known = set(self._place[shard])
      # A dict, not a set: prompts keep the order of their sequences.
      new = [b for b in dict.fromkeys(q // self._members for q in sequences) if b not in known]
      places = np.flatnonzero(self._place[shard] == NONE)[: len(new)].tolist()
      self._place[shard, places] = new
      prompts.append(list(zip(new, places, strict=True)))
      taken = set(sequences)
      self._waiting[shard] = [q for q in self._waiting[shard] if q not in taken]
      self.running[shard] += sequences
      self._full[shard] = len(self.running[shard])
    return Admission(prompts, found)

  def _admissible(self, shard: int) -> list[int]:
    """Returns the waiting sequences of a shard that there is room for, in their order."""
    limits, running = self._limits, self.running[shard]
    rows = limits.rows - len(running)
    known = {int(b) for b in self._place[shard] if b != NONE}
    pages = math.inf
    if limits.pages is not None:
      used = int((self._pages[shard] != NONE).sum())
      pages = limits.pages - used - limits.growth * len(running)
    found: list[int] = []
    for sequence in self._waiting[shard]:
      prompt = sequence // self._members
      pages -= self.pages_for(self.num_cached[shard, sequence]) + limits.growth
      # A sequence that is alone always has room.
      has_pages = pages >= 0 or not (running or found)
      has_place = prompt in known or len(known) < limits.prompts
      if len(found) == rows or not has_pages or not has_place:
        break
      known.add(prompt)
      found.append(sequence)
    return found

  def allocate(self, size: int) -> None:
    """Gives every running sequence the pages that its tokens need, the first that are free.

    Args:
      size: pages of a shard, at least those needed.
    """
    for shard, running in enumerate(self.running):
      needed = self.pages_for(self.num_cached[shard, running])
      width = int(needed.max(initial=0))
      pages = self._pages[shard, running, :width]
      missing = (pages == NONE) & (np.arange(width) < needed[:, None])
      is_free = np.ones(size, bool)
      is_free[pages[pages != NONE]] = False
      pages[missing] = np.flatnonzero(is_free)[: missing.sum()]
      self._pages[shard, running, :width] = pages

  @property
  def pages_needed(self) -> int:
    """Pages that the tokens of running sequences need in the shard where these are most."""
    return max(
      int(self.pages_for(self.num_cached[shard, running]).sum())
      for shard, running in enumerate(self.running)
    )

  def advance(
    self, active: list[Bool[np.ndarray, " r"]], num_sampled: list[Int[np.ndarray, " r"]]
  ) -> None:
    """Records what a decode run sampled, and frees the pages of sequences that have ended.

    Args:
      active: for each shard, which of its running sequences have not ended.
      num_sampled: tokens that each of them has sampled.
    """
    for shard, running in enumerate(self.running):
      new = num_sampled[shard] - self.num_sampled[shard, running]
      self.num_sampled[shard, running] = num_sampled[shard]
      self.num_cached[shard, running] += new
      ended = [q for q, alive in zip(running, active[shard], strict=True) if not alive]
      self._pages[shard, ended] = NONE
      for sequence in ended:
        self._unfinished[shard, sequence // self._members] -= 1
      place = self._place[shard]
      place[(place != NONE) & (self._unfinished[shard, place] == 0)] = NONE
      self.running[shard] = [q for q, alive in zip(running, active[shard], strict=True) if alive]

  def evict(self) -> None:
    """Evicts sequences until the tokens of those that run have pages."""
    if self._limits.pages is None:
      return
    for shard, running in enumerate(self.running):
      pages = self.pages_for(self.num_cached[shard, running])
      total = int(pages.sum())
      if total <= self._limits.pages:
        continue
      needed = dict(zip(running, pages.tolist(), strict=True))
      evicted = []
      for sequence in sorted(running, key=lambda q: (self.num_cached[shard, q], -q)):
        if total <= self._limits.pages or len(evicted) == len(running) - 1:
          break
        total -= needed[sequence]
        evicted.append(sequence)
      self._pages[shard, evicted] = NONE
      self.running[shard] = [q for q in running if q not in evicted]
      self._waiting[shard] = sorted(evicted) + self._waiting[shard]
      self.evicted += len(evicted)

  def compact_pages(self, size: int, new_size: int) -> Int[np.ndarray, "N J"]:
    """Renumbers pages for another number of them.

    Args:
      size: pages of a shard so far.
      new_size: pages of a shard from now on.

    Returns:
      The old page of each new one; any page for those that are free.
    """
    sources = np.zeros((len(self.running), new_size), np.int32)
    if new_size >= size:
      sources[:, :size] = np.arange(size)
      return sources
    for shard, pages in enumerate(self._pages):
      used = np.sort(pages[pages != NONE])
      sources[shard, : len(used)] = used
      pages[pages != NONE] = np.searchsorted(used, pages[pages != NONE])
    return sources

  def compact_prompts(self, new_size: int) -> Int[np.ndarray, "N B"]:
    """Moves prompts to the first places of a smaller number; returns the old place of each."""
    sources = np.zeros((len(self.running), new_size), np.int32)
    places = np.full(sources.shape, NONE)
    for shard, place in enumerate(self._place):
      used = np.flatnonzero(place != NONE)
      sources[shard, : len(used)] = used
      places[shard, : len(used)] = place[used]
    self._place = places
    return sources

  def rows(self, size: int) -> Int[np.ndarray, "N R"]:
    """Returns the sequence of each row; one past the last for rows without one."""
    rows = np.full((len(self.running), size), self.num_cached.shape[1], np.int32)
    for shard, running in enumerate(self.running):
      rows[shard, : len(running)] = running
    return rows

  def is_sequence(self, rows: Int[np.ndarray, "N R"]) -> Bool[np.ndarray, "N R"]:
    """Returns which rows have a sequence."""
    return rows < self.num_cached.shape[1]

  def sampled(self, rows: Int[np.ndarray, "N R"]) -> Int[np.ndarray, "N R"]:
    """Returns the tokens that the sequence of each row sampled; 0 for rows without one."""
    return self._of_rows(self.num_sampled, rows)

  def cached(self, rows: Int[np.ndarray, "N R"]) -> Int[np.ndarray, "N R"]:
    """Returns the tokens of the sequence of each row, also given ones; 0 for rows without one."""
    return self._of_rows(self.num_cached, rows)

  def _of_rows(
    self, x: Int[np.ndarray, "N Q"], rows: Int[np.ndarray, "N R"]
  ) -> Int[np.ndarray, "N R"]:
    taken = np.take_along_axis(x, np.minimum(rows, x.shape[1] - 1), axis=1)
    return np.where(self.is_sequence(rows), taken, 0)

  @property
  def most_members(self) -> int:
    """Running sequences of the prompt that has most."""
    return max(
      int(np.bincount(np.array(running, int) // self._members).max(initial=0))
      for running in self.running
    )

  def table(self, rows: Int[np.ndarray, "N R"], pages: int, members: int) -> models.BatchTable:
    """Returns what rows attend to, as flat arrays of all shards.

    Args:
      rows: from `rows`.
      pages: pages of a shard.
      members: sequences of a prompt that there is room for, at least `most_members`.
    """
    shards, size = rows.shape
    prompts = self._place.shape[1]
    prompt, member, lengths = np.zeros((3, shards, size), np.int32)
    row_of_member = np.zeros((shards, prompts, members), np.int32)
    row_of_page, tokens = np.zeros((2, shards, pages), np.int32)
    for shard, running in enumerate(self.running):
      index = np.arange(len(running))
      sequences = np.array(running, int)
      prompt[shard, index] = self._place_of(shard)[sequences // self._members]
      member[shard, index] = _rank(prompt[shard, index])
      row_of_member[shard, prompt[shard, index], member[shard, index]] = index
      lengths[shard, index] = self.num_cached[shard, sequences]
      width = int(self.pages_for(lengths[shard, index]).max(initial=0))
      pages_of_row = self._pages[shard, sequences, :width]
      row, number = np.nonzero(pages_of_row != NONE)
      page = pages_of_row[row, number]
      row_of_page[shard, page] = row
      start = number * self._limits.page_size
      tokens[shard, page] = np.minimum(lengths[shard, row] - start, self._limits.page_size)
    table = models.BatchTable(prompt, member, row_of_member, lengths, row_of_page, tokens)
    return models.BatchTable(*(x.reshape(-1, *x.shape[2:]) for x in table))

  def pages_of(
    self, sequences: Int[np.ndarray, "N U"], first: Int[np.ndarray, "N U"], count: int, none: int
  ) -> Int[np.ndarray, "N U W"]:
    """Returns the pages of sequences.

    Args:
      sequences: one past the last for none.
      first: number of the first page of each among those of its sequence.
      count: pages to return of each, W.
      none: stands for pages that there are not.
    """
    shards, total, width = self._pages.shape
    shard = np.arange(shards)[:, None, None]
    number = first[..., None] + np.arange(count)
    inside = self.is_sequence(sequences)[..., None] & (number < width)
    pages = self._pages[
      shard, np.minimum(sequences, total - 1)[..., None], np.minimum(number, width - 1)
    ]
    return np.where(inside & (pages != NONE), pages, none)

  def prompt_places(self, sequences: Int[np.ndarray, "N U"]) -> Int[np.ndarray, "N U"]:
    """Returns the place of the prompt of each sequence; 0 for those that are none."""
    places = np.zeros(sequences.shape, np.int32)
    last = self.num_cached.shape[1] - 1
    for shard, row in enumerate(sequences):
      places[shard] = self._place_of(shard)[np.minimum(row, last) // self._members]
    return places

  def _place_of(self, shard: int) -> Int[np.ndarray, " B"]:
    """Returns the place of each prompt of a shard; 0 for those that are not on the device."""
    places = np.zeros(self._unfinished.shape[1], np.int32)
    used = np.flatnonzero(self._place[shard] != NONE)
    places[self._place[shard, used]] = used
    return places

  def pages_for(self, tokens: Int[np.ndarray, "*q"]) -> Int[np.ndarray, "*q"]:
    """Returns how many pages hold this many tokens."""
    return -(-tokens // self._limits.page_size)


def _rank(groups: Int[np.ndarray, " r"]) -> Int[np.ndarray, " r"]:
  """Returns the number of each entry among those of its group."""
  order = np.argsort(groups, kind="stable")
  ordered = groups[order]
  rank = np.empty_like(groups)
  rank[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered)
  return rank
