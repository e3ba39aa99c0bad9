"""Pages: what is written to them, and what is moved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from sejax.sampling import cache

MESH = Mesh(np.array(jax.devices()[:1]), ("data",))
LAYERS, PAGES, HEADS, SIZE, ROWS, STEPS, WIDTH = 3, 7, 2, 4, 3, 6, 5


def spec(is_stacked: bool) -> PartitionSpec:
  return PartitionSpec(None, "data") if is_stacked else PartitionSpec("data")


@pytest.mark.parametrize("is_stacked", [False, True])
def test_new_tokens_are_written_after_those_in_a_page(is_stacked):
  """Row 0 begins in the middle of page 5, row 1 in an empty page; row 2 has ended."""
  rng = np.random.default_rng(0)
  front = (LAYERS,) if is_stacked else ()
  pages = rng.normal(size=(*front, PAGES, HEADS, SIZE, WIDTH)).astype(np.float32)
  recent = rng.normal(size=(*front, ROWS, HEADS, STEPS, WIDTH)).astype(np.float32)
  targets, start, count = np.array([[5, 2], [6, 0], [PAGES, PAGES]]), np.array([3, 0, 1]), 5
  found = jax.jit(lambda *args: cache.write(*args, mesh=MESH, spec=spec(is_stacked)))(
    pages, recent, np.int32(count), targets, start
  )
  want = pages.copy()
  for row in (0, 1):
    for n in range(count):
      page, position = divmod(int(start[row]) + n, SIZE)
      want[..., targets[row, page], :, position, :] = recent[..., row, :, n, :]
  # Of page 2 three positions are left, and of page 0 as many, which nobody reads.
  found = np.array(found)
  np.testing.assert_array_equal(
    found[..., [1, 3, 4, 5, 6], :, :, :], want[..., [1, 3, 4, 5, 6], :, :, :]
  )
  np.testing.assert_array_equal(found[..., 2, :, :4, :], want[..., 2, :, :4, :])
  np.testing.assert_array_equal(found[..., 0, :, :1, :], want[..., 0, :, :1, :])


def test_what_is_not_finite_is_not_kept():
  """It would spoil all sequences of a shard, whose pages are summed by one product."""
  recent = jnp.full((1, HEADS, STEPS, WIDTH), jnp.nan).at[..., 1:, :].set(jnp.inf)
  zeros = jnp.zeros((PAGES, HEADS, SIZE, WIDTH))
  found = cache.write(
    zeros, recent, 6, np.array([[3, 4]]), np.array([0]), mesh=MESH, spec=spec(False)
  )
  np.testing.assert_array_equal(found, zeros)


@pytest.mark.parametrize("is_stacked", [False, True])
def test_pages_are_taken_in_any_number(is_stacked):
  front = (LAYERS,) if is_stacked else ()
  pages = np.arange(np.prod(front, initial=1) * PAGES * HEADS).reshape(*front, PAGES, HEADS, 1, 1)
  for index in ([4, 0, 6], [0, 1, 2, 3, 4, 5, 6, 0, 0]):
    found = cache.take(
      pages, np.array(index), is_stacked=is_stacked, mesh=MESH, spec=spec(is_stacked)
    )
    np.testing.assert_array_equal(found, np.take(pages, index, axis=len(front)))
