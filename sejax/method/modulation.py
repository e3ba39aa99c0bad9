"""Modulation: a bounded factor on the self-consistency reward, from the Judge's score."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sejax.method import inputs

INVALID_VERDICTS = ("zero", "neutral")


def valid_scores(
  judge_scores: Float[Array, "B G"], judge_valid: Bool[Array, "B G"]
) -> tuple[Float[Array, "B G"], Bool[Array, "B G"]]:
  """Returns the scores with 0 in place of invalid ones, and the mask of valid ones.

  Valid scores are those in [0, 1] with `judge_valid`; NaN and infinities never are.
  """
  scores = jnp.asarray(judge_scores, jnp.float32)
  is_valid = judge_valid & (scores >= 0.0) & (scores <= 1.0)
  return jnp.where(is_valid, scores, 0.0), is_valid


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
  """Returns the bounded modulation factor g of each trajectory (arXiv:2603.21289).

  g(s) = 1 + lam_pos sigmoid((s - t_h) / tau_h) - lam_neg sigmoid((t_l - s) / tau_l), clipped to
  [g_min, g_max]: a score above t_h raises the reward, a score below t_l lowers it.

  Args:
    judge_scores: the Judge's overall score s.
    judge_valid: whether the score could be read; see `valid_scores` for other invalid scores.
    lam_pos: largest increase of g, at least 0.
    lam_neg: largest decrease of g, at least 0.
    t_h: score at which g has half of the increase.
    t_l: score at which g has half of the decrease.
    tau_h: width of the increase, in units of the score, above 0.
    tau_l: width of the decrease, in units of the score, above 0.
    g_min: lower bound of g, at least 0.
    g_max: upper bound of g, at least `g_min`.
    invalid_verdict: factor of an invalid verdict: `zero` treats it as score 0, as the released code
      does; `neutral` makes the factor 1.

  Returns:
    g in [g_min, g_max]; 1 for an invalid verdict that is neutral.

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
  scores, is_valid = valid_scores(judge_scores, judge_valid)
  increase = lam_pos * jax.nn.sigmoid((scores - t_h) / tau_h)
  decrease = lam_neg * jax.nn.sigmoid((t_l - scores) / tau_l)
  factor = jnp.clip(1.0 + increase - decrease, g_min, g_max)
  if invalid_verdict == "zero":
    return factor
  return jnp.where(is_valid, factor, 1.0)
