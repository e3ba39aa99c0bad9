"""Compares filters with transformers' logits processors, and frequencies with probabilities."""

import functools
import itertools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from sejax.sampling import filters as sampling_filters
from sejax.sampling.filters import Filters

draw = jax.jit(sampling_filters.draw, static_argnums=0)

VOCABULARY = 300  # Not a multiple of the rows of the vocabulary matrix.
CASES = {
  "plain": {},
  "temperature": {"temperature": 0.7},
  "top_k": {"top_k": 7},
  "top_p": {"top_p": 0.8},
  "min_p": {"min_p": 0.05},
  "all": {"temperature": 1.3, "top_k": 40, "top_p": 0.9, "min_p": 0.02, "banned": (0, 17, 299)},
}


def reference(logits: np.ndarray, filters: Filters) -> np.ndarray:
  """Returns the probabilities that transformers' processors leave, in float64."""
  scores = torch.from_numpy(logits.astype(np.float64))
  scores[..., list(filters.banned)] = -torch.inf
  processors = [transformers.TemperatureLogitsWarper(filters.temperature)]
  if filters.top_k:
    processors.append(transformers.TopKLogitsWarper(filters.top_k))
  if filters.top_p < 1:
    processors.append(transformers.TopPLogitsWarper(filters.top_p))
  if filters.min_p:
    processors.append(transformers.MinPLogitsWarper(filters.min_p))
  for processor in processors:
    scores = processor(None, scores)
  return scores.softmax(-1).numpy()


def random_logits(rows: int, scale: float, size: int = VOCABULARY, seed: int = 0) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return (scale * rng.standard_normal((rows, size))).astype(np.float32)


def random_bits(*shape: int, seed: int = 0) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.integers(0, 2**32, (*shape, 2), dtype=np.uint32)


def behaviour_probabilities(logits: np.ndarray, filters: Filters) -> np.ndarray:
  """Returns the probability, by its `behaviour_logp`, of every token that many draws find."""
  found = np.zeros(logits.shape)
  many = np.repeat(logits[:, None], 4000, axis=1)
  out = draw(filters, many, random_bits(*many.shape[:2]))
  rows = np.broadcast_to(np.arange(len(logits))[:, None], out.token.shape)
  found[rows, out.token] = np.exp(out.behaviour_logp)
  return found


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_behaviour_logp_is_that_of_the_filtered_distribution(name):
  filters = Filters(**CASES[name])
  logits = random_logits(3, 2.0)
  expected = reference(logits, filters)
  found = behaviour_probabilities(logits, filters)
  assert (found > 0).sum() > 15
  np.testing.assert_allclose(found[found > 0], expected[found > 0], rtol=2e-5)
  # Tokens that were never drawn must be rare: a token expected 8 times in 4,000 draws is missed
  # with a probability of 1 in 3,000.
  assert expected[found == 0].max() < 2e-3


@pytest.mark.parametrize("name", CASES)
def test_frequencies_pass_a_chi_square_test(name):
  filters = Filters(**CASES[name])
  logits, draws = random_logits(1, 1.5, 50, seed=3), 40_000
  filters = Filters(**{**CASES[name], "banned": tuple(i for i in filters.banned if i < 50)})
  many = np.broadcast_to(logits, (draws, 50))
  tokens = np.asarray(draw(filters, many, random_bits(draws)).token)
  expected = draws * reference(logits, filters)[0]
  counts = np.bincount(tokens, minlength=50)
  assert not counts[expected == 0].any()
  kept = expected > 0
  statistic = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
  freedom = kept.sum() - 1
  # Five standard deviations of chi-square above its mean.
  assert statistic < freedom + 5 * (2 * freedom) ** 0.5


