"""From texts to rewards: the released code's whole chain, and averaged verdicts."""

import json
import re

import numpy as np
import pytest

from sejax import config as config_lib
from sejax import rewards
from sejax.config import modes, parts
from sejax.rewards import recorded
from tests import golden


def released_config(group):
  config = config_lib.default()
  config.answers.equivalence, config.answers.unparsable = "exact", "vote"
  config.answers.released_extraction = config.judge.released_reading = True
  config.method.beta = group["beta"]
  for ours, theirs in (("g_min", "clamp_min"), ("g_max", "clamp_max")):
    config.method[ours] = group.get(theirs, config.method[ours])
  for name in ("threshold", "clip_adv", "t_h", "t_l", "lam_pos", "lam_neg", "tau_h", "tau_l"):
    if group.get(name) is not None:
      config.method[name] = group[name]
  return config


@pytest.mark.long
@pytest.mark.parametrize("name", golden.FILES)
def test_the_released_chain_from_texts_to_advantages(name):
  for group in golden.load(name)["groups"]:
    scored = rewards.score_groups(
      [group["responses"]],
      [[[text] for text in group["judge_responses"]]],
      parts.scoring(released_config(group)),
    )
    for field, expected in (
      ("self_consistency", "prior"),
      ("factor", "factor"),
      ("reward", "reward"),
      ("log_q", "group_log_prob"),
      ("advantage", "advantage"),
    ):
      np.testing.assert_allclose(
        getattr(scored.group, field)[0], group[expected], rtol=1e-5, atol=1e-5
      )


def test_without_a_judge_every_factor_is_one_and_verdicts_do_not_count(tmp_path):
  """Also where an invalid verdict would count as a score of 0; and none need be recorded."""
  config = config_lib.default()
  config.group_size, config.judge.use, config.method.invalid_verdict = 2, False, "zero"
  config.rewards.recorded = str(tmp_path / "groups.jsonl")
  responses = ["<think>a</think>\\boxed{1}", "<think>b</think>\\boxed{2}"]
  groups = [
    {"responses": responses, "verdicts": ["\\boxed{1.0}", "none"]},
    {"responses": responses},
  ]
  (tmp_path / "groups.jsonl").write_text("".join(json.dumps(group) + "\n" for group in groups))
  modes.reward(config, tmp_path)
  rows = [json.loads(line) for line in (tmp_path / "rewards.jsonl").read_text().splitlines()]
  for row in rows:
    assert row["factor"] == [1, 1]
    assert row["reward"] == [0.5, 0.5]
    assert row.keys().isdisjoint({"judge_scores", "judge_valid"})
  metrics = json.loads((tmp_path / "metrics.json").read_text())
  assert metrics["majority_share"] == 0.5
  assert not [name for name in metrics if re.search("verdict|judge|agreement", name)]


@pytest.mark.long
def test_recorded_groups_are_graded_as_benchmarks_are(tmp_path):
  config = config_lib.default()
  config.group_size = 4
  config.rewards.recorded = str(tmp_path / "groups.jsonl")
  found = [r"\cos(0)", "1", "120,115", "2"], ["120,115", "120115", "1.2", r"\frac{240230}{2}"]
  with open(config.rewards.recorded, "w") as file:
    for answers, gold in zip(found, ("1", "120115"), strict=True):
      responses = [f"<think></think>\\boxed{{{answer}}}" for answer in answers]
      record = {"responses": responses, "verdicts": [r"\boxed{0.5}"] * 4, "gold": gold}
      file.write(json.dumps(record) + "\n")
  modes.reward(config, tmp_path)
  metrics = json.loads((tmp_path / "metrics.json").read_text())
  assert metrics["pass@1"] == pytest.approx((2 / 4 + 3 / 4) / 2)


