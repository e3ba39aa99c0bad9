"""The teacher: how far it moves at each step, against the published code, and what it holds."""

import jax.numpy as jnp
import numpy as np
import pytest

from sejax.learner.teacher import Teacher
from tests.golden import load


@pytest.mark.parametrize("case", load("objectives.json")["group_rewards"]["co_rewarding_II_alpha"])
def test_the_share_of_the_policy_is_that_of_the_published_code(case):
  teacher = Teacher(case["alpha_start"], case["alpha_end"], case["total_steps"])
  # There steps count from 1.
  found = [teacher.share(step - 1) for step in case["steps"]]
  np.testing.assert_allclose(found, case["expected"], rtol=1e-9)


def test_it_follows_in_fp32_and_is_a_copy():
  teacher = Teacher(start=0.5, end=1e-5, steps=4)
  params = {"a": jnp.arange(3, dtype=jnp.float32), "b": jnp.ones((2, 2))}
  average = teacher.begin(params)
  for name, value in params.items():
    assert average[name].unsafe_buffer_pointer() != value.unsafe_buffer_pointer()
  expected = {name: np.array(value, np.float64) for name, value in params.items()}
  for step in range(4):
    params = {name: value + 1 for name, value in params.items()}
    average = teacher.follow(average, params, step)
    share = teacher.share(step)
    expected = {
      name: share * np.array(params[name]) + (1 - share) * value for name, value in expected.items()
    }
  for name, value in expected.items():
    assert average[name].dtype == jnp.float32
    np.testing.assert_allclose(average[name], value, rtol=1e-6)


def test_small_steps_are_not_lost():
  """In bfloat16 a share of 1e-5 of a difference of 1% would not move the average at all."""
  teacher = Teacher(start=1e-5, end=1e-5, steps=100)
  average = teacher.begin({"a": jnp.ones(1)})
  for step in range(100):
    average = teacher.follow(average, {"a": jnp.full(1, 1.01)}, step)
  assert float(average["a"][0]) == pytest.approx(1 + 100 * 1e-5 * 0.01, rel=1e-7, abs=2e-6)
  assert float(average["a"][0]) > 1
