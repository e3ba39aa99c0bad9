"""Collecting a rollout: rewards of a batch, constant groups, resampling, and its metrics."""

import numpy as np
import pytest

from configs import tiny
from sejax import method, models
from sejax import rollout as rollout_lib
from sejax.config import parts
from sejax.data import batches, sources
from sejax.data.records import BadRecord
from sejax.monitoring import flops
from sejax.monitoring import metrics as monitoring
from sejax.monitoring import timing as timing_lib
from sejax.rollout import collect
from sejax.sampling import Role
from sejax.sampling.certainty import Certainty
from sejax.sampling.result import Finish, Result, Stats
from sejax.text.equivalence import Prover

B, G, R = 4, 2, 3


class Roles:
  """Fake samplers: rewards differ in groups of records with an odd index, and only in these."""

  def __init__(self):
    self.batches = 0
    self.encoded = []  # roles whose vision tower was used
    self.records = {"actor": [], "judge": []}  # record hashes that seeded the samples

  def encode(self, params, batch):
    del params, batch
    self.encoded.append("actor")
    return "actor's"

  def encode_for_judge(self, params, batch):
    del params, batch
    self.encoded.append("judge")
    return "judge's"

  def act(self, params, batch, features, *, seed, step, read, watch, role=Role.ACTOR):
    del seed, step, watch
    if role is Role.TEACHER:
      assert params == "teacher's weights"
      texts = [[f"\\boxed{{{i + 10}}}", f"\\boxed{{{i}.0}}"] for i in batch.index]
      finish = np.zeros((B, G), np.int8)
      result = Result(None, np.full((B, G), 5), None, None, finish, STATS)
      return rollout_lib.Completions(result, texts, self._read(read, texts, finish))
    assert features == "actor's"
    self.batches += 1
    self.records["actor"] += batch.record_hashes[batch.real].tolist()
    texts = [[f"<think>{i}</think>\\boxed{{{i}}}", self._second(i)] for i in batch.index]
    tokens = np.broadcast_to(batch.index[:, None, None], (B, G, R)).astype(np.int32)
    lengths = np.where(batch.real[:, None], [2, 3], 0)
    finish = np.full((B, G), Finish.EOS, np.int8)
    finish[batch.index == 1, 1] = Finish.LENGTH
    logp = -tokens.astype(np.float32)
    certainty = Certainty(np.full((B, G), 0.5, np.float32), tokens[..., 0].astype(np.float32))
    result = Result(tokens, lengths, logp, logp, finish, STATS, certainty)
    return rollout_lib.Completions(result, texts, self._read(read, texts, finish))

  def judge_all(self, params, batch, features, candidates, *, seed, step, read, watch):
    del params, seed, step, watch
    self.read = features
    self.records["judge"] += batch.record_hashes[batch.real].tolist()
    texts = [[f"It says {text}. \\boxed{{0.9}}" for text in group] for group in candidates]
    finish = np.full((B, G), Finish.EOS, np.int8)
    finish[batch.index == 7, 0] = Finish.LENGTH
    result = Result(None, np.full((B, G), 7), None, None, finish, STATS)
    return rollout_lib.Completions(result, texts, self._read(read, texts, finish))

  def _read(self, read, texts, finish):
    truncated = (finish == Finish.LENGTH).tolist()
    return [read(*group) for group in zip(texts, truncated, strict=True)]

  def _second(self, index):
    return f"\\boxed{{{index}}}" if index % 2 else f"<think>{index}</think>\\boxed{{{index}}}"


def loss_mask(rollout, *, truncated):
  return collect.loss_mask(rollout.result, rollout.in_loss, R, truncated=truncated)


STATS = Stats(0, 0, 0, 0, {})


