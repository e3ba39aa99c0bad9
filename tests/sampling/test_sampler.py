"""Compares the sampler with transformers' `generate`, and with itself in other batch shapes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sejax.models.transformer import generation
from sejax.sampling import Filters, Finish, Options, Role, Sampler
from tests.models import torch_reference

GREEDY = Filters(temperature=0.0)
FILTERED = Filters(temperature=0.8, top_k=60, top_p=0.95, min_p=0.001, banned=(120, 121, 122, 123))
FIELDS = ("tokens", "lengths", "finish")


def sample(sampler, tiny, request=None, seed=1, step=2, **kwargs):
  request = tiny.request() if request is None else request
  return sampler(tiny.params, request, seed=seed, step=step, role=Role.ACTOR, **kwargs)


def assert_same(left, right, rows=slice(None)):
  for name in FIELDS:
    np.testing.assert_array_equal(getattr(left, name), getattr(right, name)[rows], err_msg=name)
  np.testing.assert_allclose(left.logp, right.logp[rows], atol=1e-5)
  if left.certainty and right.certainty:
    for found, expected in zip(left.certainty, right.certainty, strict=True):
      np.testing.assert_allclose(found, expected[rows], atol=1e-5)


@functools.cache
def generate(tiny, eos_ids: tuple[int, ...], new_tokens: int) -> list[np.ndarray]:
  """Returns transformers' continuations; each prompt runs alone, without padding."""
  found = []
  for i in range(len(tiny.batch.ids)):
    row = slice(i, i + 1)
    alone = torch_reference.Batch(
      tiny.batch.ids[row], tiny.batch.grids[row], tiny.batch.patches[row]
    )
    with torch.no_grad():
      out = tiny.torch_model.generate(
        **alone.torch_inputs(),
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=list(eos_ids) or None,
        pad_token_id=0,
      )
    found.append(out[0, len(tiny.batch.ids[i]) :].numpy())
  return found


@pytest.mark.long
def test_greedy_equals_transformers(tiny):
  """64 tokens for prompts with and without images, of unequal lengths, in one batch."""
  result = sample(tiny.sampler(Options(2, 64, GREEDY, decode_steps=64)), tiny)
  expected = np.stack(generate(tiny, (), 64))
  np.testing.assert_array_equal(result.tokens[:, 0], expected)
  np.testing.assert_array_equal(result.tokens[:, 1], expected)
  assert result.truncated.all()
  assert result.mask.all()
  np.testing.assert_array_equal(result.behaviour_logp, 0)


@pytest.fixture(scope="module")
def ending(tiny):
  """A greedy sampler with two EOS ids, one of which is also the padding id.

  One prompt ends with its first token.
  """
  free = generate(tiny, (), 64)
  eos_ids = (int(free[1][9]), int(free[2][0]))
  return tiny.sampler(Options(1, 64, GREEDY, eos_ids, eos_ids[0], decode_steps=64, pack=False))


@pytest.mark.long
def test_a_list_of_eos_ids_ends_where_transformers_ends(tiny, ending):
  eos_ids = ending.options.eos_ids
  result = sample(ending, tiny)
  expected = generate(tiny, eos_ids, 64)
  assert result.lengths[:, 0].tolist() == [len(row) for row in expected]
  assert result.lengths[2, 0] == 1
  assert 1 < result.lengths[1, 0] <= 10
  for i, row in enumerate(expected):
    np.testing.assert_array_equal(result.tokens[i, 0, : len(row)], row)
    assert (result.tokens[i, 0, len(row) :] == eos_ids[0]).all()
    ended = row[-1] in eos_ids
    assert result.finish[i, 0] == (Finish.EOS if ended else Finish.LENGTH)
    assert result.truncated[i, 0] != ended
  assert not result.logp[~result.mask].any()


@pytest.mark.long
def test_eos_at_the_limit_is_not_truncated(tiny, ending):
  lengths = sample(ending, tiny).lengths
  at_limit = sample(ending, tiny, tiny.request(limits=lengths))
  below = sample(ending, tiny, tiny.request(limits=np.maximum(lengths - 1, 1)))
  np.testing.assert_array_equal(at_limit.lengths, lengths)
  assert at_limit.finish[1, 0] == Finish.EOS
  assert below.finish[1, 0] == Finish.LENGTH


@pytest.fixture(scope="module")
def sampled(tiny):
  """A sampler whose sequences end at very different lengths, and its result."""
  options = Options(
    3, 16, FILTERED, tuple(range(2, 10)), page_size=4, decode_steps=8, certainty_temperature=1.5
  )
  sampler = tiny.sampler(options)
  return sampler, sample(sampler, tiny)


