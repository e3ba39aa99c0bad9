"""Rewards and advantages of a batch of groups from votes and verdicts, in one compiled call."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from sejax.method import consistency, inputs
from sejax.method.advantages import log_q_and_advantage, weighted_mean
from sejax.method.modulation import modulation_factor
from sejax.method.rewards import reward

# Options as pairs of name and value, which can be hashed as a static argument.
Options = tuple[tuple[str, object], ...]


class Group(NamedTuple):
  """Rewards and advantages of each trajectory, with the results of all stages of the method.

  Attributes:
    self_consistency: r in [0, 1], agreement of the group with the trajectory's answer.
    factor: g, modulation of the reward by the Judge's score.
    reward: R = clip(r g + penalty, 0, 1), less the punishment of overlong trajectories; the mean of
      several rewards.
    log_q: log-probability under the group's energy distribution, clipped by `clip_adv`.
    advantage: A, weight of the trajectory in the policy loss; for advantages of `WHITENED`, before
      they are whitened over the batch.
  """

  self_consistency: Float[Array, "B G"]
  factor: Float[Array, "B G"]
  reward: Float[Array, "B G"]
  log_q: Float[Array, "B G"]
  advantage: Float[Array, "B G"]


def group(
  answer_ids: Int[ArrayLike, "B G"],
  format_ok: Bool[ArrayLike, "B G"],
  judge_scores: Float[ArrayLike, "B G"] | None,
  judge_valid: Bool[ArrayLike, "B G"] | None,
  lengths: Int[ArrayLike, "B G"] | None = None,
  max_tokens: int | None = None,
  *,
  self_consistency: str = "threshold",
  tie: str = "none",
  threshold: float = 0.85,
  alpha: float = 1.0,
  dirichlet_beta: float = 22.0,
  margin: float = 0.06,
  lam_pos: float = 0.2,
  lam_neg: float = 0.2,
  t_h: float = 0.95,
  t_l: float = 0.40,
  tau_h: float = 0.02,
  tau_l: float = 0.05,
  g_min: float = 0.8,
  g_max: float = 1.2,
  invalid_verdict: str = "neutral",
  format_penalty: float = -0.5,
  overlong_buffer: int = 0,
  overlong_factor: float = 1.0,
  beta: float = 1.0,
  clip_adv: float | None = None,
  advantage: str = "centered",
  reward_weights: tuple[float, ...] = (),
) -> Group:
  """Returns rewards and advantages of B groups of G trajectories (arXiv:2603.21289).

  The defaults are those of the released run, except `invalid_verdict`: the released code counts an
  unreadable verdict as score 0 (`zero`). Options are static: each new shape or set of options
  compiles once.

  Args:
    answer_ids: equal numbers for equal answers of a group; -1 abstains.
    format_ok: whether the trajectory keeps the output format.
    judge_scores: the Judge's scores; NaN and numbers outside of [0, 1] count as invalid. None
      without a Judge: all factors are 1.
    judge_valid: whether the score could be read; None without a Judge.
    lengths: tokens of each trajectory, which some advantages and the punishment of overlong ones
      need; None if they are not known.
    max_tokens: the longest response, which that punishment needs.
    self_consistency: `frequency`, `threshold`, `majority` or `dirichlet`. For this and the next
      five see `sejax.method.consistency.self_consistency`.
    tie: answer that `majority` rewards on a tie: `none`, or the `first`.
    threshold: share of votes above which the majority answer gets all the reward, in [0.5, 1].
    alpha: pseudo-count of `dirichlet`.
    dirichlet_beta: sharpness of `dirichlet`.
    margin: margin of `dirichlet`, in log-probability.
    lam_pos: largest increase of the factor. For this and the next eight see
      `sejax.method.modulation.modulation_factor`.
    lam_neg: largest decrease of the factor.
    t_h: score of half the increase.
    t_l: score of half the decrease.
    tau_h: width of the increase, in units of the score.
    tau_l: width of the decrease, in units of the score.
    g_min: lower bound of the factor.
    g_max: upper bound of the factor.
    invalid_verdict: `neutral` (factor 1) or `zero` (score 0).
    format_penalty: added to the reward of a trajectory that breaks the format, at most 0.
    overlong_buffer: tokens before `max_tokens` over which a punishment grows, see
      `sejax.method.length_penalty.soft_overlong`; 0 punishes no length.
    overlong_factor: the largest punishment.
    beta: inverse temperature of the energy distribution. For this and the next two see
      `sejax.method.advantages.log_q_and_advantage`.
    clip_adv: bound on |log q|; None for no bound.
    advantage: `centered`, `log_q`, `log_mean_exp`, `standardized`, `rloo`, `opo`, `pass_at_k` or
      `gdpo`.
    reward_weights: weights of several rewards from a reward function, see `group_of_rewards`; not
      read here, where there is one.

  Returns:
    A `Group` of float32 `[B, G]` arrays.

  Raises:
    ValueError: an option is unknown or out of its range, an array has the wrong shape or type, or
      lengths are needed and not given.
  """
  arrays = {
    "answer_ids": inputs.integers("answer_ids", answer_ids),
    "format_ok": inputs.flags("format_ok", format_ok),
    **inputs.verdicts(judge_scores, judge_valid),
    **_lengths(lengths, max_tokens, overlong_buffer),
  }
  inputs.same_group_shape(**arrays)
  return _group(
    **arrays,
    vote=_static(
      rule=self_consistency,
      tie=tie,
      threshold=threshold,
      alpha=alpha,
      dirichlet_beta=dirichlet_beta,
      margin=margin,
    ),
    judge=_static(
      lam_pos=lam_pos,
      lam_neg=lam_neg,
      t_h=t_h,
      t_l=t_l,
      tau_h=tau_h,
      tau_l=tau_l,
      g_min=g_min,
      g_max=g_max,
      invalid_verdict=invalid_verdict,
    ),
    penalty=_static(
      format_penalty=format_penalty,
      max_tokens=max_tokens,
      overlong_buffer=overlong_buffer,
      overlong_factor=overlong_factor,
    ),
    distribution=_static(beta=beta, clip_adv=clip_adv, advantage=advantage),
  )


def group_of_rewards(
  base: Float[ArrayLike, "*K B G"],
  format_ok: Bool[ArrayLike, "B G"],
  lengths: Int[ArrayLike, "B G"] | None = None,
  max_tokens: int | None = None,
  is_bounded: bool = True,
  *,
  format_penalty: float = -0.5,
  overlong_buffer: int = 0,
  overlong_factor: float = 1.0,
  beta: float = 1.0,
  clip_adv: float | None = None,
  advantage: str = "centered",
  reward_weights: tuple[float, ...] = (),
) -> Group:
  """Returns rewards and advantages of groups whose base rewards come from a reward function.

  Args:
    base: rewards in place of self-consistency; the factor is 1. Of K of them, each has its
      penalties; their mean is the reward R, and `gdpo` standardizes each by itself.
    format_ok: whether the trajectory keeps the output format.
    lengths: as in `group`, like all others.
    max_tokens: the longest response.
    is_bounded: whether base rewards are in [0, 1], and stay so with the format penalty.
    format_penalty: added where the format is broken.
    overlong_buffer: tokens over which the punishment of overlong trajectories grows.
    overlong_factor: the largest punishment.
    beta: inverse temperature of the energy distribution.
    clip_adv: bound on |log q|; None for no bound.
    advantage: rule of the advantage.
    reward_weights: of the K rewards; empty weighs them equally.

  Returns:
    A `Group` of float32 `[B, G]` arrays.

  Raises:
    ValueError: an option is unknown or out of its range, an array has the wrong shape or type, or
      lengths are needed and not given.
  """
  base = inputs.reals("base", base)
  others = {
    "format_ok": inputs.flags("format_ok", format_ok),
    **_lengths(lengths, max_tokens, overlong_buffer),
  }
  inputs.same_group_shape(base=base if base.ndim < 3 else base[0], **others)
  return _group_of_rewards(
    base=base,
    **others,
    penalty=_static(
      is_bounded=is_bounded,
      format_penalty=format_penalty,
      max_tokens=max_tokens,
      overlong_buffer=overlong_buffer,
      overlong_factor=overlong_factor,
    ),
    distribution=_static(
      beta=beta, clip_adv=clip_adv, advantage=advantage, reward_weights=reward_weights
    ),
  )


@functools.partial(jax.jit, static_argnames=("vote", "judge", "penalty", "distribution"))
def _group(
  *,
  answer_ids: Int[Array, "B G"],
  format_ok: Bool[Array, "B G"],
  judge_scores: Float[Array, "B G"] | None = None,
  judge_valid: Bool[Array, "B G"] | None = None,
  lengths: Int[Array, "B G"] | None = None,
  vote: Options,
  judge: Options,
  penalty: Options,
  distribution: Options,
) -> Group:
  r = consistency.self_consistency(answer_ids, **dict(vote))
  g = jnp.ones_like(r)
  if judge_scores is not None:
    g = modulation_factor(judge_scores, judge_valid, **dict(judge))
  return _rewards_and_advantages(r, g, format_ok, lengths, penalty, distribution)


@functools.partial(jax.jit, static_argnames=("penalty", "distribution"))
def _group_of_rewards(
  *,
  base: Float[Array, "*K B G"],
  format_ok: Bool[Array, "B G"],
  lengths: Int[Array, "B G"] | None = None,
  penalty: Options,
  distribution: Options,
) -> Group:
  factor = jnp.ones(format_ok.shape, base.dtype)
  return _rewards_and_advantages(base, factor, format_ok, lengths, penalty, distribution)


def _rewards_and_advantages(
  r: Float[Array, "*K B G"],
  g: Float[Array, "B G"],
  format_ok: Bool[Array, "B G"],
  lengths: Int[Array, "B G"] | None,
  penalty: Options,
  distribution: Options,
) -> Group:
  R = reward(r, g, format_ok, lengths, **dict(penalty))
  log_q, A = log_q_and_advantage(R, lengths, **dict(distribution))
  if R.ndim == 3:
    weights = dict(distribution)["reward_weights"]
    r, R = weighted_mean(r, weights), weighted_mean(R, weights)
  return Group(self_consistency=r, factor=g, reward=R, log_q=log_q, advantage=A)


def _lengths(
  lengths: Int[ArrayLike, "B G"] | None, max_tokens: int | None, overlong_buffer: int
) -> dict[str, Int[Array, "B G"]]:
  """Returns the lengths by name, if there are any, and checks that they are where needed."""
  if overlong_buffer and (lengths is None or max_tokens is None):
    wanted = "0 where the trajectories' lengths in tokens and max_tokens are not known"
    raise inputs.OptionError("overlong_buffer", overlong_buffer, wanted)
  return {} if lengths is None else {"lengths": inputs.integers("lengths", lengths)}


def _static(**options: object) -> Options:
  """Packs options for a static argument of jit, which must be hashable."""
  inputs.python_values(**options)
  return tuple(options.items())