@pytest.fixture
def collected():
  """Returns a function that collects a rollout from batches of the given record indices.

  The function returns the rollout and the fake samplers.
  """

  def run(
    *indices,
    constant_groups,
    judge=True,
    invalid_verdict="neutral",
    shares_tower=False,
    keep_features=True,
    advantage="centered",
    teacher=None,
    views=False,
    **changes,
  ):
    config = tiny.get_config()
    config.judge.use, config.method.invalid_verdict = judge, invalid_verdict
    config.update(batch_size=B, group_size=G)
    config.method.advantage = advantage
    config.train.update(constant_groups=constant_groups, **changes)
    source = sources.open_source(config.data)
    preparer, roles = parts.preparer(config, source), Roles()
    model, _ = models.load(config.model.path)
    collate = batches.Collator(
      model=model,
      dataset=source.name,
      rows=B,
      buckets=batches.Buckets.of(config.data),
      pad_id=preparer.processor.pad_id,
      paired=views,
    )
    collector = collect.Collector(
      roles=roles,
      collate=collate,
      source=source,
      clock=timing_lib.Clock(),
      scoring=parts.scoring(config),
      reward_function=None,
      seed=config.seed,
      constant_groups=config.train.constant_groups,
      resample_limit=config.train.resample_limit,
      shares_tower=shares_tower,
      keep_features=keep_features,
    )
    data = iter([[preparer(index) for index in rows] for rows in indices])
    weights = collect.SamplingWeights(None, None, teacher)
    return collector.collect_rollout(weights, data, 0), roles

  return run


def test_evidence_of_the_sampler(collected):
  rollout, _ = collected([3, 2, 1], constant_groups="keep")
  evidence = rollout.evidence
  assert evidence.logp.tolist() == [[-3, -3], [-2, -2], [-1, -1], [0, 0]]  # 0 without tokens
  assert evidence.self_certainty[:3].tolist() == [[3, 3], [2, 2], [1, 1]]
  assert evidence.entropy.tolist() == [[0.5, 0.5]] * 4
  assert evidence.truncated.tolist() == [[False, False]] * 2 + [[False, True], [False, False]]
  assert evidence.verdicts[:3] == pytest.approx(0.9)
  assert evidence.verdicts.shape == (B, G, 1)
  assert evidence.view_ids is None
  assert evidence.teacher_ids is None
  rollout, _ = collected([3, 2, 1], constant_groups="keep", judge=False)
  assert rollout.evidence.verdicts is None


def test_a_teachers_answers_are_numbered_as_the_groups_are(collected):
  rollout, roles = collected([3, 2], constant_groups="keep", teacher="teacher's weights")
  # Its second answer, written otherwise, is the group's only one.
  assert rollout.evidence.answer_ids[:2].tolist() == [[0, 0], [0, 0]]
  assert rollout.evidence.teacher_ids[:2].tolist() == [[G + 1, 0], [G + 1, 0]]
  assert roles.encoded == ["actor", "judge"]
  _, roles = collected(
    [3, 2], constant_groups="keep", teacher="teacher's weights", keep_features=False
  )
  assert roles.encoded == ["actor", "actor", "judge"]  # By its own tower, where that is trained.


def test_two_views_vote_for_each_other(collected):
  rollout, _ = collected([3, 3, 2, 5], constant_groups="keep", views=True)
  assert rollout.batch.views.tolist() == [1, 0, 3, 2]
  assert rollout.evidence.view_ids.tolist() == [[0, 0], [0, 0], [G + 1] * 2, [G + 1] * 2]
  rollout, _ = collected([3, 3], constant_groups="keep", views=True)
  assert rollout.batch.views.tolist() == [1, 0, 2, 3]
  assert rollout.evidence.view_ids[2:].tolist() == [[0, 0]] * 2  # each its own


def test_verdicts_and_rewards_belong_to_their_trajectories(collected):
  rollout, _ = collected([3, 2, 1], constant_groups="keep")
  assert rollout.batch.index.tolist() == [3, 2, 1, -1]
  assert rollout.in_loss.tolist() == [True, True, True, False]
  assert rollout.verdict_texts[1][0] == ["It says <think>2</think>\\boxed{2}. \\boxed{0.9}"]
  assert rollout.evidence.judge_scores[:3] == pytest.approx(0.9)
  assert rollout.evidence.format_ok.tolist()[:3] == [[True, False], [True, True], [True, False]]
  advantage = collect.advantage(rollout)
  assert advantage[0, 0] > 0 > advantage[0, 1]
  assert advantage[1].tolist() == [0, 0]
  assert advantage[3].tolist() == [0, 0]


def test_constant_groups_are_kept_or_dropped(collected):
  kept, _ = collected([0, 1, 2, 3], constant_groups="keep")
  dropped, _ = collected([0, 1, 2, 3], constant_groups="drop")
  assert loss_mask(kept, truncated=True).any(axis=(1, 2)).tolist() == [True] * 4
  counted = loss_mask(dropped, truncated=True)
  assert counted.any(axis=(1, 2)).tolist() == [False, True, False, True]
  assert counted[1].tolist() == [[True, True, False], [True, True, True]]


