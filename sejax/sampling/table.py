"""Who is where in the device's state: the host's book of groups and members.

Every process keeps the same book of all row shards, so that all take the same decisions. Places
count within a shard. Axes: N row shards, B places for groups, G places for members of each.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int


def sizes(full: int) -> list[int]:
  """Returns the sizes that an axis may have: powers of two, and the full one."""
  return [1 << i for i in range((full - 1).bit_length())] + [full]


def fit(needed: int, full: int) -> int:
  """Returns the smallest of these sizes that holds what is needed."""
  return next(size for size in sizes(full) if size >= min(needed, full))


class Table(NamedTuple):
  """The book.

  A group that is packed may take several places, each with a copy of its prefix.

  Attributes:
    record: each place's prompt, counted within its shard.
    member: each trajectory's number in its group.
    alive: places of trajectories that are not yet complete.
    count: tokens drawn.
    lengths: tokens in the cache.
  """

  record: Int[np.ndarray, "N B"]
  member: Int[np.ndarray, "N B G"]
  alive: Bool[np.ndarray, "N B G"]
  count: Int[np.ndarray, "N B G"]
  lengths: Int[np.ndarray, "N B G"]

  @classmethod
  def empty(cls, shards: int, groups: int, members: int) -> "Table":
    """Returns a book of free places."""
    zeros = np.zeros((shards, groups, members), np.int32)
    return cls(zeros[:, :, 0], zeros, zeros.astype(bool), zeros, zeros)

  def places(self, members: int) -> int:
    """Places of so many members each that the living take in the shard where they take most."""
    living = self.alive.sum(-1)
    counts = [np.bincount(*pair) for pair in zip(self.record, living, strict=True)]
    return max(int(np.ceil(count / members).sum()) for count in counts)

  @property
  def longest(self) -> int:
    """Tokens in the cache of the longest living trajectory."""
    return int((self.lengths * self.alive).max())

  @property
  def youngest(self) -> int:
    """Tokens drawn for the living trajectory that has fewest; 0, if nobody lives."""
    return int(self.count[self.alive].min()) if self.alive.any() else 0

  def pack(self, groups: int, members: int) -> tuple["Table", Int[np.ndarray, "N B G"]]:
    """Moves the living to the front, in a state of B x G places that holds them.

    Members of a group come together, as many to a place as fit.

    Returns:
      The new book, and for each place the old one (of B x G) that its trajectory comes from.
    """
    sources = np.zeros((len(self.record), groups, members), np.int32)
    alive = np.zeros(sources.shape, bool)
    for shard, (record, living) in enumerate(zip(self.record, self.alive, strict=True)):
      place = 0
      for group in dict.fromkeys(record[living.any(-1)]):
        old = np.flatnonzero(living & (record == group)[:, None])
        for part in np.split(old, range(members, len(old), members)):
          sources[shard, place, : len(part)] = part
          alive[shard, place, : len(part)] = True
          place += 1
    shard = np.arange(len(sources))[:, None]

    def pick(x):
      return x.reshape(len(x), -1)[shard[..., None], sources]

    record = self.record[shard, sources[..., 0] // self.alive.shape[-1]]
    return Table(record, pick(self.member), alive, pick(self.count), pick(self.lengths)), sources

  def enter(self, records: range, total: int) -> tuple["Table", Int[np.ndarray, "N U"]]:
    """Gives prompts, of each shard the same, the places behind the living groups.

    Args:
      records: prompts, counted within the shard; those from `total` on do not exist.
      total: prompts of a shard.

    Returns:
      The book with their trajectories, and their places; who does not exist gets one outside.
    """
    _, size, members = self.alive.shape
    new = np.array(records)
    places = self.alive.any(-1).sum(-1)[:, None] + np.arange(len(new))
    places = np.where(new < total, places, size)
    table = Table(*(x.copy() for x in self))
    shard, index = np.nonzero(places < size)
    at = shard, places[shard, index]
    table.record[at] = new[index]
    table.member[at] = np.arange(members)
    table.alive[at] = True
    table.count[at] = 0
    table.lengths[at] = 0
    return table, places
