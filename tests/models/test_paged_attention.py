"""Compares the attention of a decode step with a softmax over each row's keys, row by row."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sejax.models.transformer import paged_attention
from tests.models import decoding

# Each row shard has two prompts of up to four continuations.
PROMPT_LENGTHS = np.array([5, 9, 1, 7], np.int32)
PRESENT = np.array(
  [[True, False, True, True], [True, True, False, False], [False, True, True, True], [True] * 4]
)
# Tokens in pages: none, part of a page, whole pages, and more than that.
LENGTHS = np.array([[0, 2, 7, 3], [6, 1, 9, 0], [4, 8, 2, 0], [1, 9, 3, 5]])
K, RATIO, H = 2, 3, 8  # key-value heads, query heads of each, their size
P, S, C = 9, 3, 6  # positions of a prompt, a page and a decode run


class Inputs(NamedTuple):
  """Arguments of `attend`, and what each row attends to."""

  queries: np.ndarray
  layer: paged_attention.LayerKeys
  layout: decoding.Layout
  recent_count: int
  keys: list[list[np.ndarray]]  # [B][G], each [K,S,H]; values likewise
  values: list[list[np.ndarray]]


def make_inputs(prompts: int, shards: int, recent_count: int, scale: float) -> Inputs:
  """Makes random inputs, with junk wherever there is no token.

  Args:
    prompts: uses the first ones.
    scale: of the queries; scores are of this size.
  """
  rng = np.random.default_rng(prompts + recent_count)
  lengths = LENGTHS[:prompts]

  def normal(*shape):
    # Numbers that bf16 has, so that both precisions get the same inputs.
    return np.asarray(rng.standard_normal(shape), jnp.bfloat16).astype(np.float32)

  layout = decoding.random_layout(
    rng, lengths, PRESENT[:prompts], max_length=LENGTHS.max(), page_size=S, shards=shards
  )
  rows = len(layout.table.prompt)

  def make_kind():
    in_prompts, in_pages = normal(prompts, K, P, H), normal(1, prompts, K, 4, LENGTHS.max(), H)
    recent, own = normal(rows, K, C, H), normal(rows, K, H)
    attended = [
      [
        np.concatenate(
          [
            in_prompts[b, :, : PROMPT_LENGTHS[b]],
            in_pages[0, b, :, g, : lengths[b, g]],
            recent[layout.rows[b, g], :, :recent_count],
            own[layout.rows[b, g], :, None],
          ],
          axis=1,
        )
        for g in range(4)
      ]
      for b in range(prompts)
    ]
    for b in range(prompts):
      padding = in_prompts[b, :, PROMPT_LENGTHS[b] :]
      padding[:] = decoding.junk(rng, padding.shape)
    unused = recent[:, :, recent_count:]
    unused[:] = decoding.junk(rng, unused.shape)
    return (in_prompts, decoding.to_pages(rng, layout, in_pages)[0], recent, own), attended

  (keys, attended_keys), (values, attended_values) = make_kind(), make_kind()
  layer = paged_attention.LayerKeys(*(x for pair in zip(keys, values, strict=True) for x in pair))
  queries = scale * normal(rows, K * RATIO, H)
  return Inputs(queries, layer, layout, recent_count, attended_keys, attended_values)


def compute(inputs: Inputs, prompts: int, shards: int, dtype) -> np.ndarray:
  out = jax.jit(paged_attention.attend, static_argnames="shards")(
    jnp.asarray(inputs.queries, dtype),
    jax.tree.map(lambda x: jnp.asarray(x, dtype), inputs.layer),
    inputs.layout.table,
    PROMPT_LENGTHS[:prompts],
    inputs.recent_count,
    shards=shards,
  )
  assert out.dtype == dtype
  return np.asarray(out.astype(jnp.float32))


def expected(inputs: Inputs, b: int, g: int, *, of_magnitudes: bool = False) -> np.ndarray:
  """Returns the attention of a continuation's row, or that to the magnitudes of its values."""
  queries = inputs.queries[inputs.layout.rows[b, g]].reshape(K, RATIO, H).astype(np.float64)
  scores = np.einsum("krh,ksh->krs", queries, inputs.keys[b][g]) / H**0.5
  weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
  weights /= weights.sum(axis=-1, keepdims=True)
  values = np.abs(inputs.values[b][g]) if of_magnitudes else inputs.values[b][g]
  return np.einsum("krs,ksh->krh", weights, values).reshape(K * RATIO, H)


@pytest.mark.long
@pytest.mark.parametrize("recent_count", [0, 4, C])
@pytest.mark.parametrize(("prompts", "shards"), [(2, 1), (4, 1), (4, 2)])
def test_rows_attend_to_their_own_keys(prompts, shards, recent_count):
  inputs = make_inputs(prompts, shards, recent_count, scale=1.0)
  got = compute(inputs, prompts, shards, jnp.float32)
  for b, g in np.argwhere(PRESENT[:prompts]):
    want = expected(inputs, b, g)
    assert np.abs(want).max() > 0.3
    # Rounding of sums of up to 25 numbers of about one; 2.3e-7 measured.
    np.testing.assert_allclose(got[inputs.layout.rows[b, g]], want, rtol=0, atol=1e-6)


def test_large_scores():
  """Scores of up to about 1,000 whose weights would overflow without the common maximum."""
  inputs = make_inputs(4, 2, 4, scale=256.0)
  got = compute(inputs, 4, 2, jnp.float32)
  assert np.abs(got[inputs.layout.rows[PRESENT]]).max() < 10
  for b, g in np.argwhere(PRESENT):
    # Scores of about 1,000 may err by 6e-5, and so may weights; 6e-7 measured.
    np.testing.assert_allclose(
      got[inputs.layout.rows[b, g]], expected(inputs, b, g), rtol=0, atol=2e-4
    )


@pytest.mark.parametrize(("prompts", "shards"), [(4, 1), (4, 2)])
def test_bf16(prompts, shards):
  """Scores, softmax and sums are fp32; what is multiplied with values is bf16."""
  inputs = make_inputs(prompts, shards, 4, scale=4.0)
  got = compute(inputs, prompts, shards, jnp.bfloat16)
  for b, g in np.argwhere(PRESENT[:prompts]):
    # Rounded to bf16, which errs by up to 2^-9, are the weights, the sums over pages and the
    # result; each is at most the weighted sum of the values' magnitudes.
    bound = 3 * 2**-9 * expected(inputs, b, g, of_magnitudes=True)
    error = np.abs(got[inputs.layout.rows[b, g]] - expected(inputs, b, g))
    assert (error < bound).all()
