"""Packs the groups of a mini-batch into the rows of as few micro-batches as they need.

A micro-batch has a row for each row shard of the mesh, and all its rows have the same size, see
`sejax.models.transformer.packing`. Groups are spread so that rows are about equally full. Nothing
but lengths decides it, so all processes come to the same result.

Axes: B groups of a mini-batch, G trajectories of a group, N rows, U groups of a row, C tokens of a
row.
"""

import dataclasses
import heapq
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from sejax import models
from sejax.parallel.programs import rounded_up

_SIZES = 8  # sizes of a row that programs are compiled for, evenly spaced
_SLOT_STEPS = 2  # numbers of groups of a row that they are compiled for, see `rounded_up`


class Rows(NamedTuple):
  """The rows of a micro-batch.

  Attributes:
    groups: index of each group in the mini-batch; -1 for none.
    packing: where their tokens lie.
  """

  groups: Int[np.ndarray, "N U"]
  packing: models.Packing


@dataclasses.dataclass(frozen=True)
class Capacity:
  """What a row can hold.

  Attributes:
    tokens: maximum number of tokens.
    groups: maximum number of groups, one of those that programs are compiled for.
    block: tokens of a block; each group begins with a new one.
  """

  tokens: int
  groups: int
  block: int

  @classmethod
  def of(cls, groups: int, group_tokens: int, block: int) -> "Capacity":
    """Returns a capacity for some groups of full length, or up to four times as many short ones.

    Args:
      groups: groups of full length that fit into a row.
      group_tokens: tokens of such a group.
    """
    return cls(
      groups * (-(-group_tokens // block) * block), rounded_up(4 * groups, _SLOT_STEPS), block
    )

  def size(self, tokens: int) -> int:
    """Returns the smallest size of a row that holds so many tokens."""
    blocks, of_largest = -(-tokens // self.block), self.tokens // self.block
    sizes = (-(-of_largest * n // _SIZES) for n in range(1, _SIZES + 1))
    return self.block * next(size for size in sizes if blocks <= size)


def block_size(group_tokens: int) -> int:
  """Returns the tokens of a block, for groups whose trajectories have so many at most.

  Half a block of each group is padding; more blocks take more time to attend.
  """
  return min(max(16, rounded_up(group_tokens // 32, 1)), 128)


def pack(lengths: Int[np.ndarray, "B 1+G"], rows: int, capacity: Capacity) -> Iterator[Rows]:
  """Yields the micro-batches of a mini-batch, at least one.

  Args:
    lengths: tokens of each group's prompt and trajectories; groups without a trajectory that counts
      are left out, and trajectories of length 0.
    rows: row shards, N.
    capacity: of a row; any group must fit.
  """
  # The padding to whole blocks is part of a group.
  tokens = np.where(lengths[:, 1:].any(1), lengths.sum(1), 0)
  tokens = -(-tokens // capacity.block) * capacity.block
  least = -(-int(tokens.sum()) // (rows * capacity.tokens))
  for micro_batches in range(max(least, 1), len(lengths) + 1):
    filled = _spread(tokens, rows * micro_batches)
    largest = max(int(tokens[groups].sum()) for groups in filled)
    most = max(len(groups) for groups in filled)
    if largest <= capacity.tokens and most <= capacity.groups:
      break
  size, slots = capacity.size(max(largest, 1)), rounded_up(max(most, 1), _SLOT_STEPS)
  for first in range(0, len(filled), rows):
    groups = np.full((rows, slots), -1, np.int32)
    for row, members in enumerate(filled[first : first + rows]):
      groups[row, : len(members)] = members
    yield Rows(groups, _packing(lengths, groups, size, capacity.block))


def _spread(tokens: Int[np.ndarray, " B"], rows: int) -> list[list[int]]:
  """Assigns groups to rows, each to the emptiest row, the longest first (Graham, 1969).

  Args:
    tokens: tokens of each group; those of 0 are left out.
  """
  filled: list[list[int]] = [[] for _ in range(rows)]
  heap = [(0, row) for row in range(rows)]
  for group in np.argsort(-tokens, kind="stable"):
    if tokens[group]:
      load, row = heapq.heappop(heap)
      filled[row].append(int(group))
      heapq.heappush(heap, (load + int(tokens[group]), row))
  return filled


def _packing(
  lengths: Int[np.ndarray, "B 1+G"], groups: Int[np.ndarray, "N U"], size: int, block: int
) -> models.Packing:
  """Lays the sequences of each row's groups one after the other."""
  sequences = lengths.shape[1]
  found = np.where(groups[..., None] >= 0, lengths[groups], 0).astype(np.int32)
  starts = np.zeros_like(found)
  sequence = np.full((len(groups), size), -1, np.int32)
  offset = np.zeros((len(groups), size), np.int32)
  for row in range(len(groups)):
    first = 0
    for slot in range(groups.shape[1]):
      first = -(-first // block) * block
      for number, length in enumerate(found[row, slot]):
        starts[row, slot, number] = min(first, size - 1)
        sequence[row, first : first + length] = slot * sequences + number
        offset[row, first : first + length] = np.arange(length)
        first += length
  return models.Packing(sequence, offset, starts, found)


def shapes(rows: int, trajectories: int, capacity: Capacity) -> models.Packing:
  """Returns the shapes of the largest packing."""
  tokens = jax.ShapeDtypeStruct((rows, capacity.tokens), jnp.int32)
  sequences = jax.ShapeDtypeStruct((rows, capacity.groups, 1 + trajectories), jnp.int32)
  return models.Packing(tokens, tokens, sequences, sequences)