def test_verdicts_are_averaged_over_the_valid_repeats():
  texts = [
    [["\\boxed{0.2}", "\\boxed{0.6}"], ["\\boxed{nan}", "\\boxed{0.5}"], ["?", "\\boxed{7}"]]
  ]
  read = rewards.read_verdicts(texts, rewards.Reading())
  np.testing.assert_allclose(read.scores, [[0.4, 0.5, 0.0]], rtol=1e-6)
  assert read.valid.tolist() == [[True, True, False]]


CUT = r"the answer is \boxed{1}. But the right one is 2, so"
DOUBTFUL = r'[BEGIN SCORES]{"overall_score": 0.25}[END SCORES] \boxed{0.75}'


@pytest.mark.parametrize(
  ("changes", "scores", "valid"),
  [
    ({}, [[0, 0.5, 0.75]], [[False, True, True]]),
    ({"contradictory": "invalid"}, [[0, 0.5, 0]], [[False, True, False]]),
    ({"released_reading": True}, [[1, 0.75, 0.75]], [[True, True, True]]),
    (
      {"released_reading": True, "contradictory": "invalid"},
      [[1, 0.75, 0.75]],
      [[True, True, True]],
    ),
  ],
)
def test_cut_and_contradictory_verdicts(changes, scores, valid):
  texts = [[[CUT, CUT], [r"\boxed{0.5}", CUT], [DOUBTFUL, DOUBTFUL]]]
  truncated = [[[True, True], [False, True], [False, False]]]
  read = rewards.read_verdicts(texts, rewards.Reading(**changes), truncated)
  np.testing.assert_allclose(read.scores, scores, rtol=1e-6)
  assert read.valid.tolist() == valid
  assert read.truncated.tolist() == [[2, 1, 0]]
  assert read.contradictory.tolist() == [[0, 0, 2]]
  counts = {name: count.tolist() for name, count in read.counts().items()}
  assert counts == {"truncated_verdicts": [3], "contradictory_verdicts": [2]}


def test_the_released_reading_of_a_score_that_is_no_number():
  """The released code returns NaN, which is no score that a reward function could use."""
  texts = [[[r"\boxed{nan}"], [r"\boxed{nan}", r"\boxed{0.5}"], [r"\boxed{0.25}"]]]
  read = rewards.read_verdicts(texts, rewards.Reading(released_reading=True))
  np.testing.assert_allclose(read.scores, [[0, 0.5, 0.25]])
  assert read.valid.tolist() == [[False, True, True]]


def write_groups(path, **fields):
  record = {"responses": ["<think></think>\\boxed{1}"] * 2, "verdicts": [CUT, DOUBTFUL]}
  path.write_text(json.dumps(record | fields) + "\n")
  return str(path)


@pytest.mark.parametrize(
  ("fields", "scores", "valid", "truncated"),
  [
    ({}, [1.0, 0.75], [True, True], 0),
    ({"truncated_verdicts": [True, False]}, [0.0, 0.75], [False, True], 1),
    ({"truncated_verdicts": [[True], [True]]}, [0.0, 0.0], [False, False], 2),
  ],
)
def test_recorded_groups_say_which_verdicts_were_cut(fields, scores, valid, truncated, tmp_path):
  config = config_lib.default()
  config.group_size, config.rewards.recorded = 2, write_groups(tmp_path / "groups.jsonl", **fields)
  modes.reward(config, tmp_path)
  row = json.loads((tmp_path / "rewards.jsonl").read_text())
  assert row["judge_scores"] == scores
  assert row["judge_valid"] == valid
  metrics = json.loads((tmp_path / "metrics.json").read_text())
  assert metrics["truncated_verdicts"] == truncated
  assert metrics["contradictory_verdicts"] == 1


@pytest.mark.parametrize(
  "flags", [True, None, [True], [True, 1], [[True], [True, False]], [[True], "no"], {"0": True}]
)
def test_flags_of_another_form_are_refused(flags, tmp_path):
  path = write_groups(tmp_path / "groups.jsonl", truncated_verdicts=flags)
  with pytest.raises(ValueError, match=r"1 is not a group: truncated_verdicts=.* is not true or"):
    recorded.read_groups(path, 2, 1)