def test_truncated_trajectories_may_be_left_out(collected):
  rollout, _ = collected([0, 1, 2, 3], constant_groups="keep")
  counted = loss_mask(rollout, truncated=False)
  assert counted.any(axis=2).tolist() == [[True, True], [True, False], [True, True], [True, True]]


def test_groups_that_teach_nothing_are_replaced(collected):
  rollout, roles = collected([0, 1, 2, 3], [4, 5, 6, 7], [9, 9, 9, 9], constant_groups="resample")
  assert roles.batches == 2
  rows = [1, 3, 5, 7]
  assert rollout.batch.index.tolist() == rows
  assert rollout.evidence.index.tolist() == rows
  assert rollout.in_loss.all()
  assert rollout.result.tokens[:, 0, 0].tolist() == rows
  assert rollout.result.truncated.tolist() == [[False, True]] + [[False, False]] * 3
  assert [texts[1] for texts in rollout.evidence.texts] == [f"\\boxed{{{i}}}" for i in rows]
  assert [verdicts[1][0][8:17] for verdicts in rollout.verdict_texts] == [
    f"\\boxed{{{i}}}" for i in rows
  ]
  once, _ = collected(rows, constant_groups="keep")
  for name in once.group._fields:
    np.testing.assert_array_equal(getattr(rollout.group, name), getattr(once.group, name), name)


@pytest.mark.parametrize(
  ("constant_groups", "indices"),
  [("keep", [[3, 2, 1]]), ("drop", [[0, 1, 2, 3]]), ("resample", [[0, 1, 2, 3], [4, 5, 6, 7]])],
)
def test_gdpo_whitens_over_all_tokens_of_a_step(constant_groups, indices, collected):
  rollout, _ = collected(*indices, constant_groups=constant_groups, advantage="gdpo")
  before, _ = collected(*indices, constant_groups=constant_groups, advantage="standardized")
  of_tokens = np.repeat(
    np.asarray(before.group.advantage)[before.in_loss].ravel(),
    before.result.lengths[before.in_loss].ravel(),
  )
  expected = (before.group.advantage - of_tokens.mean()) / of_tokens.std(ddof=1)
  np.testing.assert_allclose(rollout.group.advantage, expected, rtol=1e-5)
  assert abs(of_tokens.mean()) > 0.01  # The longer trajectories are the worse ones.


def test_a_record_that_occurs_again_is_sampled_anew(collected):
  """Also in a later batch of the step; its first occurrence has the samples it always has."""
  rollout, roles = collected([0, 2, 0, 1], [1, 0, 3, 5], constant_groups="resample")
  for sampled in roles.records.values():
    assert len({tuple(record) for record in sampled}) == 8
  once, fresh = collected([0, 1, 2, 3], constant_groups="keep")
  records = dict(zip(once.batch.index.tolist(), once.batch.record_hashes.tolist(), strict=True))
  assert roles.records["actor"][:2] == [records[0], records[2]]
  assert roles.records["actor"][3] == records[1]
  assert fresh.records["actor"] == list(records.values())
  # The merged batch keeps the hashes that seeded its samples.
  assert rollout.batch.index.tolist() == [1, 1, 3, 5]
  assert rollout.batch.record_hashes.tolist() == [
    roles.records["actor"][row] for row in (3, 4, 6, 7)
  ]


def figures(rollout):
  with Prover() as prover:
    return monitoring.of_rollout(
      rollout, sources.open_source(tiny.get_config().data), prover, "none"
    )


