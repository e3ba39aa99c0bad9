"""Packing groups into rows: nothing is lost, rows are nearly full, shapes are few."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sejax.learner import packing


def unpacked(rows: list[packing.Rows]) -> dict[tuple[int, int], tuple[int, int, list[int]]]:
  """Returns (micro-batch, row, indices) of every sequence's tokens, by group and sequence."""
  found = {}
  for number, (groups, packed) in enumerate(rows):
    sequences = packed.starts.shape[2]
    for row, slot in np.argwhere(groups >= 0):
      for sequence in range(sequences):
        start = packed.starts[row, slot, sequence]
        index = start + np.arange(packed.lengths[row, slot, sequence])
        assert (packed.sequence[row, index] == slot * sequences + sequence).all()
        assert (packed.offset[row, index] == np.arange(len(index))).all()
        found[int(groups[row, slot]), sequence] = number, int(row), index.tolist()
  return found


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_sequence_that_counts_lies_in_one_place(data):
  block = data.draw(st.sampled_from([1, 4, 16]))
  groups, members = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 4))
  rng = np.random.default_rng(data.draw(st.integers(0, 99)))
  lengths = rng.integers(0, 20, (groups, 1 + members))
  lengths[:, 0] += 1
  rows = data.draw(st.integers(1, 3))
  capacity = packing.Capacity.of(data.draw(st.integers(1, 3)), 20 * (1 + members), block)
  packed = list(packing.pack(lengths, rows, capacity))

  found = unpacked(packed)
  counted = {group for group in range(groups) if lengths[group, 1:].any()}
  assert {group for group, _ in found} == counted
  for (group, sequence), (_, _, index) in found.items():
    assert len(index) == lengths[group, sequence]
  used = [(m, row, i) for m, row, index in found.values() for i in index]
  assert len(used) == len(set(used))
  # Groups begin with a block, and all of a group lies in one row.
  for group in counted:
    places = {found[group, sequence][:2] for sequence in range(1 + members)}
    assert len(places) == 1
    assert found[group, 0][2][0] % block == 0
  shapes = {(x.groups.shape, x.packing.sequence.shape) for x in packed}
  assert len(shapes) == 1
  assert max(x.packing.sequence.shape[1] for x in packed) <= capacity.tokens
  assert sum((x.packing.sequence >= 0).sum() for x in packed) == len(used)


def test_without_a_group_that_counts_a_micro_batch_is_empty():
  (rows,) = packing.pack(np.array([[5, 0, 0], [3, 0, 0]]), 2, packing.Capacity.of(1, 30, 4))
  assert (rows.groups == -1).all()
  assert (rows.packing.sequence == -1).all()
  assert not rows.packing.lengths.any()


@pytest.mark.parametrize("rows", [1, 8, 16])
@pytest.mark.parametrize("median", [350, 600, 1000])
def test_rows_are_nearly_full_and_have_few_shapes(rows, median):
  """The released step: four mini-batches of 128 groups, replies of a log-normal length."""
  rng = np.random.default_rng(median)
  prompt_lengths = rng.integers(400, 760, (512, 1))
  spread = 0.4 * rng.standard_normal((512, 1)) + 0.45 * rng.standard_normal((512, 8))
  lengths = np.minimum(median * np.exp(spread), 2048).astype(int)
  lengths = np.concatenate([prompt_lengths, lengths], axis=1)
  capacity = packing.Capacity.of(1, 1024 + 8 * 2048, packing.block_size(8 * 2048))
  shapes = set()
  for _ in range(4):  # Steps, each of other groups.
    rng.shuffle(lengths)
    packed = [x for part in np.split(lengths, 4) for x in packing.pack(part, rows, capacity)]
    computed = sum(x.packing.sequence.size for x in packed)
    assert lengths.sum() / computed >= 0.75
    shapes |= {(x.groups.shape, x.packing.sequence.shape) for x in packed}
  assert len(shapes) <= 6


@pytest.mark.parametrize("groups", range(1, 17))
def test_no_row_has_more_groups_than_are_planned(groups):
  capacity = packing.Capacity.of(groups, 40, 4)
  planned = packing.shapes(2, 3, capacity)
  lengths = np.ones((2 * 5 * groups, 4), int)
  for x in packing.pack(lengths, 2, capacity):
    assert x.packing.starts.shape[1] <= planned.starts.shape[1] == capacity.groups
    assert x.packing.sequence.shape[1] <= planned.sequence.shape[1]
