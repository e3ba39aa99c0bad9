"""Votes and verdicts of a batch of groups to rewards and advantages, in one compiled call."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from sejax.method import inputs
from sejax.method.advantages import log_q_and_advantage
from sejax.method.consistency import self_consistency as consistency
from sejax.method.modulation import modulation_factor
from sejax.method.rewards import reward

Options = tuple[tuple[str, object], ...]


class Group(NamedTuple):
  """What the method makes of each trajectory, stage by stage.

  Attributes:
    self_consistency: r in [0, 1], the group's agreement with the trajectory's answer.
    factor: g, the Judge's bounded modulation.
    reward: R = clip(r g + penalty, 0, 1).
    log_q: log-probability under the group's energy distribution, clipped where asked.
    advantage: A, what the update weighs the trajectory by.
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
  beta: float = 1.0,
  clip_adv: float | None = None,
  advantage: str = "centered",
) -> Group:
  """Rewards and advantages of B groups of G trajectories (arXiv:2603.21289).

  The defaults are those of the released run, but for `invalid_verdict`, where the released code
  counts an unreadable verdict as score 0 (`zero`). Options are static: each new shape or set of
  options compiles once.

  Args:
    answer_ids: equal answers of a group by equal labels, -1 where it abstains.
    format_ok: whether the trajectory keeps the output format.
    judge_scores: the Judge's scores in [0, 1]; NaN, infinite and off-scale ones are invalid. None
      where there is no Judge: every factor is 1.
    judge_valid: whether a score could be read; None where there is no Judge.
    self_consistency: `frequency`, `threshold`, `majority` or `dirichlet`; this and the next five
      are explained in `sejax.method.consistency.self_consistency`.
    tie: what `majority` rewards on a tie: `none`, or the `first` answer.
    threshold: share above which the majority takes all, in [0.5, 1].
    alpha: pseudo-count of `dirichlet`.
    dirichlet_beta: sharpness of `dirichlet`.
    margin: margin of `dirichlet`.
    lam_pos: largest raise by the Judge; this and the next eight are explained in
      `sejax.method.modulation.modulation_factor`.
    lam_neg: largest cut by the Judge.
    t_h: score at which half the raise is given.
    t_l: score at which half the cut is taken.
    tau_h: width of the raise.
    tau_l: width of the cut.
    g_min: least factor.
    g_max: largest factor.
    invalid_verdict: `neutral` (factor 1) or `zero` (score 0).
    format_penalty: added to the reward of a trajectory that breaks the format, at most 0.
    beta: inverse temperature of the group's distribution; this and the next two are explained in
      `sejax.method.advantages.log_q_and_advantage`.
    clip_adv: bound on |log q|, or None.
    advantage: `centered`, `log_q`, `log_mean_exp` or `standardized`.

  Returns:
    A `Group` of float32 `[B, G]` arrays.

  Raises:
    ValueError: an option is unknown or out of its range, or an array has the wrong shape or type.
  """
  arrays = {
    "answer_ids": inputs.integers("answer_ids", answer_ids),
    "format_ok": inputs.flags("format_ok", format_ok),
    **inputs.verdicts(judge_scores, judge_valid),
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
    penalty=_static(format_penalty=format_penalty),
    distribution=_static(beta=beta, clip_adv=clip_adv, advantage=advantage),
  )


def group_of_rewards(
  base: Float[ArrayLike, "B G"],
  format_ok: Bool[ArrayLike, "B G"],
  *,
  format_penalty: float = -0.5,
  beta: float = 1.0,
  clip_adv: float | None = None,
  advantage: str = "centered",
) -> Group:
  """The steps behind the votes and verdicts, for rewards that come from elsewhere.

  Args:
    base: in [0, 1], in place of self-consistency; the factor is 1.
    format_ok: whether the trajectory keeps the output format.
    format_penalty: this and the next three as in `group`.
    beta: inverse temperature of the group's distribution.
    clip_adv: bound on |log q|, or None.
    advantage: `centered`, `log_q`, `log_mean_exp` or `standardized`.

  Returns:
    A `Group` of float32 `[B, G]` arrays.

  Raises:
    ValueError: an option is unknown or out of its range, or an array has the wrong shape or type.
  """
  arrays = {"base": inputs.reals("base", base), "format_ok": inputs.flags("format_ok", format_ok)}
  inputs.same_group_shape(**arrays)
  return _group_of_rewards(
    **arrays,
    penalty=_static(format_penalty=format_penalty),
    distribution=_static(beta=beta, clip_adv=clip_adv, advantage=advantage),
  )


@functools.partial(jax.jit, static_argnames=("vote", "judge", "penalty", "distribution"))
def _group(
  *,
  answer_ids: Int[Array, "B G"],
  format_ok: Bool[Array, "B G"],
  judge_scores: Float[Array, "B G"] | None = None,
  judge_valid: Bool[Array, "B G"] | None = None,
  vote: Options,
  judge: Options,
  penalty: Options,
  distribution: Options,
) -> Group:
  r = consistency(answer_ids, **dict(vote))
  g = jnp.ones_like(r)
  if judge_scores is not None:
    g = modulation_factor(judge_scores, judge_valid, **dict(judge))
  return _distribute(r, g, format_ok, penalty, distribution)


@functools.partial(jax.jit, static_argnames=("penalty", "distribution"))
def _group_of_rewards(
  *,
  base: Float[Array, "B G"],
  format_ok: Bool[Array, "B G"],
  penalty: Options,
  distribution: Options,
) -> Group:
  return _distribute(base, jnp.ones_like(base), format_ok, penalty, distribution)


def _distribute(
  r: Float[Array, "B G"],
  g: Float[Array, "B G"],
  format_ok: Bool[Array, "B G"],
  penalty: Options,
  distribution: Options,
) -> Group:
  R = reward(r, g, format_ok, **dict(penalty))
  log_q, A = log_q_and_advantage(R, **dict(distribution))
  return Group(self_consistency=r, factor=g, reward=R, log_q=log_q, advantage=A)


def _static(**options: object) -> Options:
  inputs.plain(**options)
  # A tuple can be hashed, as a static argument must be; a dict cannot.
  return tuple(options.items())