@pytest.mark.long
def test_figures_are_of_all_that_was_sampled(collected):
  """Of 16 sampled groups 12 are constant; the other 4 are trained on."""
  data = [[0, 2, 4, 6], [8, 10, 12, 14], [1, 16, 18, 20], [3, 22, 5, 7]]
  rollout, _ = collected(*data, constant_groups="resample")
  found = figures(rollout)
  assert found["constant_groups"] == 0.75
  assert found["sampled_groups"] == 16
  # Both trajectories of a group agree, so that each has a label.
  assert found["label_accuracy_count"] == 16
  assert found["trained_groups"] == 4
  # Both trajectories have reward 1, or the second breaks the format: the Judge's factor less 0.5.
  mean, std = (1 + 0.5151626) / 2, (1 - 0.5151626) / 2
  assert found["majority_share"] == 1
  assert found["format"] == pytest.approx((12 + 4 / 2) / 16)
  assert found["trained_reward"] == pytest.approx(mean)
  assert found["reward"] == pytest.approx((12 + 4 * mean) / 16)
  assert found["trained_reward_std"] == pytest.approx(std)
  assert found["reward_std"] == pytest.approx(4 * std / 16)
  assert found["truncated"] == pytest.approx(1 / 32)  # the second one of record 1
  assert found["trained_truncated"] == pytest.approx(1 / 8)
  assert found["response_length"] == found["trained_response_length"] == 2.5
  # Of each group 2 and 3 tokens of trajectories, and 7 of each verdict.
  assert found["sampled_tokens"] == 16 * (2 + 3 + 2 * 7)


def test_sampled_tokens_are_those_of_all_roles_and_of_real_rows(collected):
  for changes, expected in (
    ({}, 2 * (5 + 14)),
    ({"judge": False}, 2 * 5),
    ({"teacher": "teacher's weights"}, 2 * (5 + 14 + 10)),
  ):
    rollout, _ = collected([3, 2], constant_groups="keep", **changes)
    assert figures(rollout)["sampled_tokens"] == expected, changes


def test_figures_of_groups_that_are_dropped(collected):
  dropped = figures(collected([0, 1, 2, 3], constant_groups="drop")[0])
  kept = figures(collected([0, 1, 2, 3], constant_groups="keep")[0])
  same = [name for name in kept if not name.startswith("trained_")]
  assert {name: dropped[name] for name in same} == {name: kept[name] for name in same}
  assert (kept["trained_groups"], dropped["trained_groups"], kept["sampled_groups"]) == (4, 2, 4)
  assert kept["trained_reward"] == kept["reward"] == pytest.approx((3 + 0.5151626) / 4)
  assert dropped["trained_reward"] == pytest.approx((1 + 0.5151626) / 2)
  nothing = figures(collected([0, 2, 4, 6], constant_groups="drop")[0])
  assert nothing["constant_groups"] == 1
  assert nothing["trained_groups"] == 0
  assert "trained_reward" not in nothing


def test_speed_counts_all_tokens_that_were_sampled(collected):
  data = [[0, 2, 4, 6], [1, 3, 5, 7]]
  rollout, _ = collected(*data, constant_groups="resample")
  once, _ = collected(data[1], constant_groups="keep")
  model = models.load_config(tiny.get_config().model.path)
  assert sum(int(part.lengths.sum()) for part in rollout.sampled) == 2 * once.result.lengths.sum()
  prompts = [sum(part.prompt_tokens for part in one.sampled) for one in (rollout, once)]
  sampled = [flops.of_sampling(model, one) for one in (rollout, once)]
  assert sampled[1] == flops.of_forward(model, once) == flops.of_tokens(model, prompts[1], 20)
  assert sampled[0] == flops.of_tokens(model, prompts[0], 40)
  # Scoring and update count only the groups that are trained on.
  steps = [
    flops.of_step(model, one, adapters=False, log_prob_passes=1.75) for one in (rollout, once)
  ]
  assert steps[0] - steps[1] == pytest.approx(sampled[0] - sampled[1])


@pytest.mark.parametrize("invalid_verdict", ["zero", "neutral"])
def test_without_a_judge_every_factor_is_one(collected, invalid_verdict):
  options = {"judge": False, "invalid_verdict": invalid_verdict}
  rollout, roles = collected([0, 1, 2, 3], constant_groups="keep", **options)
  assert roles.records["judge"] == []
  assert np.asarray(rollout.group.factor).tolist() == [[1, 1]] * 4
  assert np.asarray(rollout.group.reward).tolist() == [[1, 1], [1, 0.5]] * 2
  found = figures(rollout)
  of_verdicts = {"invalid_verdicts", "judge_mean", "agreement"}
  of_verdicts |= {"truncated_verdicts", "contradictory_verdicts"}
  assert found.keys().isdisjoint(of_verdicts)
  judged = figures(collected([0, 1, 2, 3], constant_groups="keep")[0])
  assert judged.keys() - found.keys() == of_verdicts


