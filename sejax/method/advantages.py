"""The energy distribution of a group over its trajectories, and advantages derived from it."""

import math
import numbers

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sejax.method import inputs

ADVANTAGES = (
  "log_q",
  "centered",
  "standardized",
  "log_mean_exp",
  "rloo",
  "opo",
  "pass_at_k",
  "gdpo",
)
# Those that are whitened over the batch that an optimizer sees, see `whiten`.
WHITENED = ("gdpo",)

_STD_EPSILON = 1e-6  # as in the paper's released code and in verl's GRPO
_WHITENING_EPSILON = 1e-8  # as in verl


def log_q_and_advantage(
  rewards: Float[Array, "*K B G"],
  lengths: Int[Array, "B G"] | None = None,
  *,
  beta: float,
  clip_adv: float | None,
  advantage: str,
  reward_weights: tuple[float, ...] = (),
) -> tuple[Float[Array, "B G"], Float[Array, "B G"]]:
  """Returns log-probabilities log q of the groups' energy distributions, and advantages A.

  As in arXiv:2603.21289, log q_k = beta R_k - logsumexp_j(beta R_j), clipped to
  [-clip_adv, clip_adv] if `clip_adv` is given. With x = log q if it is clipped and beta R
  otherwise, which differ by what cancels in a difference, the advantage is

  - `centered`: A = x - mean(x), the released run. Its code uses the log-softmax of the rewards as
    reward and subtracts the mean of the group, as GRPO does. Of Dr. GRPO (arXiv:2503.20783), too.
  - `log_q`: A = log q, the formula in the paper's text, which the released run does not use. It is
    never positive, and -log G in a group of equal rewards.
  - `log_mean_exp`: A = log q + log G, that is, beta R minus the log of the mean of exp(beta R),
    not of the sum. It is positive for q above 1/G. `clip_adv` bounds A itself, so that it is 0 in a
    group of equal rewards.
  - `standardized`: the centered advantage over (std + 1e-6); std has G - 1 in the denominator. This
    is verl's GRPO; TRL adds 1e-4.
  - `rloo` (arXiv:2402.14740): x minus the mean of the others, (x - mean(x)) G / (G - 1).
  - `opo` (arXiv:2505.23585): x minus the mean that weighs trajectories by their tokens.
  - `pass_at_k` (arXiv:2503.19595): the best trajectory has (x - the second best) / (std + 1e-6),
    the others 0, and so have all if two are best. verl's `grpo_passk`.
  - `gdpo` (arXiv:2601.05242): the weighted sum of several rewards, of which each is standardized
    by itself, without beta and clip_adv. Training then whitens it, see `whiten`.

  All others are of the weighted mean of several rewards.

  A is exactly 0 in a group of equal x, also in a group of one, under `centered`, `standardized`,
  `rloo`, `opo`, `pass_at_k` and, until it is whitened, `gdpo`; and in a group of equal R under
  `log_mean_exp`. (verl gives R to a group of one under `rloo` and `opo`, and refuses it under
  `pass_at_k`.)

  Args:
    rewards: R; any finite values, one group per row; K of them in front, if there are several.
    lengths: tokens of each trajectory; needed by `opo`, may be None otherwise.
    beta: inverse temperature of the distribution, above 0.
    clip_adv: bound on |log q|, or on |A| under `log_mean_exp`; above 0, or None for no bound.
    advantage: one of `ADVANTAGES`.
    reward_weights: of the K rewards, each at least 0; empty weighs them equally.

  Returns:
    log q (clipped) and A.

  Raises:
    OptionError: an option is unknown or out of its range, or lengths are missing.
  """
  inputs.one_of("advantage", advantage, ADVANTAGES)
  inputs.positive("beta", beta)
  if clip_adv is not None:
    inputs.positive("clip_adv", clip_adv)
  if lengths is None and advantage == "opo":
    wanted = "another one, such as rloo, where the trajectories' lengths in tokens are not known"
    raise inputs.OptionError("advantage", advantage, wanted)
  rewards = jnp.asarray(rewards, jnp.float32)
  several = rewards if rewards.ndim == 3 else rewards[None]
  scaled = beta * weighted_mean(several, reward_weights)
  log_q = jax.nn.log_softmax(scaled, axis=1)
  above_uniform = jnp.where(_is_constant(log_q), 0.0, log_q + math.log(log_q.shape[1]))
  if clip_adv is not None:
    log_q = jnp.clip(log_q, -clip_adv, clip_adv)
    above_uniform = jnp.clip(above_uniform, -clip_adv, clip_adv)
  match advantage:
    case "log_q":
      return log_q, log_q
    case "log_mean_exp":
      return log_q, above_uniform
    case "gdpo":
      return log_q, _sum_of_standardized(several, reward_weights)
  x = jnp.where(_is_constant(log_q), 0.0, scaled if clip_adv is None else log_q)
  return log_q, _relative(x, lengths, advantage)


