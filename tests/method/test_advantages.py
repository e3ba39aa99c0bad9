"""The group distribution and its advantages: identities, and groups that carry no signal."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sejax.method import advantages

# The advantages that a group leaves at 0 if clipping makes its log q constant.
SIGNAL_FREE = ("centered", "standardized", "rloo", "opo", "pass_at_k")

rewards_of_a_group = hnp.arrays(np.float32, (1, 8), elements=st.floats(0, 1, width=32))


@functools.partial(jax.jit, static_argnames=("beta", "clip_adv", "advantage"))
def compiled(rewards, lengths=None, *, beta=1.0, clip_adv=None, advantage="centered"):
  lengths = jnp.arange(3, 3 + rewards.size).reshape(rewards.shape) if lengths is None else lengths
  return advantages.log_q_and_advantage(
    rewards, lengths, beta=beta, clip_adv=clip_adv, advantage=advantage
  )


@pytest.mark.parametrize("advantage", SIGNAL_FREE)
@pytest.mark.parametrize("clip_adv", [None, 1.0])
@pytest.mark.parametrize(
  "rewards",
  [
    [[0.7] * 7],
    [[0.1] * 7],
    [[0.0, 0.0], [1.0, 1.0]],
    [[0.3]],
    # One unit in the last place apart: what different vector lanes make of the same input.
    [[0.7, np.nextafter(np.float32(0.7), np.float32(1))] * 4],
  ],
)
def test_a_constant_group_has_no_advantage(rewards, clip_adv, advantage):
  rewards = np.array(rewards, np.float32)
  _, A = compiled(rewards, clip_adv=clip_adv, advantage=advantage)
  np.testing.assert_array_equal(A, 0.0)


@pytest.mark.parametrize("advantage", SIGNAL_FREE)
def test_a_group_that_clipping_makes_constant_has_no_advantage(advantage):
  log_q, A = compiled(
    np.array([[0.1, 0.5, 0.9, 0.3] * 2], np.float32), clip_adv=1.0, advantage=advantage
  )
  np.testing.assert_array_equal(log_q, -1.0)
  np.testing.assert_array_equal(A, 0.0)


def test_a_constant_group_has_minus_log_g_under_log_q():
  _, A = compiled(np.full((2, 8), 0.7, np.float32), advantage="log_q")
  np.testing.assert_allclose(A, -np.log(8), rtol=1e-6)


@pytest.mark.parametrize("clip_adv", [None, 2.1, 1.0])  # log 8 is 2.08
@pytest.mark.parametrize("reward", [0.0, 0.1, 0.7, 1.0])
def test_a_constant_group_has_exactly_nothing_under_log_mean_exp(reward, clip_adv):
  rewards = np.full((2, 8), reward, np.float32)
  rewards[1, ::2] = np.nextafter(rewards[1, ::2], np.float32(2))  # rounding is not a signal
  _, A = compiled(rewards, clip_adv=clip_adv, advantage="log_mean_exp")
  np.testing.assert_array_equal(A, 0.0)
  _, A = compiled(rewards[:, :1], clip_adv=clip_adv, advantage="log_mean_exp")
  np.testing.assert_array_equal(A, 0.0)


@pytest.mark.parametrize(
  ("rewards", "beta", "clip_adv", "expected"),
  [
    # exp(R) = 1 and e: less the log of their mean.
    ([0, 1], 1.0, None, [-math.log((1 + math.e) / 2), 1 - math.log((1 + math.e) / 2)]),
    ([1, 0, 0, 0], 2.0, None, [1.045541, -0.954459, -0.954459, -0.954459]),
    ([1] * 7 + [0], 1.0, None, [0.0823116] * 7 + [-0.9176884]),
    # log q + log 2 = -0.62011, 0.37989: the first is clipped.
    ([0, 1], 1.0, 0.5, [-0.5, 0.3798855]),
    ([0.7] * 8, 1.0, 1.0, [0.0] * 8),
  ],
)
def test_log_mean_exp_by_hand(rewards, beta, clip_adv, expected):
  rewards = np.array([rewards], np.float32)
  _, A = compiled(rewards, beta=beta, clip_adv=clip_adv, advantage="log_mean_exp")
  np.testing.assert_allclose(A, [expected], rtol=1e-5)


def test_a_small_spread_is_a_signal():
  rewards = np.array([[0.5, 0.5, 0.5, 0.5001]], np.float32)
  _, centered = compiled(rewards)
  # A reward near 0.5 is rounded by up to 3e-8.
  np.testing.assert_allclose(centered, [[-2.5e-5, -2.5e-5, -2.5e-5, 7.5e-5]], atol=6e-8)
  # Three below and one above: -1/2 and 3/2 standard deviations, less the 1e-6 beside a std of 5e-5.
  _, standardized = compiled(rewards, advantage="standardized")
  np.testing.assert_allclose(standardized, [[-0.5, -0.5, -0.5, 1.5]], rtol=0.03)


@pytest.mark.long
@pytest.mark.parametrize("advantage", advantages.ADVANTAGES)
def test_gradients_are_finite_even_where_the_std_is_zero(advantage):
  rewards = np.array([[0.7] * 8, [0.0, 1.0] * 4], np.float32)
  grad = jax.grad(lambda r: compiled(r, advantage=advantage)[1][:, 0].sum())(rewards)
  assert np.isfinite(grad).all()


@settings(deadline=None, max_examples=100)
@given(rewards=rewards_of_a_group, beta=st.sampled_from([0.5, 1.0, 10.0]))
def test_q_is_a_distribution(rewards, beta):
  log_q, _ = compiled(rewards, beta=beta)
  np.testing.assert_allclose(np.exp(log_q).sum(axis=1), 1.0, rtol=1e-5)


@settings(deadline=None, max_examples=100)
@given(rewards=rewards_of_a_group, shift=st.floats(-4, 4, width=32))
def test_a_shift_of_all_rewards_leaves_the_centred_advantage(rewards, shift):
  # Rewards near 4 carry a rounding of 2.4e-7 each, and so does their mean.
  np.testing.assert_allclose(compiled(rewards + shift)[1], compiled(rewards)[1], atol=2e-6)


@pytest.mark.long
@settings(deadline=None, max_examples=100)
@given(rewards=rewards_of_a_group, order=st.permutations(range(8)))
def test_permuting_a_group_permutes_its_advantages(rewards, order):
  lengths = np.arange(3, 11)[None]
  for advantage in advantages.ADVANTAGES:
    # A standard deviation of rewards that differ in their last digits alone carries their rounding.
    divided = advantage in ("standardized", "pass_at_k", "gdpo")
    if divided and 0 < np.ptp(rewards) < 1e-3:
      continue
    tolerance = {"rtol": 1e-3, "atol": 1e-3} if divided else {"rtol": 1e-5, "atol": 1e-6}
    for x, permuted in zip(
      compiled(rewards, lengths, advantage=advantage),
      compiled(rewards[:, order], lengths[:, order], advantage=advantage),
      strict=True,
    ):
      np.testing.assert_allclose(permuted, x[:, order], **tolerance)


@pytest.mark.parametrize(
  ("advantage", "rewards", "lengths", "expected"),
  [
    ("rloo", [1, 0, 0, 0], [5, 5, 5, 5], [1, -1 / 3, -1 / 3, -1 / 3]),
    # The baseline is (1 * 6 + 0 * 2) / 8.
    ("opo", [1, 0], [6, 2], [0.25, -0.75]),
    ("opo", [1, 0], [0, 0], [0.5, -0.5]),
    # std 0.5; the best is 0.5 above the second best.
    ("pass_at_k", [1, 0.5, 0], [1, 1, 1], [1, 0, 0]),
    ("pass_at_k", [1, 1, 0], [1, 1, 1], [0, 0, 0]),
    ("pass_at_k", [1, 0, 0], [1, 1, 1], [3**0.5, 0, 0]),
  ],
)
def test_advantages_by_hand(advantage, rewards, lengths, expected):
  rewards, lengths = np.array([rewards], np.float32), np.array([lengths])
  _, A = compiled(rewards, lengths, advantage=advantage)
  np.testing.assert_allclose(A, [expected], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("weights", [(), (2.0, 1.0)])
def test_several_rewards_are_averaged_or_each_standardized(weights):
  rng = np.random.default_rng(0)
  first, second = rewards = rng.random((2, 3, 4)).astype(np.float32)
  lengths = rng.integers(1, 9, (3, 4))
  call = functools.partial(
    advantages.log_q_and_advantage, beta=1.0, clip_adv=None, reward_weights=weights
  )
  a, b = weights or (1.0, 1.0)
  _, mean = call((a * first + b * second) / (a + b), advantage="centered", reward_weights=())
  np.testing.assert_allclose(call(rewards, advantage="centered")[1], mean, rtol=1e-5, atol=1e-7)
  # Another scale of one reward changes nothing where each is standardized first.
  gdpo = call(rewards, lengths, advantage="gdpo")[1]
  scaled = call(rewards * [[[5.0]], [[1.0]]], lengths, advantage="gdpo")[1]
  np.testing.assert_allclose(scaled, gdpo, rtol=1e-3, atol=1e-4)
  gdpo = advantages.whiten(gdpo, lengths)
  np.testing.assert_allclose((gdpo * lengths).sum(), 0.0, atol=1e-4)
  variance = (np.square(gdpo) * lengths).sum() / (lengths.sum() - 1)
  np.testing.assert_allclose(variance, 1.0, rtol=1e-4)


def test_weights_must_fit_the_rewards():
  with pytest.raises(ValueError, match=r"reward_weights=\(1.0, 2.0, 3.0\) must be of 2 numbers"):
    advantages.log_q_and_advantage(
      np.zeros((2, 1, 4)),
      beta=1.0,
      clip_adv=None,
      advantage="centered",
      reward_weights=(1.0, 2.0, 3.0),
    )


def test_lengths_are_asked_for_where_they_are_needed():
  with pytest.raises(ValueError, match=r"^advantage='opo' must be another one, .* lengths in tok"):
    advantages.log_q_and_advantage(np.zeros((1, 4)), beta=1.0, clip_adv=None, advantage="opo")


@pytest.mark.parametrize(
  ("option", "value", "message"),
  [
    ("advantage", "grpo", "advantage='grpo' must be one of log_q, centered, standard"),
    ("beta", 0.0, "beta=0.0 must be a number in"),
    ("clip_adv", -1.0, "clip_adv=-1.0 must be a number in"),
  ],
)
def test_bad_options_are_named(option, value, message):
  with pytest.raises(ValueError, match=message):
    compiled(np.zeros((1, 2), np.float32), **{option: value})
