"""Advantages, several rewards and the overlong punishment against the published code's outputs."""

import functools

import jax
import numpy as np
import pytest

from sejax.method import advantages, length_penalty
from tests.golden import load
from tests.method.test_golden import assert_close

GOLDEN = load("objectives.json")

# The file's estimators by what they are here, and why others are not built.
ADVANTAGES = {
  "grpo": "standardized",
  "grpo_vectorized": "standardized",
  "grpo_no_std": "centered",
  "trl_none": "centered",
  "rloo": "rloo",
  "rloo_vectorized": "rloo",
  "trl_rloo": "rloo",
  "opo": "opo",
  "grpo_passk": "pass_at_k",
}
ADVANTAGES_NOT_BUILT = {
  "grpo_passk_no_std": "`pass_at_k` is the paper's, with the standard deviation",
  "gpg": "a constant factor of `centered` for a batch",
  "reinforce_plus_plus": "has no groups",
  "reinforce_plus_plus_baseline": "whitening over a batch is built for `gdpo` only",
  "trl_group": "differs from `standardized` by an epsilon of 1e-4",
  "trl_batch": "divides by the standard deviation of a batch",
  "trl_rloo_normalized": "divides by the standard deviation of a batch",
}
SEVERAL = {"gdpo": "gdpo"}
SEVERAL_NOT_BUILT = {
  "trl_normalize_then_sum": "TRL's form of GDPO; verl's is built",
  "trl_sum_then_normalize": "`standardized` of the sum, with an epsilon of 1e-4",
  "trl_sum_then_normalize_batch": "divides by the standard deviation of a batch",
}
LENGTH_PENALTIES = {"trl", "easyr1"}
LENGTH_PENALTIES_NOT_BUILT = {"verl": "is not bounded below; no trajectory is that long"}
# Where a standard deviation divides.
DIVIDED = ("standardized", "pass_at_k", "gdpo")


@functools.partial(jax.jit, static_argnames=("advantage", "reward_weights"))
def compiled(rewards, lengths, *, advantage, reward_weights=()):
  return advantages.log_q_and_advantage(
    rewards,
    lengths,
    beta=1.0,
    clip_adv=None,
    advantage=advantage,
    reward_weights=reward_weights,
  )[1]


def test_the_tables_are_complete():
  for section, tables in (
    ("advantages", (ADVANTAGES, ADVANTAGES_NOT_BUILT)),
    ("multi_reward_advantages", (SEVERAL, SEVERAL_NOT_BUILT)),
    ("length_penalty", (LENGTH_PENALTIES, LENGTH_PENALTIES_NOT_BUILT)),
  ):
    assert {x for case in GOLDEN[section] for x in case["expected"]} == {*tables[0], *tables[1]}


CASES = [
  pytest.param(case, estimator, id=f"{estimator}-{case['kind']}")
  for estimator in ADVANTAGES
  for case in GOLDEN["advantages"]
  if estimator in case["expected"]
]


@pytest.mark.long
@pytest.mark.parametrize(("case", "estimator"), CASES)
def test_advantages(case, estimator):
  rewards, groups = np.array(case["rewards"], np.float32), np.array(case["groups"])
  lengths, expected = np.array(case["mask"]).sum(axis=1), case["expected"][estimator]
  advantage = ADVANTAGES[estimator]
  for number in np.unique(groups):
    rows = np.flatnonzero(groups == number)
    found = compiled(rewards[None, rows], lengths[None, rows], advantage=advantage)[0]
    if len(rows) == 1:  # verl gives these their reward, or refuses them
      assert found[0] == 0.0
      continue
    if len({*rewards[rows].tolist()}) == 1:
      np.testing.assert_array_equal(found, 0.0)
    tolerance = 2e-4 if advantage in DIVIDED else 1e-5
    if isinstance(expected, str):  # The reference raises, since another group has one row.
      continue
    wanted = np.array([expected[row] for row in rows])
    # verl gives a masked token 0; TRL's are from before any mask.
    seen = lengths[rows] > 0 if not estimator.startswith("trl") else np.full(len(rows), True)
    assert_close(found[seen], wanted[seen], tolerance, estimator)


@pytest.mark.long
@pytest.mark.parametrize(
  "case",
  [case for case in GOLDEN["multi_reward_advantages"] if "gdpo" in case["expected"]],
  ids=lambda case: case["kind"],
)
def test_several_rewards(case):
  size, weights = case["options"]["group_size"], tuple(case["options"]["weights"])
  assert case["groups"] == sorted(case["groups"])  # A group's rows follow each other.
  rewards = np.array(case["rewards"], np.float32).T.reshape(len(weights), -1, size)
  lengths = np.array(case["mask"]).sum(axis=1).reshape(-1, size)
  found = compiled(rewards, lengths, advantage="gdpo", reward_weights=weights)
  found = advantages.whiten(found, lengths)
  assert_close(np.ravel(found), case["expected"]["gdpo"], 2e-4)


@pytest.mark.parametrize("case", GOLDEN["length_penalty"])
def test_the_overlong_punishment(case):
  options, expected = case["options"], case["expected"]
  for source in LENGTH_PENALTIES:
    found = length_penalty.soft_overlong(
      np.array(case["lengths"]),
      max_tokens=options["max_tokens"],
      overlong_buffer=options["buffer"],
      overlong_factor=float(options["factor"]),
    )
    # Theirs are bare, to be multiplied by a factor.
    assert_close(found, options["factor"] * np.array(expected[source]))
  within = np.array(case["lengths"]) <= options["max_tokens"]
  assert_close(np.asarray(found)[within], np.array(expected["verl"])[within])
