"""Who is where in the device's state: the host's book of groups and members.

Every process keeps the same book of all row shards, so that all take the same decisions. Places
count within a shard. Axes: N row shards, B places for groups, G places for members of each.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int


def fit(needed: int, full: int) -> int:
  """Returns the smallest shape that holds what is needed: a power of two, or the full size."""
  return min(full, 1 << max(needed - 1, 0).bit_length())


def smaller(size: int) -> int:
  """Returns the next smaller shape; 0 below 1."""
  return (1 << (size - 1).bit_length()) >> 1


class Moves(NamedTuple):
  """Where each place of a new state gets its trajectory from; as `packing.move` takes them."""

  groups: Int[np.ndarray, "N B"]
  members: Int[np.ndarray, "N B G"]


class Table(NamedTuple):
  """The book.

  Attributes:
    record: each group's prompt, counted within its shard.
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

  @property
  def groups(self) -> int:
    """Living groups of the shard that has most."""
    return int(self.alive.any(-1).sum(-1).max())

  @property
  def members(self) -> int:
    """Living members of the group that has most."""
    return int(self.alive.sum(-1).max())

  @property
  def longest(self) -> int:
    """Tokens in the cache of the longest living trajectory."""
    return int((self.lengths * self.alive).max())

  @property
  def youngest(self) -> int:
    """Tokens drawn for the living trajectory that has fewest; 0, if nobody lives."""
    return int(self.count[self.alive].min()) if self.alive.any() else 0

  def pack(self, groups: int, members: int) -> tuple["Table", Moves]:
    """Moves the living to the front, in a state of B groups x G members that holds them."""
    front = _front(self.alive.any(-1), groups)
    within = np.take_along_axis(_front(self.alive, members), front[..., None], axis=1)
    shard = np.arange(len(front))[:, None]
    rows = (shard[..., None], front[..., None], within)
    exists = np.arange(groups) < self.alive.shape[1]
    exists = exists[:, None] & (np.arange(members) < self.alive.shape[2])
    table = Table(
      record=self.record[shard, front],
      member=self.member[rows],
      alive=self.alive[rows] & exists,
      count=self.count[rows],
      lengths=self.lengths[rows],
    )
    return table, Moves(front, within)

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


def _front(first: Bool[np.ndarray, "... n"], size: int) -> Int[np.ndarray, "... size"]:
  """Returns indexes with those that are true in front, cut or filled up to the size."""
  order = np.argsort(~first, axis=-1, kind="stable")[..., :size]
  padding = [(0, 0)] * (order.ndim - 1) + [(0, size - order.shape[-1])]
  return np.pad(order, padding)