@pytest.mark.long
def test_lengths_vary_enough_for_the_tests_below(sampled):
  _, result = sampled
  assert len(set(result.lengths.ravel())) >= 4
  assert {Finish.EOS, Finish.LENGTH} <= set(result.finish.ravel())


@pytest.mark.long
def test_layers_one_by_one_change_nothing(tiny, sampled):
  """Also where sequences are admitted later, and pages are moved."""
  sampler, result = sampled
  config = dataclasses.replace(tiny.config, layered_cache=True)
  options = dataclasses.replace(sampler.options, max_concurrent_rows=5)
  assert_same(sample(Sampler(config, options), tiny), result)


@pytest.fixture(scope="module")
def trainer(tiny):
  """A function that recomputes log-probs and logits of tokens in one pass, as a trainer does."""
  banned = jnp.zeros(tiny.config.text.vocab_size, bool).at[jnp.array(FILTERED.banned)].set(True)

  @jax.jit
  def recompute(params, prompt, tokens):
    last, hidden = tiny.config.forward(params, prompt, tiny.features, tokens)
    first = jnp.broadcast_to(last[:, None, None], (*tokens.shape[:2], 1, last.shape[-1]))
    logits = generation.logits(params, jnp.concatenate([first, hidden[:, :, :-1]], axis=2))
    scored = tiny.config.logp(params, last, hidden, tokens, FILTERED.temperature, banned)
    return scored.logp, logits

  return lambda params, tokens: map(np.asarray, recompute(params, tiny.request().prompt, tokens))


@pytest.mark.long
def test_the_trainers_logp_is_that_of_the_sampler(tiny, trainer, sampled):
  _, result = sampled
  found, _ = trainer(tiny.params, result.tokens)
  np.testing.assert_allclose(result.logp, np.where(result.mask, found, 0), atol=1e-4)
  assert (result.behaviour_logp >= result.logp).all()
  assert (result.behaviour_logp > result.logp).any()


