"""Token sampling from logits: temperature, banned ids, top-k, top-p and min-p, without a sort.

The filters apply in this order, as in HF `LogitsProcessorList`: each sees the distribution that the
one before it left, renormalized. Sources: top-k Fan et al. (arXiv:1805.04833), top-p Holtzman et
al. (arXiv:1904.09751), min-p Nguyen et al. (arXiv:2407.01082).

Top-k and top-p keep all tokens above a threshold. The threshold is found by bisection over the 32
bits of a float, so it is exact, and takes about 20 sums over the vocabulary instead of a sort.

A token is drawn by inverting the cumulative distribution in two steps. The vocabulary is laid out
as a matrix; the first random number picks one of its columns, the second a token of that column.
This needs two random numbers per draw instead of one per token of the vocabulary.

All functions work on each row of `[*b, V]` independently. Axes: V vocabulary, r x c its matrix.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt

# Rows of the vocabulary's matrix: a power of two, so that columns can be summed by halving, and
# about the square root of the vocabulary's size, so that both steps of a draw are short.
LOG2_ROWS = 7
ROWS = 2**LOG2_ROWS


@dataclasses.dataclass(frozen=True)
class Filters:
  """Filters that change the distribution before a token is drawn; hashable, so static under jit.

  Attributes:
    temperature: logits are divided by it. 0 is greedy decoding; the first token wins a tie.
    top_k: keep the k most likely tokens, and all that tie with the last of them; None keeps all.
    top_p: keep the smallest set of most likely tokens whose probabilities sum to at least this.
    min_p: keep tokens at least this fraction as likely as the most likely one.
    banned: token ids that are never drawn.

  Raises:
    ValueError: a filter is out of range; the message names it, its value and what would work.
  """

  temperature: float = 1.0
  top_k: int | None = None
  top_p: float = 1.0
  min_p: float = 0.0
  banned: tuple[int, ...] = ()

  def __post_init__(self):
    object.__setattr__(self, "banned", tuple(sorted(set(self.banned))))
    checks = (
      ("temperature", 0 <= self.temperature < math.inf, "a finite number, 0 or above"),
      ("top_k", self.top_k is None or self.top_k >= 1, "None (off) or at least 1"),
      ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
      ("min_p", 0 <= self.min_p <= 1, "from 0 (off) to 1"),
    )
    for name, good, what in checks:
      if not good:
        raise ValueError(f"filters.{name} is {getattr(self, name)}; it must be {what}")

  def check(self, vocabulary: int) -> None:
    """Checks the banned ids against the size of the vocabulary.

    Raises:
      ValueError: an id is not in the vocabulary, or all ids are banned.
    """
    if outside := [i for i in self.banned if not 0 <= i < vocabulary]:
      raise ValueError(
        f"filters.banned holds {outside[0]}; ids run from 0 to vocab_size - 1 = {vocabulary - 1}"
      )
    if len(self.banned) == vocabulary:
      raise ValueError(f"filters.banned holds all {vocabulary} ids; leave at least one")


class Draw(NamedTuple):
  """Drawn tokens with two log-probs each, in nats.

  Attributes:
    token: ids of the drawn tokens.
    logp: log-prob with temperature and banned ids but before the other filters, which is what a
      trainer recomputes. At temperature 0, log-prob at temperature 1.
    behaviour_logp: log-prob under the filtered distribution that the token was drawn from.
  """

  token: Int[Array, "*b"]
  logp: Float[Array, "*b"]
  behaviour_logp: Float[Array, "*b"]


def draw(filters: Filters, logits: Float[Array, "*b V"], bits: UInt[Array, "*b 2"]) -> Draw:
  """Draws one token per row.

  Args:
    logits: fp32.
    bits: 64 random bits per row. Equal logits and bits give equal tokens.
  """
  scores = _fold(_scale(filters, logits))
  top = scores.max(axis=(-2, -1), keepdims=True)
  weights = jnp.exp(scores - top)
  total = _total(_fold_sums(weights))
  if filters.temperature == 0:
    token = _first(scores == top)
    log_total = jnp.log(total)
    return Draw(token, -log_total, jnp.zeros_like(log_total))
  kept = _truncate(filters, scores, weights, total)
  columns = _fold_sums(kept)
  token = _invert(kept, columns, bits)
  score = jnp.take_along_axis(scores.reshape(*token.shape, -1), token[..., None], axis=-1)[..., 0]
  score = score - top[..., 0, 0]
  return Draw(token, score - jnp.log(total), score - jnp.log(_total(columns)))


def _scale(filters: Filters, logits: Float[Array, "*b V"]) -> Float[Array, "*b V"]:
  """Returns logits divided by the temperature, minus infinity for banned ids."""
  scaled = logits / (filters.temperature or 1.0)
  if not filters.banned:
    return scaled
  banned = jnp.zeros(logits.shape[-1], bool).at[jnp.array(filters.banned)].set(True)
  return jnp.where(banned, -jnp.inf, scaled)


def _truncate(
  filters: Filters,
  scores: Float[Array, "*b r c"],
  weights: Float[Array, "*b r c"],
  total: Float[Array, "*b"],
) -> Float[Array, "*b r c"]:
  """Sets the weights that top-k, top-p and min-p remove to zero.

  Args:
    scores: scaled logits.
    weights: unnormalized probabilities, the largest being 1.
    total: sum of the weights.
  """
  if filters.top_k is not None:
    weights = jnp.where(_top_k(scores, filters.top_k), weights, 0)
    total = _total(_fold_sums(weights))
  if filters.top_p < 1:
    weights = _top_p(weights, total, filters.top_p)
  if filters.min_p > 0:
    weights = jnp.where(weights >= filters.min_p, weights, 0)
  return weights


def _top_k(scores: Float[Array, "*b r c"], k: int) -> Bool[Array, "*b r c"]:
  """Returns a mask of the k tokens with the highest scores, and of all that tie with the k-th."""
  keys = _ordered(scores)
  least = jnp.broadcast_to(_ordered(jnp.float32(-jnp.inf)), scores.shape[:-2])

  def above(threshold):
    return _total(_fold_sums((keys > threshold[..., None, None]).astype(jnp.int32)))

  low, _, _ = _bisect(
    above,
    k,
    unit=jnp.ones_like,
    low=least,
    high=keys.max(axis=(-2, -1)),
    at_low=jnp.full_like(least, scores.size),
  )
  return keys > low[..., None, None]


def _top_p(
  weights: Float[Array, "*b r c"], total: Float[Array, "*b"], p: float
) -> Float[Array, "*b r c"]:
  """Keeps the largest weights that sum to at least `p * total`; of a tie only as many as needed."""
  keys = _ordered(weights)
  target = p * total
  # At most (1 - p) * total may be removed. If each token weighed less than an equal share of this,
  # all of them could go, so the threshold is never below that share: bisection can begin there.
  share = 0.999 * (1 - p) * total / (weights.shape[-2] * weights.shape[-1])

  def above(threshold):
    # A mask with all bits set where the key is above the threshold: on CPU twice as fast as a
    # comparison with a select.
    larger = (threshold[..., None, None] - keys) >> 31
    return _total(_fold_sums(_value(keys & larger)))

  low, high, mass = _bisect(
    above,
    target,
    unit=_value,
    low=_ordered(share),
    high=keys.max(axis=(-2, -1)),
    at_low=total,
  )
  # Tied weights exceed the target only if the bounds are neighbours: all of these equal `high`.
  least = _value(high)
  tied = (low + 1 == high) & (mass >= 1.5 * least)
  surplus = jnp.where(tied, jnp.floor((mass - target) / least), 0)
  last = jax.lax.cond(
    (surplus >= 1).any(),
    lambda: _last_needed(keys == high[..., None, None], surplus),
    lambda: jnp.full_like(low, weights.shape[-2] * weights.shape[-1]),
  )
  index = jnp.arange(weights.shape[-2] * weights.shape[-1]).reshape(weights.shape[-2:])
  dropped = (keys == high[..., None, None]) & (index > last[..., None, None])
  return jnp.where((keys > low[..., None, None]) & ~dropped, weights, 0)


def _last_needed(tied: Bool[Array, "*b r c"], surplus: Float[Array, "*b"]) -> Int[Array, "*b"]:
  """Returns the index of the last tied token that is kept when `surplus` later ones are dropped."""
  flat = tied.reshape(*tied.shape[:-2], -1)
  rank = jnp.cumsum(flat, axis=-1)
  needed = jnp.maximum(rank[..., -1] - surplus.astype(jnp.int32), 1)
  return jnp.argmax(rank == needed[..., None], axis=-1).astype(jnp.int32)


def _bisect(
  above: Callable[[Int[Array, "*b"]], Array],
  target: Array | int,
  *,
  unit: Callable[[Int[Array, "*b"]], Array],
  low: Int[Array, "*b"],
  high: Int[Array, "*b"],
  at_low: Array,
) -> tuple[Int[Array, "*b"], Int[Array, "*b"], Array]:
  """Finds by bisection the smallest set of largest keys that weighs at least `target`.

  Such a set consists of all keys above a threshold.

  Args:
    above: returns the total weight of all keys above a threshold.
    target: the weight that the set must reach.
    unit: returns the smallest possible weight of a single key above a threshold. The search ends
      early once the keys above `low` would miss the target without this weight, or weigh less than
      two such keys: then no key can be removed.
    low: a threshold above which the keys weigh enough, or one below all keys if there is none.
    high: a threshold above which they do not.
    at_low: an upper bound of the weight above `low`.

  Returns:
    `low` and `high` after the search, and the weight above `low`.
  """

  def searching(low, high, at_low):
    least = unit(low)
    return (low + 1 < high) & (at_low - least >= target) & (at_low >= 2 * least)

  def halve(state):
    low, high, at_low = state
    open_ = searching(*state)
    middle = (low & high) + ((low ^ high) >> 1)  # The mean; a sum could overflow.
    at_middle = above(middle)
    enough = at_middle >= target
    return (
      jnp.where(open_ & enough, middle, low),
      jnp.where(open_ & ~enough, middle, high),
      jnp.where(open_ & enough, at_middle, at_low),
    )

  return jax.lax.while_loop(lambda state: searching(*state).any(), halve, (low, high, at_low))


def _invert(
  weights: Float[Array, "*b r c"], columns: Float[Array, "*b c"], bits: UInt[Array, "*b 2"]
) -> Int[Array, "*b"]:
  """Draws a token: first a column in proportion to its sum, then a token of that column."""
  column = _pick(columns, bits[..., 0])
  inside = jnp.take_along_axis(weights, column[..., None, None], axis=-1)[..., 0]
  return _pick(inside, bits[..., 1]) * weights.shape[-1] + column


def _pick(weights: Float[Array, "*b n"], bits: UInt[Array, "*b"]) -> Int[Array, "*b"]:
  """Draws an index in proportion to its weight; never one of weight 0, however sums round."""
  uniform = (bits >> 8).astype(jnp.float32) * 2.0**-24
  cumulative = jnp.where(weights > 0, jnp.cumsum(weights, axis=-1), 0)
  threshold = uniform * cumulative.max(axis=-1)
  return jnp.argmax(cumulative > threshold[..., None], axis=-1).astype(jnp.int32)


def _fold(scores: Float[Array, "*b V"]) -> Float[Array, "*b r c"]:
  """Reshapes the vocabulary to a matrix of `ROWS` rows; padding is minus infinity."""
  padding = -scores.shape[-1] % ROWS
  if padding:
    scores = jnp.pad(
      scores, [(0, 0)] * (scores.ndim - 1) + [(0, padding)], constant_values=-jnp.inf
    )
  return scores.reshape(*scores.shape[:-1], ROWS, -1)


def _fold_sums(x: Array) -> Array:
  """Sums columns `[*b, r, c] -> [*b, c]` by halving: XLA:CPU vectorizes this, but no reduction."""
  for _ in range(LOG2_ROWS):
    half = x.shape[-2] // 2
    x = x[..., :half, :] + x[..., half:, :]
  return x[..., 0, :]


def _total(columns: Array) -> Array:
  return columns.sum(axis=-1)


def _first(mask: Bool[Array, "*b r c"]) -> Int[Array, "*b"]:
  """Returns the first vocabulary index where the mask is true; `r * c` if there is none."""
  index = jnp.arange(mask.shape[-2] * mask.shape[-1], dtype=jnp.int32).reshape(mask.shape[-2:])
  return jnp.where(mask, index, index.size).min(axis=(-2, -1))


def _value(bits: Int[Array, "*b"]) -> Float[Array, "*b"]:
  """Returns the float with these bits; the inverse of `_ordered` for floats from 0."""
  return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _ordered(scores: Float[Array, "*b"]) -> Int[Array, "*b"]:
  """Returns int32 keys in the order of the scores; of a non-negative score, its own bits."""
  bits = jax.lax.bitcast_convert_type(scores, jnp.int32)
  return bits ^ ((bits >> 31) & 0x7FFFFFFF)