@pytest.mark.long
@pytest.mark.parametrize(
  ("scale", "p"), list(itertools.product((0.3, 3.0, 30.0), (1e-9, 0.1, 0.9, 0.999)))
)
def test_top_p_keeps_the_fewest_tokens_that_reach_it(scale, p):
  logits = random_logits(8, scale, 4096)
  out = draw(Filters(top_p=p), logits, random_bits(8))
  # For any drawn token, the kept mass is its probability over its behaviour probability.
  mass = np.exp(out.logp - out.behaviour_logp)
  probabilities = -np.sort(-jax.nn.softmax(logits.astype(np.float64)), axis=-1)
  cumulative = probabilities.cumsum(-1)
  count = (cumulative < p).sum(-1)
  expected = np.take_along_axis(cumulative, count[:, None], 1)[:, 0]
  np.testing.assert_allclose(mass, expected, rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("k", [1, 2, 50, 299, 1000])
def test_top_k_keeps_k_tokens(k):
  logits = random_logits(8, 1.0)
  out = draw(Filters(top_k=k), logits, random_bits(8))
  probabilities = -np.sort(-jax.nn.softmax(logits.astype(np.float64)), axis=-1)
  mass = np.exp(out.logp - out.behaviour_logp)
  np.testing.assert_allclose(mass, probabilities[:, :k].sum(-1), rtol=1e-5)


def test_nothing_is_sorted():
  program = draw.lower(Filters(**CASES["all"]), random_logits(2, 1.0), random_bits(2))
  text = program.as_text()
  assert "stablehlo.sort" not in text
  assert "chlo.top_k" not in text


def equations(program):
  """Yields all equations of a jaxpr and of those inside them."""
  for equation in program.eqns:
    yield equation
    for inner in jax.extend.core.jaxprs_in_params(equation.params):
      yield from equations(inner)


@pytest.mark.parametrize(
  ("filters", "cpu", "other"),
  [
    (Filters(top_p=0.9), [28], [7]),
    (Filters(top_p=0.999), [28], [7]),
    (Filters(top_p=1 - 1e-7), [29], [8]),
    (Filters(top_k=50), [16, 16], [4, 4]),
    (Filters(top_k=50, top_p=0.9, min_p=0.1), [16, 16, 28], [4, 4, 7]),
  ],
)
def test_the_number_of_passes_is_fixed(filters, cpu, other):
  """No loop ends by the logits, and no branch is taken by them."""
  logits, bits = jax.ShapeDtypeStruct((2, 32_000), jnp.float32), random_bits(2)
  program = jax.make_jaxpr(functools.partial(sampling_filters.draw, filters))(logits, bits)
  found = list(equations(program.jaxpr))
  assert not [e for e in found if e.primitive.name == "while"]
  branches = [e for e in found if e.primitive.name == "cond"]
  assert all(e.params["branches_platforms"] for e in branches)
  passes = [e.params["length"] for e in found if e.primitive.name == "scan"]
  assert passes[::2] == cpu
  assert passes[1::2] == other


@pytest.mark.long
@pytest.mark.parametrize("bits_per_pass", [2, 4])
@pytest.mark.parametrize("step", [None, 0.25])
def test_all_bits_per_pass_find_the_same(monkeypatch, bits_per_pass, step):
  filters = Filters(top_k=700, top_p=0.93)
  logits = random_logits(16, 2.0, 4000)
  if step:
    logits = step * np.round(logits / step)
  expected = draw(filters, logits, random_bits(16))
  monkeypatch.setitem(sampling_filters.BITS_PER_PASS, "cpu", bits_per_pass)
  found = jax.jit(functools.partial(sampling_filters.draw, filters))(logits, random_bits(16))
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_sums_at_once_equal_sums_in_blocks():
  """What accelerators compute is what the CPU computes."""
  matrix = jnp.asarray(np.random.default_rng(0).random((3, 128, 5)), jnp.float32)

  def term(x):
    return jnp.where(x > 0.5, x, 0)

  found = sampling_filters._sum_at_once(term, matrix), sampling_filters._sum_in_blocks(term, matrix)
  np.testing.assert_allclose(*found, rtol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("p", [0.02, 0.3, 0.8, 0.99])
@pytest.mark.parametrize("step", [0.05, 1.0])
def test_top_p_keeps_the_first_tokens_of_a_tie(p, step):
  """Rounded logits, as of a model in bf16, tie in many places of the vocabulary's matrix."""
  logits = (step * np.round(random_logits(1, 2.0, 3000) / step)).astype(np.float32)
  order = np.argsort(-logits[0], kind="stable")
  probabilities = jax.nn.softmax(logits[0].astype(np.float64))[order]
  cumulative = np.cumsum(probabilities)
  count = (cumulative < p * (1 - 1e-6)).sum() + 1
  out = draw(Filters(top_p=p), np.repeat(logits, 20_000, 0), random_bits(20_000))
  assert np.isin(out.token, order[:count]).all()
  assert np.isin(order[:count][probabilities[:count] > 1e-3 * p], out.token).all()
  mass = np.exp(out.logp - out.behaviour_logp)
  np.testing.assert_allclose(mass, cumulative[count - 1], rtol=1e-5)


def test_top_p_is_off_by_a_token_at_most_where_sums_round():
  """Weights are neighbouring floats, and 282 of 300 such tokens reach p to within rounding."""
  logits = random_logits(256, 3e-7)
  out = draw(Filters(top_p=0.94), logits, random_bits(256))
  kept = 300 * np.exp(out.logp - out.behaviour_logp)
  np.testing.assert_allclose(kept, 282, atol=1.01)


@pytest.mark.long
@pytest.mark.parametrize("p", [1e-300, 1e-40, 1 - 1e-7, 1 - 1e-16])
def test_top_p_at_its_ends(p):
  logits = random_logits(8, 3.0, 4096)
  out = draw(Filters(top_p=p), logits, random_bits(8))
  if p < 0.5:
    np.testing.assert_array_equal(out.token, logits.argmax(-1))
  np.testing.assert_allclose(out.behaviour_logp, out.logp if p > 0.5 else 0, atol=1e-5)


def test_temperature_zero_is_the_first_of_the_most_likely():
  logits = random_logits(5, 1.0)
  logits[0, [40, 200]] = 9.0
  logits[1, 3] = 50.0
  out = draw(Filters(temperature=0.0, banned=(3,)), logits, random_bits(5))
  allowed = logits.copy()
  allowed[:, 3] = -np.inf
  np.testing.assert_array_equal(out.token, allowed.argmax(-1))
  assert out.token[0] == 40
  np.testing.assert_array_equal(out.behaviour_logp, 0)
  np.testing.assert_allclose(out.logp, jax.nn.log_softmax(allowed).max(-1), atol=1e-6)


@pytest.mark.parametrize(
  "logits", [np.zeros((4, 300)), random_logits(4, 1e-6), random_logits(4, 50)]
)
def test_a_tiny_top_p_keeps_one_token_even_of_a_tie(logits):
  logits = jnp.asarray(logits, jnp.float32)
  outs = [draw(Filters(top_p=1e-9), logits, random_bits(4, seed=s)) for s in range(5)]
  for out in outs:
    np.testing.assert_array_equal(out.token, logits.argmax(-1))
    np.testing.assert_allclose(out.behaviour_logp, 0, atol=1e-6)


def test_top_p_keeps_as_much_of_a_tie_as_it_needs():
  logits = jnp.zeros((1, 10)).at[0, 3].set(jnp.log(2.0))  # 2/11 and nine times 1/11.
  tokens = {
    int(draw(Filters(top_p=0.5), logits, random_bits(1, seed=s)).token[0]) for s in range(200)
  }
  assert tokens == {3, 0, 1, 2, 4}


@pytest.mark.parametrize("bits", [0, 2**32 - 1])
def test_banned_and_filtered_tokens_are_not_drawn_at_the_ends(bits):
  """The smallest and the largest random number draw a token of positive probability."""
  logits = random_logits(64, 3.0)
  filters = Filters(top_p=0.7, banned=(0, 1, 2, 297, 298, 299))
  out = draw(filters, logits, np.full((64, 2), bits, np.uint32))
  expected = reference(logits, filters)
  assert np.take_along_axis(expected, np.asarray(out.token)[:, None], 1).min() > 0


def test_logp_is_before_the_filters_and_behaviour_logp_after():
  logits = random_logits(16, 2.0)
  filters = Filters(temperature=0.7, top_p=0.9, banned=(5, 6))
  out = draw(filters, logits, random_bits(16))
  scaled = logits.astype(np.float64) / 0.7
  scaled[:, [5, 6]] = -np.inf
  expected = np.take_along_axis(
    np.asarray(torch.from_numpy(scaled).log_softmax(-1)), np.asarray(out.token)[:, None], 1
  )
  np.testing.assert_allclose(out.logp, expected[:, 0], atol=1e-5)
  assert (out.behaviour_logp > out.logp).all()


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("temperature", -1.0),
    ("temperature", float("nan")),
    ("temperature", float("inf")),
    ("top_k", 0),
    ("top_p", 0.0),
    ("top_p", 1.1),
    ("min_p", -0.1),
    ("min_p", 2.0),
  ],
)
def test_bad_values_are_named(field, value):
  with pytest.raises(ValueError, match=rf"filters\.{field} is {value}; it must be"):
    Filters(**{field: value})


def test_banned_ids_outside_the_vocabulary_are_named():
  with pytest.raises(ValueError, match="holds 300; ids run from 0 to vocab_size - 1 = 299"):
    Filters(banned=(3, 300)).check(300)
  with pytest.raises(ValueError, match="leave at least one"):
    Filters(banned=(0, 1)).check(2)