@jax.jit
def whiten(advantage: Float[Array, "B G"], lengths: Int[Array, "B G"]) -> Float[Array, "B G"]:
  """Returns (A - mean) / sqrt(var + 1e-8) over the tokens of a batch, GDPO's last step.

  A trajectory counts once for each of its tokens, and var has their number less 1 in the
  denominator. This is verl's rule; TRL counts trajectories, and adds 1e-4 to the std.

  Args:
    advantage: A of every trajectory that is trained on in a step, not of a part of them.
    lengths: tokens of each trajectory; 0 leaves it out of mean and variance.
  """
  count = jnp.sum(lengths)
  centered = advantage - jnp.sum(lengths * advantage) / jnp.maximum(count, 1)
  variance = jnp.sum(lengths * jnp.square(centered)) / jnp.maximum(count - 1, 1)
  return centered * jax.lax.rsqrt(variance + _WHITENING_EPSILON)


def _relative(
  x: Float[Array, "B G"], lengths: Int[Array, "B G"] | None, advantage: str
) -> Float[Array, "B G"]:
  """Returns the advantages that compare a trajectory with its group, 0 where all x are 0."""
  G = x.shape[1]
  if G == 1:
    return jnp.zeros_like(x)
  centered = x - jnp.mean(x, axis=1, keepdims=True)
  match advantage:
    case "centered":
      return centered
    case "standardized":
      return centered / (_std(x) + _STD_EPSILON)
    case "rloo":
      return centered * (G / (G - 1))
    case "opo":
      tokens = jnp.sum(lengths, axis=1, keepdims=True)
      share = jnp.where(tokens > 0, lengths / jnp.maximum(tokens, 1), 1 / G)
      return centered - jnp.sum(share * centered, axis=1, keepdims=True)
    case "pass_at_k":
      best, second = jnp.split(jax.lax.top_k(x, 2)[0], 2, axis=1)
      return jnp.where(x == best, best - second, 0.0) / (_std(x) + _STD_EPSILON)


def weighted_mean(
  rewards: Float[Array, "K B G"], weights: tuple[float, ...]
) -> Float[Array, "B G"]:
  """Returns the mean of several rewards.

  Args:
    weights: of the K rewards; empty weighs them equally.

  Raises:
    ValueError: there are not K weights, or they are out of range.
  """
  weights = _checked_weights(weights, len(rewards))
  return sum(w * x for w, x in zip(weights, rewards, strict=True)) / sum(weights)


def _checked_weights(weights: tuple[float, ...], count: int) -> tuple[float, ...]:
  weights = weights or (1.0,) * count
  in_range = all(isinstance(w, numbers.Real) and 0 <= w <= inputs.LARGEST for w in weights)
  if len(weights) != count or not in_range or not any(weights):
    wanted = f"of {count} numbers in [0, {inputs.LARGEST:g}], not all 0"
    raise inputs.OptionError("reward_weights", weights, wanted)
  return weights


def _sum_of_standardized(
  rewards: Float[Array, "K B G"], weights: tuple[float, ...]
) -> Float[Array, "B G"]:
  """Returns the weighted sum of the advantages by each reward alone."""
  return sum(
    w * _relative(jnp.where(_is_constant(x), 0.0, x), None, "standardized")
    for w, x in zip(_checked_weights(weights, len(rewards)), rewards, strict=True)
  )


def _std(x: Float[Array, "B G"]) -> Float[Array, "B 1"]:
  """Returns the standard deviation of each group, with G - 1 in the denominator."""
  centered = x - jnp.mean(x, axis=1, keepdims=True)
  return jnp.sqrt(jnp.sum(jnp.square(centered), axis=1, keepdims=True) / (x.shape[1] - 1))


def _is_constant(log_q: Float[Array, "B G"]) -> Bool[Array, "B 1"]:
  """Whether the log q of a group, or its rewards, are equal up to float32 rounding.

  Equal rewards can give log q that differ by about two units in the last place, since vector lanes
  may round differently. The std of such a group is a rounding error, and dividing by it would give
  advantages of order one. The bound of 2 eps is 2 to 4 units in the last place; a larger one would
  hide real differences.
  """
  highest = jnp.max(log_q, axis=1, keepdims=True)
  lowest = jnp.min(log_q, axis=1, keepdims=True)
  rounding = 2.0 * jnp.finfo(log_q.dtype).eps * jnp.abs(lowest)
  return highest - lowest <= rounding
