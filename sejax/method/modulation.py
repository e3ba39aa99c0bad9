"""The Judge's scores as a bounded factor on the self-consistency reward."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sejax.method import inputs

INVALID_VERDICTS = ("zero", "neutral")


def readable(
  judge_scores: Float[Array, "B G"], judge_valid: Bool[Array, "B G"]
) -> tuple[Float[Array, "B G"], Bool[Array, "B G"]]:
  """Scores that can be used and where they are.

  A score counts only if its verdict is valid and it lies in [0, 1]; NaN and infinities do not,
  whatever `judge_valid` says.

  Returns:
    The scores with 0 in place of unusable ones, and the mask of usable ones.
  """
  scores = jnp.asarray(judge_scores, jnp.float32)
  usable = judge_valid & (scores >= 0.0) & (scores <= 1.0)
  return jnp.where(usable, scores, 0.0), usable


def modulation_factor(
  judge_scores: Float[Array, "B G"],
  judge_valid: Bool[Array, "B G"],
  *,
  lam_pos: float,
  lam_neg: float,
  t_h: float,
  t_l: float,
  tau_h: float,
  tau_l: float,
  g_min: float,
  g_max: float,
  invalid_verdict: str,
) -> Float[Array, "B G"]:
  """Bounded modulation factor g of every trajectory (arXiv:2603.21289).

  g(s) = 1 + lam_pos sigmoid((s - t_h) / tau_h) - lam_neg sigmoid((t_l - s) / tau_l), clipped to
  [g_min, g_max]: a score above t_h raises the reward, one below t_l lowers it.

  Args:
    judge_scores: the Judge's overall score s.
    judge_valid: whether a score could be read; see `readable` for what else makes it invalid.
    lam_pos: largest raise, at least 0.
    lam_neg: largest cut, at least 0.
    t_h: score at which half the raise is given.
    t_l: score at which half the cut is taken.
    tau_h: width of the raise in units of the score, above 0.
    tau_l: width of the cut in units of the score, above 0.
    g_min: least factor, at least 0.
    g_max: largest factor, at least `g_min`.
    invalid_verdict: `zero`, an invalid verdict counts as score 0 (the released code), or `neutral`,
      its factor is 1.

  Returns:
    g in [g_min, g_max], or 1 for a neutral verdict.

  Raises:
    ValueError: an option is unknown or out of its range.
  """
  inputs.one_of("invalid_verdict", invalid_verdict, INVALID_VERDICTS)
  inputs.between("lam_pos", lam_pos, 0.0, inputs.LARGEST)
  inputs.between("lam_neg", lam_neg, 0.0, inputs.LARGEST)
  inputs.finite("t_h", t_h)
  inputs.finite("t_l", t_l)
  inputs.positive("tau_h", tau_h)
  inputs.positive("tau_l", tau_l)
  inputs.between("g_min", g_min, 0.0, inputs.LARGEST)
  inputs.between("g_max", g_max, g_min, inputs.LARGEST)
  scores, usable = readable(judge_scores, judge_valid)
  raised = lam_pos * jax.nn.sigmoid((scores - t_h) / tau_h)
  cut = lam_neg * jax.nn.sigmoid((t_l - scores) / tau_l)
  factor = jnp.clip(1.0 + raised - cut, g_min, g_max)
  return factor if invalid_verdict == "zero" else jnp.where(usable, factor, 1.0)
