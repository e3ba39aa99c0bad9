"""Entropy and self-certainty of next tokens, against the values of published code."""

import jax.numpy as jnp
import numpy as np
import pytest

from sejax.sampling.certainty import certainty
from sejax.sampling.filters import Filters
from tests.golden import load

CASES = load("objectives.json")["self_certainty"]


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_self_certainty_is_that_of_the_published_code(case):
  logits = np.array(case["logits"], float)
  found = certainty(Filters(), jnp.array(logits, jnp.float32), 1.0)
  finite = np.isfinite(logits).all(-1)  # The published code makes banned tokens infinite.
  expected = np.array(case["expected"]["per_token"], float)
  np.testing.assert_allclose(found.self_certainty[finite], expected[finite], rtol=1e-5, atol=1e-5)


def test_banned_tokens_are_left_out():
  logits = np.random.default_rng(0).normal(size=(5, 17)).astype(np.float32)
  rest = certainty(Filters(), jnp.array(np.delete(logits, [3, 11], axis=-1)), 1.0)
  for value in (0.0, 1e4, -1e4):
    logits[:, [3, 11]] = value
    found = certainty(Filters(banned=(3, 11)), jnp.array(logits), 1.0)
    np.testing.assert_allclose(found, rest, rtol=1e-5)


def test_temperatures_of_entropy_and_of_self_certainty_are_two():
  logits = jnp.array(np.random.default_rng(0).normal(size=(5, 17)), jnp.float32)
  found = certainty(Filters(temperature=0.5), logits, 2.0)
  np.testing.assert_allclose(
    found.entropy, certainty(Filters(), 2 * logits, 1.0).entropy, rtol=1e-5
  )
  np.testing.assert_allclose(
    found.self_certainty, certainty(Filters(), logits / 2, 1.0).self_certainty, rtol=1e-5
  )


def test_a_certain_and_an_uncertain_token():
  logits = jnp.array([[0.0, 0.0, 0.0, 0.0], [1e4, 0.0, 0.0, 0.0]])
  found = certainty(Filters(), logits, 1.0)
  np.testing.assert_allclose(found.entropy, [np.log(4), 0], atol=1e-6)
  np.testing.assert_allclose(found.self_certainty, [np.log(4), 7500], rtol=1e-6)
