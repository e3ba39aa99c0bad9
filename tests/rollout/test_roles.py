"""Sampling with Actor and Judge: rows with images, without images, and padding rows."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from sejax import config as config_lib
from sejax import models, rollout
from sejax.config import parts
from sejax.data import batches
from sejax.sampling import Request, Role, Sampler, encode
from tests.data.problems import Problems
from tests.models import qwen_directory, torch_reference

pytestmark = pytest.mark.long

CANDIDATES = [
  [r"<think>One.</think>\boxed{1}", "Two <|image_pad|> <|im_end|>"],
  ["", "Three."],
  ["", ""],
]


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
  """Tiny random weights with the real vocabulary, greedy samplers, and a batch with padding."""
  model = torch_reference.real_vocabulary_config()
  params = torch_reference.to_params(torch_reference.torch_model(model).state_dict(), model)
  config = config_lib.default()
  config.update(group_size=2)
  config.model.path = str(qwen_directory.write(tmp_path_factory.mktemp("rollout")))
  config.data.min_pixels = None
  config.judge.rubric = "short"
  config.judge.num_judge_repeats = 2
  for role in (config.actor, config.judge):
    role.update(temperature=0.0, max_tokens=4)
  preparer = parts.preparer(config, Problems(2))
  processor = preparer.processor
  collate = batches.Collator(
    model=model,
    dataset="problems",
    rows=3,
    buckets=batches.Buckets((128,), (64,)),
    pad_id=processor.pad_id,
  )
  batch = collate([preparer(1), preparer(0)])
  features = jax.jit(model.encode)(params, batch.packed_images)
  compute = parts.compute(config)
  sampled = compute.on_devices(model, None)
  roles = rollout.Roles.create(
    parts.role_options(config), processor, actor=sampled, judge=sampled, dtype=compute.dtype
  )
  return params, roles, batch, features


def test_the_actor_draws_for_every_row_but_padding(setting):
  params, roles, batch, features = setting
  rolled = roles.act(params, batch, features, seed=0, step=0)
  assert rolled.result.lengths.tolist() == [[4, 4], [4, 4], [0, 0]]
  assert rolled.texts[0][0] == roles.processor.decode(rolled.result.tokens[0, 0])
  assert rolled.texts[2] == ["", ""]


def test_complete_groups_are_read_while_others_are_sampled(setting):
  params, roles, batch, features = setting
  # One prompt's two trajectories at once.
  options = dataclasses.replace(roles.actor.options, max_concurrent_rows=2)
  one_by_one = roles._replace(actor=Sampler(roles.actor.model, options))
  events = []

  def read(texts, truncated):
    events.append(texts)
    return truncated

  def watch(progress):
    events.append(progress.complete.tolist())

  rolled = one_by_one.act(params, batch, features, seed=0, step=0, read=read, watch=watch)
  padding, first, second = [False, False, True], [True, False, True], [True, True, True]
  assert events == [padding, ["", ""], first, rolled.texts[0], second, rolled.texts[1]]
  assert rolled.readings == rolled.result.truncated.tolist() == [[True] * 2] * 3
  assert rolled.texts == roles.act(params, batch, features, seed=0, step=0).texts


def test_features_are_the_same_in_parts(setting, monkeypatch):
  params, roles, batch, features = setting
  rows = np.array([0, 1, 2, 1, 0, 2])
  images = jax.tree.map(lambda x: x[rows], batch.packed_images)
  monkeypatch.setattr(encode, "_PATCHES_AT_ONCE", 64)  # a row of each of two shards at a time
  in_parts = functools.partial(
    encode.encode_rows, model=roles.actor.model, shards=2, dtype=np.dtype("float32")
  )
  tower = roles.actor.model.vision_params(params)
  assert "length=3" in str(jax.make_jaxpr(in_parts)(tower, images))
  found = in_parts(tower, images)
  np.testing.assert_allclose(found, np.asarray(features)[rows], atol=1e-5)


def test_nobody_draws_vision_tokens(setting):
  _, roles, _, _ = setting
  for sampler in (roles.actor, roles.judge):
    config = sampler.model
    vision = {config.image_token_id, config.video_token_id}
    vision |= {config.vision_start_token_id, config.vision_end_token_id}
    assert vision <= set(sampler.options.filters.banned)


def test_a_verdict_is_that_of_the_whole_conversation_read_at_once(setting):
  params, roles, batch, features = setting
  rolled = roles.judge_all(params, batch, features, CANDIDATES, seed=0, step=0)
  verdicts, truncated = rollout.by_candidate(rolled, 2)
  assert np.array_equal(np.reshape(truncated, (3, -1)), rolled.result.truncated)
  assert [len(row) for row in verdicts] == [2, 2, 2]
  assert len({texts[0] for row in verdicts[:2] for texts in row}) == 4
  for b in range(2):
    for g in range(2):
      assert verdicts[b][g] == [_whole(params, roles, batch, features, b, g)] * 2


def test_too_small_a_context_is_refused_before_any_candidate_is_sampled(setting):
  _, roles, batch, _ = setting
  # 4 tokens of a candidate and the tail after them take 48; 128 of prompt, 4 of verdict.
  assert 4 + len(roles.processor.tokenize_candidate(batch.judge_tails[0], "")) <= 48
  _with_context(roles, 128 + 48 + 4).check_context(batch)
  with pytest.raises(ValueError, match="are more than the model's context of"):
    _with_context(roles, 128 + 48 + 3).check_context(batch)


def _with_context(roles, tokens):
  text = dataclasses.replace(roles.judge.model.text, max_position_embeddings=tokens)
  model = dataclasses.replace(roles.judge.model, text=text)
  return roles._replace(judge=Sampler(model, roles.judge.options))


def _whole(params, roles, batch, features, b, g):
  """Returns the greedy verdict if the candidate is prefilled as part of the prompt."""
  ids = np.concatenate(
    [
      batch.judge.ids[b, : batch.judge.lengths[b]],
      roles.processor.tokenize_candidate(batch.judge_tails[b], CANDIDATES[b][g]),
    ]
  )[None]
  lengths = np.array([ids.shape[1]], np.int32)
  grids = [[[1, 4, 4]]] if b == 0 else [np.zeros((0, 3), np.int32)]
  positions = roles.judge.model.prompt_positions(ids, lengths, grids)
  request = Request(
    models.Prompt(ids, lengths, positions), batch.record_hashes[:1], features[b : b + 1]
  )
  result = roles.judge(params, request, seed=0, step=0, role=Role.JUDGE)
  return roles.processor.decode(result.tokens[0, 0, : result.lengths[0, 0]])
