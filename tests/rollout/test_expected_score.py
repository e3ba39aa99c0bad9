r"""Expected scores: how `\boxed{0.0}` to `\boxed{1.0}` are tokenized, and the Judge's own."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tiny
from sejax import models, rewards
from sejax.config import parts
from sejax.data import batches, sources
from sejax.models.processor import Processor
from sejax.models.transformer import generation
from sejax.parallel import meshes
from sejax.rollout.expected_score import VALUES, ScoreTag


def written_as(write):
  """Returns a processor whose tokenizer is a function of text."""
  return types.SimpleNamespace(encode_text=lambda text: np.array(write(text)))


def by_character(text):
  return [ord(c) for c in text]


@pytest.fixture
def tag():
  return ScoreTag.of(written_as(by_character))


def test_the_tokens_of_scores(tag):
  assert "".join(map(chr, tag.opening)) == r"\boxed{"
  assert "".join(map(chr, tag.forced)) == "0."
  assert [(fork.step, "".join(map(chr, fork.tokens))) for fork in tag.forks] == [
    (0, "01"),
    (2, "0123456789"),
  ]


def test_scores_of_one_token_each():
  whole = {f"{value:.1f}": 500 + n for n, value in enumerate(VALUES)}
  tag = ScoreTag.of(written_as(lambda text: [*by_character(text[:7]), whole[text[7:]]]))
  assert (tag.forced, len(tag.forks), len(tag.watched)) == ((), 1, 11)
  logp = np.log(np.arange(1, 12) / 66)
  expected = sum(p * value for p, value in zip(np.exp(logp), VALUES, strict=True))
  found = tag.expectation(logp[None, None, None].astype(np.float32))
  np.testing.assert_allclose(found, [[expected]], rtol=1e-6)


def test_scores_that_part_in_several_places_are_refused():
  # The last digit decides how the first ones are written.
  odd = written_as(lambda text: [*by_character(text[:7]), 300 + int(text[-1]) % 2, ord(text[-1])])
  with pytest.raises(ValueError, match=r"judge.expected=True cannot read the scores 0.0 to 1.0"):
    ScoreTag.of(odd)


def test_the_expectation(tag):
  rng = np.random.default_rng(0)
  logp = rng.normal(size=(2, 3, 3, len(tag.watched))).astype(np.float32)
  column = {chr(token): n for n, token in enumerate(tag.watched)}
  found = tag.expectation(logp)
  for b, g in np.ndindex(2, 3):
    first = np.exp(logp[b, g, 0, [column["0"], column["1"]]])
    digits = np.exp(logp[b, g, 2, [column[c] for c in "0123456789"]])
    first, digits = first / first.sum(), digits / digits.sum()
    assert found[b, g] == pytest.approx(first[1] + first[0] * (digits * VALUES[:10]).sum())


@pytest.mark.parametrize(("likely", "score"), [("1", 1.0), ("00", 0.0), ("07", 0.7)])
def test_a_certain_judge(tag, likely, score):
  logp = np.full((1, 1, 3, len(tag.watched)), -200.0, np.float32)
  column = {chr(token): n for n, token in enumerate(tag.watched)}
  logp[0, 0, 0, column[likely[0]]] = 0.0
  logp[0, 0, 2, column[likely[1:] or "3"]] = 0.0
  assert tag.expectation(logp)[0, 0] == pytest.approx(score)


@pytest.fixture(scope="module")
def judged():
  """Returns expected scores of the bundled Judge, and all that led to them."""
  config = tiny.get_config("judge_expected")
  config.group_size = 2
  source = sources.open_source(config.data)
  preparer = parts.preparer(config, source)
  directory = parts.model_directory(config, meshes.create(config.mesh))
  roles = directory.roles(parts.role_options(config))
  collate = batches.Collator(
    model=directory.model,
    dataset=source.name,
    rows=4,
    buckets=batches.Buckets.of(config.data),
    pad_id=roles.processor.pad_id,
  )
  batch = collate([preparer(index) for index in range(3)])
  params = directory.load()
  features = roles.encode(params, batch)
  candidates = [[r"<think>a long way</think> \boxed{4}", r"\boxed{7}"]] * 4
  read = []
  completions = roles.judge_all(
    params,
    batch,
    features,
    candidates,
    seed=0,
    step=0,
    read=lambda texts, truncated: read.append((texts, truncated)) or len(read),
  )
  return roles, batch, params, features, candidates, completions, read


@pytest.mark.long
def test_the_judges_expected_score_is_that_of_full_passes(judged):
  """Each score's probability is that of its tokens in a pass over prompt, candidate and score."""
  roles, batch, params, features, candidates, completions, _ = judged
  processor, model = roles.processor, roles.judge.model
  verdicts = rewards.read_verdicts(
    [[[t] for t in row] for row in completions.texts], rewards.Reading()
  )
  banned = np.array(roles.judge.options.filters.banned)

  @jax.jit
  def logp(prompt, features, tokens):
    last, hidden = model.forward(params, prompt, features, tokens)
    first = jnp.broadcast_to(last[:, None, None], (*tokens.shape[:2], 1, last.shape[-1]))
    logits = generation.logits(params, jnp.concatenate([first, hidden[:, :, :-1]], axis=2))
    logits = logits.at[..., banned].set(-jnp.inf)
    return jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], -1)[..., 0]

  for b in range(3):
    for g, text in enumerate(candidates[b]):
      given = processor.tokenize_candidate(batch.judge_tails[b], text)
      rows = []
      for value in VALUES:
        rows.append([*given, *processor.encode_text(rf"\boxed{{{value:.1f}").tolist()])
      tokens = np.array(rows)[None]
      one = jax.tree.map(lambda x, b=b: x[b : b + 1], (batch.judge.ids, batch.judge.lengths))
      prompt = models.Prompt(*one, batch.judge.positions[:, b : b + 1])
      found = np.asarray(logp(prompt, features[b : b + 1], tokens), np.float64)[0]
      # 0 or 1, and the last digit after `0.`; the point after 1 is not asked for.
      start = len(given) + len(roles.score_tag.opening)
      first = np.exp(found[[0, 10], start])
      digits = np.exp(found[:10, start + 2])
      chance = np.append(first[0] / first.sum() * digits / digits.sum(), first[1] / first.sum())
      expected = (chance * VALUES).sum()
      assert verdicts.scores[b, g] == pytest.approx(expected, abs=2e-5)


@pytest.mark.long
def test_expected_scores_are_read_as_verdicts_are(judged):
  *_, completions, read = judged
  assert not completions.result.truncated.any()
  assert completions.readings == [1, 2, 3, 4]
  assert read[0] == (completions.texts[0], [False, False])
  assert all(text.startswith(r"\boxed{0.") for row in completions.texts for text in row)


def test_the_bundled_tokenizer_writes_scores_as_qwens_do():
  config = tiny.get_config()
  tag = ScoreTag.of(Processor.load(config.model.path, None, None))
  assert (len(tag.forced), [fork.step for fork in tag.forks]) == (2, [0, 2])
