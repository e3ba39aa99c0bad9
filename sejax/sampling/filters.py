"""Token sampling from logits: temperature, banned ids, top-k, top-p and min-p, without a sort.

The filters apply in this order, as in HF `LogitsProcessorList`: each sees the distribution that the
one before it left, renormalized. Sources: top-k Fan et al. (arXiv:1805.04833), top-p Holtzman et
al. (arXiv:1904.09751), min-p Nguyen et al. (arXiv:2407.01082).

Top-k and top-p keep all tokens from a threshold on. Its bits are found from the highest to the
lowest, so it is exact. Each pass over the vocabulary sums what lies above one candidate or several,
and finds one bit on the CPU and four elsewhere; see `BITS_PER_PASS`. The number of passes never
depends on the logits. Top-p takes 28 on the CPU and 7 elsewhere for 32,000 tokens and p = 0.9 or
0.999, since the floats between the smallest possible threshold and 1 differ in 28 bits. Top-k takes
32 and 8, over numbers of half the size.

A token is drawn by inverting the cumulative distribution in two steps. The vocabulary is laid out
as a matrix; the first random number picks one of its columns, the second a token of that column.
This needs two random numbers per draw instead of one per token of the vocabulary.

All functions work on each row of `[*b, V]` independently. Axes: V vocabulary, r x c its matrix.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt

# Rows of the vocabulary's matrix: a power of two, so that columns can be summed by halving, and
# about the square root of the vocabulary's size, so that both steps of a draw are short.
ROWS = 128
# Blocks of rows that the CPU adds elementwise, in one loop, before it sums the rest. With fewer the
# rest is longer, with more the loop runs out of registers.
BLOCKS = 16
# Bits of a threshold that a pass over the vocabulary finds, by 2**bits - 1 sums of what it reads;
# must divide 16. Accelerators wait for memory and for kernels to start, so few passes are best. A
# CPU waits for arithmetic: a pass of two bits takes it 1.1 to 1.3 times as long as two of one bit.
BITS_PER_PASS = {"cpu": 1, "default": 4}
INT16_MIN = np.int16(-(2**15))


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
  scores = _fold(scale(filters, logits))
  top = scores.max(axis=(-2, -1), keepdims=True)
  weights = jnp.exp(scores - top)
  total = _total(_fold_sums(weights))
  if filters.temperature == 0:
    token = _first(scores == top)
    log_total = jnp.log(total)
    return Draw(token, -log_total, jnp.zeros_like(log_total))
  weights, cutoff = _truncate(filters, scores, weights, total)
  columns = _fold_sums(_cut(weights, _ids(weights), cutoff))
  token = _invert(weights, columns, cutoff, bits)
  score = jnp.take_along_axis(scores.reshape(*token.shape, -1), token[..., None], axis=-1)[..., 0]
  score = score - top[..., 0, 0]
  return Draw(token, score - jnp.log(total), score - jnp.log(_total(columns)))


def scale(filters: Filters, logits: Float[Array, "*b V"]) -> Float[Array, "*b V"]:
  """Returns logits divided by the temperature, minus infinity for banned ids."""
  scaled = logits / (filters.temperature or 1.0)
  if not filters.banned:
    return scaled
  banned = jnp.zeros(logits.shape[-1], bool).at[jnp.array(filters.banned)].set(True)
  return jnp.where(banned, -jnp.inf, scaled)


class _Cutoff(NamedTuple):
  """The last token to be kept, in the order of falling weights and, of equal weights, rising ids.

  Attributes:
    weight: its weight.
    id: its id; the size of the vocabulary or more to keep all tokens of this weight.
  """

  weight: Float[Array, "*b"]
  id: Int[Array, "*b"]


def _truncate(
  filters: Filters,
  scores: Float[Array, "*b r c"],
  weights: Float[Array, "*b r c"],
  total: Float[Array, "*b"],
) -> tuple[Float[Array, "*b r c"], _Cutoff | None]:
  """Returns the weights after top-k, and where top-p and min-p cut them off; None if they do not.

  The caller applies the cutoff where it reads the weights, since writing them again takes longer.

  Args:
    scores: scaled logits.
    weights: unnormalized probabilities, the largest being 1.
    total: sum of the weights.
  """
  if filters.top_k is not None:
    weights = jnp.where(_top_k(scores, filters.top_k), weights, 0)
    total = _total(_fold_sums(weights))
  cutoff = _top_p(weights, total, filters.top_p) if filters.top_p < 1 else None
  if filters.min_p > 0:
    min_p = _Cutoff(jnp.full_like(total, filters.min_p), jnp.full(total.shape, scores.size))
    cutoff = min_p if cutoff is None else _stricter(cutoff, min_p)
  return weights, cutoff


def _stricter(a: _Cutoff, b: _Cutoff) -> _Cutoff:
  """Returns the cutoff with the larger weight; `a` if they are equal."""
  return jax.tree.map(functools.partial(jnp.where, a.weight >= b.weight), a, b)


def _cut(
  weights: Float[Array, "*b n"], ids: Int[Array, "*b n"], cutoff: _Cutoff | None
) -> Float[Array, "*b n"]:
  """Sets the weights of the tokens behind the cutoff to zero; also for `[*b, r, c]`."""
  if cutoff is None:
    return weights
  axes = range(cutoff.weight.ndim, weights.ndim)
  weight, last = (jnp.expand_dims(x, axes) for x in cutoff)
  return jnp.where((weights > weight) | (weights == weight) & (ids <= last), weights, 0)


def _top_k(scores: Float[Array, "*b r c"], k: int) -> Bool[Array, "*b r c"]:
  """Returns a mask of the k tokens with the highest scores, and of all that tie with the k-th.

  The upper half of the k-th largest key is found first, then the lower one among the keys with this
  upper half: 16-bit numbers take half the time to read and compare.
  """
  keys = _ordered(scores)
  upper = (keys >> 16).astype(jnp.int16)
  upper_kth, larger = _kth_largest(upper, jnp.full(keys.shape[:-2], k, jnp.float32))
  # The flipped sign bit orders unsigned numbers as signed ones.
  lower = keys.astype(jnp.int16) ^ INT16_MIN
  lower = jnp.where(upper == upper_kth[..., None, None], lower, INT16_MIN)
  lower_kth, _ = _kth_largest(lower, k - larger)
  kth = (upper_kth << 16) | (lower_kth - int(INT16_MIN))
  return keys >= kth[..., None, None]


def _kth_largest(
  keys: Int[Array, "*b r c"], k: Float[Array, "*b"]
) -> tuple[Int[Array, "*b"], Float[Array, "*b"]]:
  """Returns the k-th largest of int16 keys as int32, and how many are larger.

  If there are fewer than k keys, returns the smallest int16.
  """
  return _search(
    lambda x, threshold: (x >= threshold.astype(jnp.int16)).astype(jnp.int16),
    keys,
    target=k,
    low=jnp.full(k.shape, INT16_MIN, jnp.int32),
    bits=16,
  )


def _top_p(weights: Float[Array, "*b r c"], total: Float[Array, "*b"], p: float) -> _Cutoff:
  """Cuts off all but the largest weights that sum to at least `p * total`.

  Of equal weights only as many are kept as needed, those with the smallest ids.
  """
  # A target of zero, which a tiny p would round to, would be met by no token at all.
  target = jnp.maximum(p * total, jnp.finfo(jnp.float32).tiny)
  # At most (1 - p) * total may be removed. If each token weighed less than an equal share of this,
  # all of them could go, so the threshold is never below that share: the search can begin there.
  # It ends at 1, the largest weight. The total is at least 1, which bounds the bits in between.
  share = 0.999 * (1 - p) / math.prod(weights.shape[-2:])
  first, last = (int(np.float32(weight).view(np.int32)) for weight in (share, 1))
  key, above = _search(
    lambda x, threshold: jnp.where(x >= _value(threshold), x, 0),
    weights,
    target=target,
    low=_ordered(share * total),
    bits=(last - first).bit_length(),
  )
  least = _value(key)
  return _Cutoff(least, _last_needed(weights, least, jnp.ceil((target - above) / least)))


def _last_needed(
  weights: Float[Array, "*b r c"], tied: Float[Array, "*b"], needed: Float[Array, "*b"]
) -> Int[Array, "*b"]:
  """Returns the id of the `needed`-th token that weighs `tied`, or of the last one if too few do.

  It counts such tokens in groups of rows, in the rows of one group, and in one row.
  """
  *batch, r, c = weights.shape
  groups = weights.reshape(*batch, r // BLOCKS, BLOCKS, c)
  tied = tied[..., None, None]

  def is_tied(x):
    return (x == tied[..., None]).astype(jnp.float32)

  counts = jax.lax.platform_dependent(
    groups,
    cpu=functools.partial(_sum_in_blocks, is_tied),
    default=functools.partial(_sum_at_once, is_tied),
  )
  group, needed = _find(counts, jnp.clip(needed, 1, counts.sum(-1)))
  rows = jnp.take_along_axis(groups, group[..., None, None, None], axis=-3)[..., 0, :, :]
  row, needed = _find((rows == tied).astype(jnp.float32).sum(-1), needed)
  tokens = jnp.take_along_axis(rows, row[..., None, None], axis=-2)[..., 0, :]
  column, _ = _find((tokens == tied[..., 0]).astype(jnp.float32), needed)
  return (group * BLOCKS + row) * c + column


def _find(
  counts: Float[Array, "*b n"], needed: Float[Array, "*b"]
) -> tuple[Int[Array, "*b"], Float[Array, "*b"]]:
  """Returns where the running sum of the counts reaches `needed`, and what was needed before it."""
  sums = jnp.cumsum(counts, axis=-1)
  reached = sums >= needed[..., None]
  before = jnp.where(reached, 0, sums).max(-1)
  return jnp.argmax(reached, axis=-1).astype(jnp.int32), needed - before


def _search(
  term: Callable[[Array, Int[Array, "*b 1 1"]], Array],
  matrix: Array,
  *,
  target: Float[Array, "*b"],
  low: Int[Array, "*b"],
  bits: int,
) -> tuple[Int[Array, "*b"], Float[Array, "*b"]]:
  """Finds the largest threshold from which on the matrix sums to at least `target`.

  Args:
    term: called with a part of the matrix and `threshold`, returns the terms to be summed. The sum
      must not rise with the threshold. Rounding keeps it so: all sums add their terms in the same
      order, and a rounded sum never falls when a term rises.
    matrix: shape `[*b, r, c]`.
    low: smallest threshold, returned if no larger one will do.
    bits: thresholds are below `low + 2**bits`, from which on the sum must be zero.

  Returns:
    The threshold, and the sum from the next larger one on.
  """
  cpu, default = (
    functools.partial(
      _search_bits, term=term, sums=sums, bits=bits, bits_per_pass=BITS_PER_PASS[platform]
    )
    for platform, sums in (("cpu", _sum_in_blocks), ("default", _sum_at_once))
  )
  return jax.lax.platform_dependent(matrix, target, low, cpu=cpu, default=default)


def _search_bits(
  matrix: Array,
  target: Float[Array, "*b"],
  low: Int[Array, "*b"],
  *,
  term: Callable[[Array, Int[Array, "*b 1 1"]], Array],
  sums: Callable[[Callable[[Array], Array], Array], Float[Array, "*b"]],
  bits: int,
  bits_per_pass: int,
) -> tuple[Int[Array, "*b"], Float[Array, "*b"]]:
  """Implements `_search` for one platform, with its way to sum over a matrix."""
  digits = range(1, 2**bits_per_pass)

  def refine(i, state):
    low, above = state
    # If the last pass has fewer bits left to find, some candidates are too large and do not count.
    shift = jnp.maximum(bits - bits_per_pass * (i + 1), 0)
    candidates = [(low + (digit << shift))[..., None, None] for digit in digits]
    found = jnp.stack([sums(functools.partial(term, threshold=t), matrix) for t in candidates], -1)
    enough = found >= target[..., None]
    low = low + (enough.sum(-1, dtype=jnp.int32) << shift)
    return low, jnp.maximum(above, jnp.where(enough, 0, found).max(-1))

  return jax.lax.fori_loop(0, -(-bits // bits_per_pass), refine, (low, jnp.zeros_like(target)))


def _sum_in_blocks(term: Callable[[Array], Array], matrix: Array) -> Float[Array, "*b"]:
  """Sums `term(matrix)` over rows and columns `[*b, r, c] -> [*b]`, fast on the CPU.

  XLA:CPU adds the blocks of rows in one vectorized loop. What this leaves is summed by a product
  with ones, since XLA:CPU would split that loop to fuse its additions with a sum.
  """
  terms = [term(block) for block in jnp.split(matrix, BLOCKS, axis=-2)]
  while len(terms) > 1:
    terms = [a + b for a, b in zip(terms[::2], terms[1::2], strict=True)]
  rest = terms[0].astype(jnp.float32).reshape(*matrix.shape[:-2], -1)
  return jnp.matmul(rest, jnp.ones(rest.shape[-1]), precision=jax.lax.Precision.HIGHEST)


def _sum_at_once(term: Callable[[Array], Array], matrix: Array) -> Float[Array, "*b"]:
  """Sums `term(matrix)` over rows and columns `[*b, r, c] -> [*b]`, fast on accelerators.

  Their compilers fuse sums over the same matrix to a single pass.
  """
  return term(matrix).sum((-2, -1), dtype=jnp.float32)


def _invert(
  weights: Float[Array, "*b r c"],
  columns: Float[Array, "*b c"],
  cutoff: _Cutoff | None,
  bits: UInt[Array, "*b 2"],
) -> Int[Array, "*b"]:
  """Draws a token: first a column in proportion to its sum, then a token of that column.

  Args:
    weights: before the cutoff.
    columns: sums of the weights after the cutoff.
  """
  column = _pick(columns, bits[..., 0])
  inside = jnp.take_along_axis(weights, column[..., None, None], axis=-1)[..., 0]
  ids = jnp.arange(weights.shape[-2]) * weights.shape[-1] + column[..., None]
  row = _pick(_cut(inside, ids, cutoff), bits[..., 1])
  return row * weights.shape[-1] + column


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
  while x.shape[-2] > 1:
    half = x.shape[-2] // 2
    x = x[..., :half, :] + x[..., half:, :]
  return x[..., 0, :]


def _total(columns: Array) -> Array:
  return columns.sum(axis=-1)


def _first(mask: Bool[Array, "*b r c"]) -> Int[Array, "*b"]:
  """Returns the first vocabulary index where the mask is true; `r * c` if there is none."""
  size = mask.shape[-2] * mask.shape[-1]
  return jnp.where(mask, _ids(mask), size).min(axis=(-2, -1))


def _ids(matrix: Array) -> Int[Array, "*b r c"]:
  """Returns the token id of each element of a matrix `[*b, r, c]`.

  It is computed from iotas of the full shape, which XLA fuses with what reads them.
  """
  row, column = (jax.lax.broadcasted_iota(jnp.int32, matrix.shape, matrix.ndim - i) for i in (2, 1))
  return row * matrix.shape[-1] + column


def _value(bits: Int[Array, "*b"]) -> Float[Array, "*b"]:
  """Returns the float with these bits; the inverse of `_ordered` for floats from 0."""
  return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _ordered(scores: Float[Array, "*b"]) -> Int[Array, "*b"]:
  """Returns int32 keys in the order of the scores; of a non-negative score, its own bits."""
  bits = jax.lax.bitcast_convert_type(scores, jnp.int32)
  return bits ^ ((bits >> 31) & 0x7FFFFFFF)
