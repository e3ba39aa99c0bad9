"""Given tokens, repeats, limits, stop strings, progress callbacks, and invalid requests."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sejax.parallel.programs import ProgramCache
from sejax.sampling import (
  Filters,
  Finish,
  Options,
  Role,
  Sampler,
  StopStrings,
  decode,
  record_hashes,
)
from tests.sampling.conftest import WIDTH

WARM = Filters(temperature=0.9, banned=(120, 121, 122, 123))


def sample(sampler, tiny, request, **kwargs):
  return sampler(tiny.params, request, seed=5, step=0, role=Role.JUDGE, **kwargs)


@pytest.fixture(scope="module")
def sampler(tiny):
  return tiny.sampler(
    Options(2, 12, WARM, tuple(range(2, 8)), pad_id=1, decode_steps=6, pack=False)
  )


@pytest.mark.long
@pytest.mark.parametrize(
  "changes", [{}, {"max_concurrent_rows": 3}, {"cache_tokens": 40, "decode_steps": 3}]
)
def test_given_tokens_equal_a_longer_prompt(tiny, sampler, changes):
  """Given tokens of unequal lengths, possibly none, act as if they ended the prompt."""
  rng = np.random.default_rng(0)
  lengths = np.array([[3, 6], [0, 2], [5, 1], [6, 6]])
  given = rng.integers(2, 100, (4, 2, 6)).astype(np.int32)
  request = tiny.request(given=given, given_lengths=lengths)
  result = sample(
    tiny.sampler(dataclasses.replace(sampler.options, page_size=4, **changes)), tiny, request
  )
  for member in range(2):
    ids = [
      np.concatenate([row, tokens[:n]])
      for row, tokens, n in zip(tiny.batch.ids, given[:, member], lengths[:, member], strict=True)
    ]
    prompt = dataclasses.replace(tiny.batch, ids=ids).prompt(tiny.config, WIDTH)
    expected = sample(sampler, tiny, tiny.request(prompt=prompt))
    np.testing.assert_array_equal(result.tokens[:, member], expected.tokens[:, member])
    np.testing.assert_allclose(result.logp[:, member], expected.logp[:, member], atol=1e-5)


@pytest.mark.long
def test_repeats_differ_and_the_first_is_the_sample_without_repeats(tiny, sampler):
  given = np.full((4, 2, 6), 7, np.int32)
  request = tiny.request(given=given, given_lengths=np.full((4, 2), 3))
  once = sample(sampler, tiny, request)
  twice = sample(tiny.sampler(dataclasses.replace(sampler.options, repeats=2)), tiny, request)
  assert twice.tokens.shape == (4, 4, 12)
  np.testing.assert_array_equal(twice.tokens[:, ::2], once.tokens)
  assert (twice.tokens[:, 1::2] != once.tokens).any(-1).all()


def test_limits_cut_each_row_by_itself(tiny, sampler):
  whole = sample(sampler, tiny, tiny.request())
  limits = np.array([[12, 1], [3, 5], [0, 0], [12, 7]])
  result = sample(sampler, tiny, tiny.request(limits=limits))
  np.testing.assert_array_equal(result.lengths, np.minimum(limits, whole.lengths))
  np.testing.assert_array_equal(result.tokens, np.where(result.mask, whole.tokens, 1))
  assert result.truncated[result.lengths < whole.lengths].all()


def test_stop_strings_end_at_the_token_that_completes_them(tiny, sampler):
  whole = sample(sampler, tiny, tiny.request())
  row = tuple(np.argwhere(whole.lengths == 12)[0])
  pair = whole.tokens[row][5:7]
  stop = StopStrings(
    (f"{pair[0]}><{pair[1]}", "no such text"),
    lambda tokens: "".join(f"<{token}>" for token in tokens),
  )
  result = sample(sampler, tiny, tiny.request(), stop=stop)
  assert result.lengths[row] == 7
  assert result.finish[row] == Finish.STOP_STRING
  assert not result.truncated[row]
  assert (result.lengths != whole.lengths).sum() == 1
  np.testing.assert_array_equal(result.tokens, np.where(result.mask, whole.tokens, 1))
  assert not result.logp[row][7:].any()


def test_a_banned_image_token_is_not_drawn_however_likely_it_is(tiny, sampler):
  head = tiny.params["lm_head"]["kernel"]
  biased = {**tiny.params, "lm_head": {"kernel": head.at[:, 120].set(0).at[:8, 120].set(500.0)}}
  request = tiny.request()
  _, logits = jax.jit(tiny.config.prefill)(biased, request.prompt, request.features)
  assert (logits.argmax(-1) == 120).any()
  result = sampler(biased, request, seed=0, step=0, role=Role.ACTOR)
  assert not np.isin(result.tokens, WARM.banned).any()


@pytest.mark.long
def test_decode_runs_share_weights_and_read_the_used_part_of_the_cache(tiny):
  runs = []

  class Watched(ProgramCache):
    def call(self, program, *args):
      out = super().call(program, *args)
      if program.function is decode.decode_tokens:
        runs.append(args)
      return out

  greedy = Filters(temperature=0.0)
  sampler = Sampler(tiny.config, Options(2, 8, greedy, page_size=2, decode_steps=2))
  sampler.compiled = Watched()
  bf16_params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tiny.params)
  sampler(bf16_params, tiny.request([0, 1]), seed=0, step=0, role=Role.ACTOR)
  # A page for each of four rows, also before there is anything in it.
  assert [pages.keys.shape[1] for _, _, _, pages, *_ in runs] == [4, 4, 8, 12]
  first = jax.tree.leaves(runs[0][0])
  assert {x.dtype for x in first} == {jnp.dtype(jnp.float32)}
  for params, hidden, *_ in runs:
    assert all(x is y for x, y in zip(jax.tree.leaves(params), first, strict=True))
    assert hidden.is_deleted()
  assert runs[0][3].keys.is_deleted(), "new tokens were written to a copy of the cache"


def test_the_callback_is_called_during_each_decode_run_and_at_the_end(tiny, sampler):
  seen = []

  def watch(progress):
    seen.append((int(progress.lengths.max()), progress.complete.all(), progress.truncated))

  result = sample(sampler, tiny, tiny.request(), watch=watch)
  assert [length for length, *_ in seen] == [0, 6, 12]
  assert [complete for _, complete, _ in seen] == [False, False, True]
  assert np.array_equal(seen[-1][2], result.truncated)
  assert not result.truncated.all()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"trajectories": 0}, "options.trajectories is 0; it must be at least 1"),
    ({"max_new_tokens": 0}, "options.max_new_tokens is 0"),
    ({"decode_steps": 0}, "options.decode_steps is 0"),
    ({"max_concurrent_rows": 0}, "options.max_concurrent_rows is 0"),
    ({"cache_tokens": 0}, "options.cache_tokens is 0"),
    ({"page_size": 0}, "options.page_size is 0"),
    ({"eos_ids": (128,)}, "options.eos_ids holds 128; ids run from 0 to vocab_size - 1 = 127"),
    ({"filters": Filters(banned=(128,))}, "filters.banned holds 128"),
  ],
)
def test_options_that_cannot_work_are_named(tiny, changes, message):
  with pytest.raises(ValueError, match=message):
    Sampler(tiny.config, Options(**{"trajectories": 2, "max_new_tokens": 8, **changes}))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"given": np.zeros((4, 2, 58)), "given_lengths": np.ones((4, 2))}, "at most 2 new tokens fit"),
    (
      {"given": np.zeros((4, 2, 3)), "given_lengths": np.full((4, 2), 4)},
      "request.given_lengths holds 4; it must be from 0 to 3",
    ),
    ({"given": np.zeros((4, 2, 3))}, "go together"),
    (
      {"given": np.zeros((4, 3, 3))},
      r"request.given has shape \(4, 3, 3\); it must be \(4, 2, 3\)",
    ),
    ({"limits": np.full((4, 2), 9)}, "request.limits holds 9; it must be from 0 to 8"),
    ({"record_hashes": record_hashes("d", ["a"])}, r"request.record_hashes has shape \(1, 2\)"),
  ],
)
def test_requests_that_cannot_work_are_named_and_nothing_is_compiled(tiny, changes, message):
  sampler = Sampler(tiny.config, Options(2, 8, WARM, context=100))
  with pytest.raises(ValueError, match=message):
    sample(sampler, tiny, tiny.request(**changes))
  assert sampler.compiled.count == 0


def test_requests_that_exceed_the_context_are_refused(tiny):
  sampler = Sampler(tiny.config, Options(2, 80, WARM, context=100))
  message = "max_new_tokens=80 tokens are more than the context of 100; at most 60 new tokens fit"
  with pytest.raises(ValueError, match=message):
    sample(sampler, tiny, tiny.request())
  short = Sampler(tiny.config, Options(2, 80, WARM, context=15))
  with pytest.raises(ValueError, match="context of 15; ask in fewer words or smaller pictures"):
    sample(short, tiny, tiny.request())
  assert sampler.compiled.count == short.compiled.count == 0


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_named(tiny, seed):
  with pytest.raises(ValueError, match=f"seed is {seed}"):
    Sampler(tiny.config, Options(1, 8))(
      tiny.params, tiny.request(), seed=seed, step=0, role=Role.ACTOR
    )