def test_a_verdict_that_was_cut_is_invalid_and_counted(collected):
  rows = [1, 3, 5, 7]
  rollout, _ = collected([0, 1, 2, 3], [4, 5, 6, 7], constant_groups="resample")
  assert rollout.batch.index.tolist() == rows
  assert rollout.evidence.judge_valid.tolist() == [[True, True]] * 3 + [[False, True]]
  assert rollout.evidence.judge_scores[3].tolist() == [0, pytest.approx(0.9)]
  counts = [part.verdicts.counts() for part in rollout.sampled]
  assert [c["truncated_verdicts"].tolist() for c in counts] == [[0] * 4, [0, 0, 0, 1]]
  assert [c["contradictory_verdicts"].tolist() for c in counts] == [[0] * 4] * 2
  assert figures(rollout)["truncated_verdicts"] == 1 / 8


def test_resampling_ends_at_its_limit_with_groups_that_do_not_count(collected):
  data = [[0, 2, 4, 1], [6, 8, 10, 12], [1, 3, 5, 7]]
  rollout, roles = collected(*data, constant_groups="resample", resample_limit=2)
  assert roles.batches == 2
  assert rollout.batch.index.tolist() == [1, 0, 2, 4]
  assert rollout.in_loss.tolist() == [True, False, False, False]


def test_a_missing_gold_answer_leaves_out_its_group_alone(collected, monkeypatch):
  rollout, _ = collected([0, 1, 2, 3], constant_groups="keep")
  source = sources.open_source(tiny.get_config().data)
  golds = {0: "0", 1: None, 2: "9", 3: "3"}  # The answer to record i is i.

  def gold(index):
    if index == 1:
      raise BadRecord("bad answer", "record 1: its answer is a list")
    return golds[index]

  monkeypatch.setattr(source, "gold", gold)
  with Prover() as prover:
    found = monitoring.of_rollout(rollout, source, prover, "none")
  assert found["pass@1"] == pytest.approx(2 / 3)
  assert found["pass@G"] == pytest.approx(2 / 3)
  assert found["label_accuracy"] == pytest.approx(2 / 3)
  assert found["majority_share"] == 1
  assert found["undecided_grades"] == 0


def test_groups_with_unequal_rewards_are_found():
  rewards = np.array([[0.5, 0.5], [0.5, 0.25], [0.0, 0.0]])
  group = method.Group(*[rewards] * 5)
  assert collect.rewards_differ(group).tolist() == [False, True, False]


def test_groups_of_which_one_of_several_rewards_differs_are_found():
  rewards = np.array([[[1, 0, 0, 0], [1, 1, 1, 1]], [[0, 1, 0, 0]] * 2, [[0, 0, 1, 1], [0.5] * 4]])
  rewards[1, 1] = 0.5
  for advantage, expected in (("gdpo", [True, False]), ("centered", [False, False])):
    group = method.group_of_rewards(rewards, np.ones((2, 4), bool), advantage=advantage)
    assert collect.rewards_differ(group).tolist() == expected, advantage


@pytest.mark.parametrize(
  ("shares_tower", "judge", "encoded", "read"),
  [
    (True, True, ["actor"], "actor's"),
    (False, True, ["actor", "judge"], "judge's"),
    (True, False, ["actor"], None),
    (False, False, ["actor"], None),
  ],
)
def test_pictures_are_encoded_once_for_each_distinct_tower(
  shares_tower, judge, encoded, read, collected
):
  rollout, roles = collected(
    [0, 1, 2, 3], constant_groups="keep", judge=judge, shares_tower=shares_tower
  )
  assert roles.encoded == encoded
  assert getattr(roles, "read", None) == read
  assert rollout.features == "actor's"  # The learner reuses them if its tower is the same.


@pytest.mark.parametrize(("keep_features", "kept"), [(True, "actor's"), (False, None)])
def test_features_are_kept_for_a_learner_with_the_same_tower(keep_features, kept, collected):
  rollout, _ = collected([0, 1, 2, 3], constant_groups="keep", keep_features=keep_features)
  assert rollout.features == kept


def test_merged_batches_bring_no_features(collected):
  """The learner then encodes the merged batch itself."""
  rollout, _ = collected([0, 1, 2, 3], [4, 5, 6, 7], constant_groups="resample")
  assert rollout.features is None
