"""The simulation of the sampler issues the steps that the sampler itself issues."""

import numpy as np
import pytest

from experiments.speed import simulate
from sejax.sampling import Options, Role

pytestmark = pytest.mark.long


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(
  "changes", [{}, {"max_concurrent_rows": 7}, {"cache_tokens": 60}], ids=["all", "rows", "cache"]
)
def test_steps_are_those_of_the_sampler(seed, given, changes, tiny):
  rng = np.random.default_rng(seed)
  limits = rng.integers(1, 17, (8, 4))
  limits[rng.random(8) < 0.2] = 0  # rows of padding
  request = tiny.request([0, 1, 2, 3] * 2, limits=limits)
  if given:
    request = request._replace(
      given=rng.integers(2, 50, (8, 4, 5)).astype(np.int32),
      given_lengths=rng.integers(0, 6, (8, 4)),
    )
  sampler = tiny.sampler(Options(4, 16, page_size=4, decode_steps=6, **changes))
  real = sampler(tiny.params, request, seed=0, step=0, role=Role.JUDGE)
  sampler.compiled = simulation = simulate.Simulation(sampler.mesh, shards=1)
  simulated = sampler({}, request, seed=0, step=0, role=Role.JUDGE)
  np.testing.assert_array_equal(simulated.lengths, real.lengths)
  for name in ("steps", "row_steps", "evicted"):
    assert getattr(simulated.stats, name) == getattr(real.stats, name), name
  assert simulation.tally["steps"] == real.stats.steps
  assert simulation.tally["active"] == limits.sum()
  if given and not changes:
    assert simulation.tally["given_real"] == request.given_lengths[limits > 0].sum()
