"""Host-side scheduler: which sequence occupies which slot of the device batch.

A sequence is one sampled continuation of a prompt. A slot is a row of the device batch: it holds
one prompt's prefix and up to G of its sequences. A group whose sequences have been repacked may
occupy several slots, each with a copy of the prefix.

The schedule covers the row shards of all processes and is identical on each of them, so that every
process takes the same decisions without communication. Slots are counted within a shard, because
sequences never move between shards.

Axes: N row shards, B slots of a shard, G sequences of a slot.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int


def sizes(full: int) -> list[int]:
  """Returns the sizes that a batch axis may shrink to: powers of two below `full`, and `full`.

  Every batch shape compiles a program, so there are few of them.
  """
  return [1 << i for i in range((full - 1).bit_length())] + [full]


def smallest_size(needed: int, full: int) -> int:
  """Returns the smallest of `sizes(full)` that holds `needed` entries, at most `full`."""
  return next(size for size in sizes(full) if size >= min(needed, full))


class Schedule(NamedTuple):
  """The sequences in each slot and their progress; methods return a new schedule.

  Attributes:
    prompt: index of each slot's prompt within its shard.
    member: index of each sequence within its group.
    active: sequences that are still being decoded.
    num_sampled: tokens sampled so far.
    num_cached: tokens in the KV cache, both given and sampled ones.
  """

  prompt: Int[np.ndarray, "N B"]
  member: Int[np.ndarray, "N B G"]
  active: Bool[np.ndarray, "N B G"]
  num_sampled: Int[np.ndarray, "N B G"]
  num_cached: Int[np.ndarray, "N B G"]

  @classmethod
  def empty(cls, shards: int, slots: int, members: int) -> "Schedule":
    """Returns a schedule without active sequences.

    Args:
      slots: slots of one shard.
      members: sequences of one slot.
    """
    zeros = np.zeros((shards, slots, members), np.int32)
    return cls(
      prompt=zeros[:, :, 0],
      member=zeros,
      active=zeros.astype(bool),
      num_sampled=zeros,
      num_cached=zeros,
    )

  def slots_needed(self, members: int) -> int:
    """Returns how many slots the active sequences need, in the shard where they need most.

    Sequences of different prompts cannot share a slot.

    Args:
      members: sequences that fit in a slot.
    """
    active_in_slot = self.active.sum(-1)
    by_shard = zip(self.prompt, active_in_slot, strict=True)
    active_of_prompt = [np.bincount(prompts, counts) for prompts, counts in by_shard]
    return max(int(np.ceil(counts / members).sum()) for counts in active_of_prompt)

  @property
  def longest_cached(self) -> int:
    """Cached tokens of the longest active sequence; 0 without active sequences."""
    return int((self.num_cached * self.active).max())

  @property
  def fewest_sampled(self) -> int:
    """Sampled tokens of the active sequence with the fewest; 0 without active sequences."""
    return int(self.num_sampled[self.active].min()) if self.active.any() else 0

  def repack(self, slots: int, members: int) -> tuple["Schedule", Int[np.ndarray, "N B G"]]:
    """Moves the active sequences into the first slots of a batch of another shape.

    Sequences of one prompt share a slot as far as they fit.

    Args:
      slots: slots of one shard in the new batch, at least `slots_needed(members)`.
      members: sequences of one slot in the new batch.

    Returns:
      The new schedule, and for each new position the flat index `slot * old_members + member` of
      the old position that its sequence comes from.
    """
    sources = np.zeros((len(self.prompt), slots, members), np.int32)
    active = np.zeros(sources.shape, bool)
    for shard, (prompts, old_active) in enumerate(zip(self.prompt, self.active, strict=True)):
      slot = 0
      # A dict, not a set: prompts keep the order of their slots.
      for prompt in dict.fromkeys(prompts[old_active.any(-1)]):
        old = np.flatnonzero(old_active & (prompts == prompt)[:, None])
        for part in np.split(old, range(members, len(old), members)):
          sources[shard, slot, : len(part)] = part
          active[shard, slot, : len(part)] = True
          slot += 1
    shard = np.arange(len(sources))[:, None]

    def take(x):
      return x.reshape(len(x), -1)[shard[..., None], sources]

    repacked = Schedule(
      prompt=self.prompt[shard, sources[..., 0] // self.active.shape[-1]],
      member=take(self.member),
      active=active,
      num_sampled=take(self.num_sampled),
      num_cached=take(self.num_cached),
    )
    return repacked, sources

  def admit(self, prompts: range, total: int) -> tuple["Schedule", Int[np.ndarray, "N U"]]:
    """Assigns waiting prompts of every shard to the slots after the occupied ones.

    Requires that the active sequences are packed into the first slots, see `repack`.

    Args:
      prompts: indices of the U prompts within each shard. Those from `total` on do not exist; they
        fill up the last part, because all parts share one compiled program.
      total: prompts of a shard.

    Returns:
      The new schedule, and the slot of each prompt; one past the last slot, where `packing.insert`
      writes nothing, for prompts that do not exist.
    """
    _, size, members = self.active.shape
    new = np.array(prompts)
    slots = self.active.any(-1).sum(-1)[:, None] + np.arange(len(new))
    slots = np.where(new < total, slots, size)
    schedule = Schedule(*(x.copy() for x in self))
    shard, index = np.nonzero(slots < size)
    at = shard, slots[shard, index]
    schedule.prompt[at] = new[index]
    schedule.member[at] = np.arange(members)
    schedule.active[at] = True
    schedule.num_sampled[at] = 0
    schedule.num_cached[at] = 0
    return schedule, slots