def test_certainty_is_that_of_the_logits_of_one_pass(tiny, trainer, sampled):
  _, result = sampled
  _, logits = trainer(tiny.params, result.tokens)
  allowed = np.delete(logits.astype(np.float64), FILTERED.banned, axis=-1)
  z = torch.tensor(allowed)
  p = torch.softmax(z / FILTERED.temperature, -1)
  entropy = -(p * p.log()).sum(-1).numpy()
  self_certainty = (torch.logsumexp(z / 1.5, -1) - (z / 1.5).mean(-1)).numpy()
  for found, per_token in (
    (result.certainty.entropy, entropy),
    (result.certainty.self_certainty, self_certainty),
  ):
    expected = [
      [row[:n].mean() for row, n in zip(rows, ns, strict=True)]
      for rows, ns in zip(per_token, result.lengths, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.fixture(scope="module")
def bf16_params(tiny):
  return jax.tree.map(lambda x: x.astype(jnp.bfloat16), tiny.params)


def test_the_trainers_logp_is_that_of_the_sampler_in_bf16(tiny, trainer, bf16_params):
  """The order of sums changes hidden states of about 1 by 2**-8, so logits of about 4 by 2**-6."""
  sampler = tiny.sampler(Options(3, 16, FILTERED, decode_steps=16, pack=False), jnp.bfloat16)
  result = sample(sampler, tiny)
  found, _ = trainer(bf16_params, result.tokens)
  exact, _ = trainer(tiny.params, result.tokens)
  np.testing.assert_allclose(result.logp, found, atol=2**-6)
  assert np.abs(result.logp - exact).max() > 2**-6, "the weights were not bf16"


def test_greedy_in_bf16_is_the_argmax_of_full_passes(tiny, trainer, bf16_params):
  result = sample(
    tiny.sampler(Options(3, 16, GREEDY, decode_steps=16, pack=False), jnp.bfloat16), tiny
  )
  tokens = np.zeros_like(result.tokens)
  for n in range(tokens.shape[-1]):
    _, logits = trainer(bf16_params, tokens)
    tokens[..., n] = logits[..., n, :].argmax(-1)
  np.testing.assert_array_equal(result.tokens, tokens)


@pytest.mark.long
def test_forced_tokens_come_first_and_watched_ones_are_measured(tiny, trainer, sampled):
  options = dataclasses.replace(
    sampled[0].options, decode_steps=2, eos_ids=(), forced=(17, 33, 5), watched=(9, 2, 40)
  )
  result = sample(tiny.sampler(options), tiny)
  assert (result.tokens[..., :3] == [17, 33, 5]).all()
  assert len({tuple(row) for row in result.tokens[..., 3:].reshape(12, -1).tolist()}) == 12
  _, logits = trainer(tiny.params, result.tokens)
  scaled = torch.tensor(logits / FILTERED.temperature)
  scaled[..., list(FILTERED.banned)] = -torch.inf
  logp = torch.log_softmax(scaled, -1).numpy()
  np.testing.assert_allclose(result.watched_logp, logp[..., [9, 2, 40]], atol=1e-4)
  assert sampled[1].watched_logp is None


def test_packing_changes_nothing_but_the_work(tiny, sampled):
  sampler, result = sampled
  options = Options(3, 16, FILTERED, sampler.options.eos_ids, decode_steps=16, pack=False)
  other = sample(tiny.sampler(options), tiny)
  assert_same(other, result)
  assert result.stats.row_steps < 0.8 * other.stats.row_steps


def test_the_order_of_the_batch_changes_nothing(tiny, sampled):
  sampler, result = sampled
  rows = [2, 0, 3, 1]
  assert_same(sample(sampler, tiny, tiny.request(rows)), result, rows)


@pytest.mark.long
@pytest.mark.parametrize("rows", [1, 2, 5, 7])
def test_waiting_sequences_change_nothing(tiny, sampled, rows):
  """Groups are admitted in parts."""
  sampler, result = sampled
  options = dataclasses.replace(sampler.options, max_concurrent_rows=rows)
  found = sample(tiny.sampler(options), tiny)
  assert_same(found, result)
  assert found.stats.row_steps <= found.stats.steps * rows


@pytest.mark.long
def test_evicted_sequences_change_nothing(tiny, sampled):
  """A KV cache that holds two sequences of 16 tokens; the others are read again later."""
  sampler, result = sampled
  options = dataclasses.replace(sampler.options, cache_tokens=32, decode_steps=4)
  found = sample(tiny.sampler(options), tiny)
  assert_same(found, result)
  assert found.stats.evicted > 0


@pytest.mark.long
def test_a_trajectory_does_not_depend_on_how_many_there_are(tiny, sampled):
  sampler, result = sampled
  options = Options(2, 16, FILTERED, sampler.options.eos_ids, decode_steps=8, pack=False)
  fewer = sample(tiny.sampler(options), tiny)
  np.testing.assert_array_equal(fewer.tokens, result.tokens[:, :2])


@pytest.mark.long
def test_another_step_seed_or_role_gives_other_samples(tiny, sampled):
  sampler, result = sampled
  again = sample(sampler, tiny)
  assert_same(again, result)
  assert again.stats.programs == 0
  others = [
    sample(sampler, tiny, step=3),
    sample(sampler, tiny, seed=2),
    sampler(tiny.params, tiny.request(), seed=1, step=2, role=Role.JUDGE),
  ]
  for other in others:
    assert (other.tokens[..., :3] != result.tokens[..., :3]).any(-1).all()


@pytest.mark.long
def test_programs_are_counted(tiny):
  """The count equals XLA's compilations; later batches add only shapes of a shrinking batch."""
  compiled = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **_: compiled.append(name) if "backend_compile" in name else None
  )
  sampler = Sampler(tiny.config, Options(2, 8, Filters(), tuple(range(2, 30)), decode_steps=8))
  request = tiny.request([0, 1])
  first = sample(sampler, tiny, request)
  counted = len(compiled)
  for step in range(3, 7):
    sample(sampler, tiny, request, step=step)
  assert first.stats.programs == counted
  assert sampler.compiled.count == len(compiled)
  # Batches of 4, 3, 2 and 1 rows, with 1 or 2 prompts; what writes to 1 to 4 pages; what gives up
  # pages (2, 3 or 4 of them) and a prompt (of 4 kinds of arrays); and 3 that prepare.
  assert sampler.compiled.count <= 4 * 2 + 4 + 3 * 2 + 4 + 3


@pytest.mark.long
def test_rows_are_given_up_as_sequences_end(tiny):
  """Of twelve rows four are left after two steps, then two, whatever prompts they are of."""
  limits = np.full((4, 3), 2)
  limits[[0, 0, 1, 3], [0, 2, 1, 1]] = [10, 10, 14, 14]
  options = Options(3, 16, decode_steps=8)
  packed = sample(tiny.sampler(options), tiny, tiny.request(limits=limits))
  assert packed.stats.row_steps == 2 * 12 + 8 * 4 + 4 * 2
  whole = sample(tiny.sampler(dataclasses.replace(options, pack=False)), tiny)
  np.testing.assert_array_equal(packed.lengths, limits)
  np.testing.assert_array_equal(packed.tokens, np.where(packed.mask, whole.tokens, 0))
