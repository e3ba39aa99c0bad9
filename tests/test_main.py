"""The command line: the worked example end to end, and one-line messages for wrong input."""

import json
import math
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from absl import flags as absl_flags

from sejax import config as config_lib
from sejax import flags, main
from sejax.config import arguments as arguments_lib
from sejax.config import validation
from sejax.rewards import recorded

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLE = f"--config={ROOT / 'configs' / 'worked_example.py'}"
TINY = f"--config={ROOT / 'configs' / 'tiny.py'}"
REWARDS = "--mode=rewards"


def run(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "sejax.main", *arguments], capture_output=True, text=True, check=False
  )


@pytest.mark.long
def test_the_worked_example(tmp_path):
  done = run(EXAMPLE, REWARDS, f"--workdir={tmp_path / 'run'}", "--config.method.clip_adv=4")
  assert done.returncode == 0, done.stderr
  rows = [json.loads(line) for line in (tmp_path / "run" / "rewards.jsonl").open()]
  assert [row["answer_ids"] for row in rows] == [[0, 0, 0, 0], [0, 0, 1, 2], [0, 0, 1, -1]]
  assert rows[0]["self_consistency"] == [1, 1, 1, 1]
  assert rows[1]["self_consistency"] == [0.5, 0.5, 0.25, 0.25]
  assert rows[2]["format_ok"] == [True, False, True, False]
  assert rows[2]["judge_scores"] == pytest.approx([0.96, 0.0, 0.05, 0.0])
  assert rows[2]["judge_valid"] == [True, True, True, False]
  # All four agree; a low score lowers the third one's reward. R = 1 and 0.8238, A = R - mean R.
  assert rows[0]["reward"] == pytest.approx([1, 1, 0.8238406, 1])
  assert rows[0]["advantage"] == pytest.approx(
    [0.0440398, 0.0440398, -0.1321195, 0.0440398], abs=1e-6
  )
  metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
  assert metrics["pass@1"] == pytest.approx(8 / 12)
  resolved = json.loads((tmp_path / "run" / "config.json").read_text())
  assert resolved["method"]["clip_adv"] == 4
  assert resolved["group_size"] == 4
  assert resolved["loss"]["dual_clip"] == 3.0


def test_a_call_forgets_the_flags_of_the_one_before(capsys):
  command = ["sejax", "--mode=compile", EXAMPLE]
  assert main.main([*command, "--question=What?"]) == 2
  assert "--question is for --mode=sample" in capsys.readouterr().err
  assert main.main(command) == 2
  assert "--topology is missing" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ((EXAMPLE,), "--workdir is missing"),
    (("--workdir=unused",), "--config is missing"),
    ((EXAMPLE, "--workdir=unused", "--image=a.png"), "--image is for --mode=sample; the mode is"),
    ((EXAMPLE, "--workdir=unused", "--config.fo=1"), "--config.fo is not a field"),
    (
      (EXAMPLE, "--workdir=unused", "--config.method.thresh=1"),
      "--config.method.thresh is not a field of the configuration; did you mean"
      " config.method.threshold?",
    ),
    ((EXAMPLE, "--workdir=unused", "--config.seed=abc"), "--config.seed=abc"),
    ((EXAMPLE, "--workdir=unused", "--config.seed=1.5"), "--config.seed=1.5"),
    ((EXAMPLE, "--workdir=unused", "stray"), "unexpected argument 'stray'"),
    (
      (EXAMPLE, "--workdir=unused", "--config.group_size=1"),
      "config.group_size=1 must be at least 2",
    ),
    (
      (EXAMPLE, REWARDS, "--workdir=unused", "--config.rewards.recorded=none.jsonl"),
      "config.rewards.recorded='none.jsonl' is not a file",
    ),
  ],
  ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_work_is_one_line(arguments, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  done = run(*arguments)
  assert done.returncode == 2
  assert done.stderr.startswith("sejax: ")
  assert message in done.stderr
  assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("batch_size", 100, "config.batch_size=100 must be a multiple of mini_batch_size=128"),
    ("mini_batch_size", 0, "config.mini_batch_size=0 must be at least 1"),
    ("judge.num_judge_repeats", 0, "config.judge.num_judge_repeats=0 must be at least 1"),
    ("answers.equivalence", "fuzzy", "config.answers.equivalence='fuzzy' must be one of"),
    ("loss.clip_low", 1.0, r"config.loss.clip_low=1.0 must be in \[0, 1\)"),
    ("loss.clip_high", 1.5, r"config.loss.clip_high=1.5 must be in \[0, 1\)"),
    ("loss.aggregation", "mean", "config.loss.aggregation='mean' must be one of"),
    ("model.dtype", "float16", "config.model.dtype='float16' must be one of auto, float32"),
    ("data.min_pixels", 0, "config.data.min_pixels=0 must be at least 1"),
    ("data.max_pixels", 100, "config.data.max_pixels=100 must be at least 262144"),
    (
      "actor.temperature",
      -1.0,
      "config.actor.temperature=-1.0 must be a finite number, 0 or above",
    ),
    ("actor.top_k", 0, "config.actor.top_k=0 must be None .off. or at least 1"),
    ("actor.min_p", 2.0, "config.actor.min_p=2.0 must be from 0"),
    ("actor.max_tokens", 0, "config.actor.max_tokens=0 must be at least 1"),
    ("judge.top_p", 0.0, "config.judge.top_p=0.0 must be above 0"),
    (
      "judge.weights.visual_grounding",
      0.5,
      "config.judge.weights={.*'visual_grounding': 0.5} must be at least 0 and sum to 1",
    ),
    (
      "judge.contradictory",
      "ignore",
      "config.judge.contradictory='ignore' must be one of count, invalid",
    ),
    ("judge.rubric", "long", "config.judge.rubric='long' must be one of full, short"),
    (
      "judge.max_concurrent_rows",
      0,
      "config.judge.max_concurrent_rows=0 must be at least 1",
    ),
    ("sampling.decode_steps", 0, "config.sampling.decode_steps=0 must be at least 1"),
    ("optimizer.first_moment_dtype", "float16", "must be one of float32, bfloat16"),
    ("optimizer.learning_rate", -1.0, r"config.optimizer.learning_rate=-1.0 must be a number in"),
    ("optimizer.warmup_steps", -1, "config.optimizer.warmup_steps=-1 must be at least 0"),
    ("lora.rank", -1, "config.lora.rank=-1 must be at least"),
    ("model.logits_chunk", 0, "config.model.logits_chunk=0 must be at least 1"),
    ("method.threshold", 0.4, "config.method.threshold=0.4"),
    ("method.self_consistency", "vote", "config.method.self_consistency='vote' must be one of"),
    ("method.tie", "last", "config.method.tie='last' must be one of none, first"),
    ("method.advantage", "mean", "must be one of log_q, centered, standardized, log_mean_exp"),
    ("method.g_max", 0.5, "config.method.g_max=0.5"),
    (
      "method.overlong_buffer",
      -1,
      "config.method.overlong_buffer=-1 must be a number in",
    ),
    ("method.overlong_buffer", 4096, "config.method.overlong_buffer=4096 must be a number in"),
    ("method.overlong_factor", -0.5, "config.method.overlong_factor=-0.5 must be a number in"),
    (
      "method.reward_weights",
      (1.0, -1.0),
      r"config.method.reward_weights=\(1.0, -1.0\) must be of 2 numbers in \[0, 1e\+06\]",
    ),
    (
      "method.reward_weights",
      ("a",),
      r"config.method.reward_weights=\('a',\) must be of 1 numbers",
    ),
    (
      "method.reward_weights",
      (0.5, 1.0),
      r"config.method.reward_weights=\(0.5, 1.0\) must be \(\) without config.rewards.function",
    ),
    ("loss.objective", "ppo", "config.loss.objective='ppo' must be one of grpo, gspo, cispo"),
    ("loss.kl_estimator", "abs", "config.loss.kl_estimator='abs' must be one of k1, k2, k3"),
    ("loss.rollout_correction", "tis", "config.loss.rollout_correction='tis' must be one of none"),
    ("loss.correction_min", 5.0, r"config.loss.correction_min=5.0 must be a number in \[0, 1\]"),
  ],
)
def test_impossible_values_are_named(field, value, message):
  config = config_lib.default()
  validation.validate(config)
  config.update_from_flattened_dict({field: value})
  with pytest.raises(config_lib.ConfigError, match=message):
    validation.validate(config)


GROUP = {"responses": ["a"] * 4, "verdicts": ["b"] * 4}


@pytest.mark.parametrize(
  ("lines", "message"),
  [
    (["not json"], "groups.jsonl:1 is not a group"),
    (["[]"], "it needs an object with responses and verdicts"),
    ([GROUP | {"responses": "abcd"}], "responses is not a list of config.group_size=4 entries"),
    ([GROUP | {"verdicts": ["b"]}], "verdicts is not a list of config.group_size=4 entries"),
    ([GROUP | {"responses": [1, 2, 3, 4]}], "[1, 2, 3, 4] is not text"),
    ([GROUP | {"verdicts": [None] * 4}], "null is not text"),
    ([GROUP | {"verdicts": [["b", "b"]] * 4}], "a trajectory has 2 verdicts"),
    ([GROUP | {"gold": 60}], "gold=60 is not a string"),
    ([GROUP, GROUP | {"gold": "60"}], "a gold answer for 1 of 2 groups"),
    ([""], "holds no group"),
  ],
  ids=range(10),
)
def test_bad_groups_are_named(lines, message, tmp_path):
  path = tmp_path / "groups.jsonl"
  path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines) + "\n")
  with pytest.raises(ValueError, match=re.escape(message)):
    recorded.read_groups(str(path), group_size=4, num_judge_repeats=1)


def test_a_line_may_hold_any_separator(tmp_path):
  path = tmp_path / "groups.jsonl"
  record = GROUP | {"responses": ["a\u2028b\x85c"] * 4}
  path.write_text(json.dumps(record, ensure_ascii=False) + "\n", encoding="utf-8")
  assert recorded.read_groups(str(path), 4, 1)[0]["responses"] == record["responses"]


@pytest.mark.long
@pytest.mark.parametrize(
  ("source", "message"),
  [
    ("def get_config(:\n", "SyntaxError"),
    ("def get_config():\n  return nothing\n", "NameError"),
    ("import ml_collections\nget_config = ml_collections.ConfigDict\n", "has no field actor"),
    ("def get_config():\n  return {}\n", "is not an ml_collections.ConfigDict"),
    ("def get_config():\n  return {}['x']\n", "broken.py: KeyError: 'x' ("),
    ("def get_config():\n  return int\n\nx = [].x\n", "broken.py:4)"),
  ],
)
def test_a_broken_configuration_file_is_one_line(source, message, tmp_path):
  path = tmp_path / "broken.py"
  path.write_text(source)
  done = run(f"--config={path}", f"--workdir={tmp_path / 'run'}")
  assert done.returncode == 2
  assert message in done.stderr
  assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
  ("flag", "message"),
  [
    ("--num_processes=two", "--num_processes=two must be a whole number"),
    ("--judge=maybe", "--judge=maybe must be true or false"),
    ("--nojudge=1", "--nojudge=1 does not take an argument"),
    ("--config.loss.clip_low=little", "--config.loss.clip_low=little must be a number"),
    ("--config.judge.weights=[1]", "--config.judge.weights=[1] must be set field by field, as in"),
    ("--config.judge.weights=(", "--config.judge.weights=( must be set field by field, as in"),
    (
      "--noconfig.judge.uze",
      "--config.judge.uze is not a field of the configuration; did you mean",
    ),
  ],
)
def test_values_of_another_kind_are_named(flag, message, capsys):
  assert main.main(["sejax", EXAMPLE, "--workdir=unused", flag]) == 2
  assert capsys.readouterr().err.startswith(f"sejax: {message}")


def test_a_section_of_any_names_may_be_given_as_a_whole():
  families = "--config.data.figures.families={'dots': 2.0}"
  config = arguments_lib.parse(["sejax", EXAMPLE, "--workdir=unused", families])
  assert config.data.figures.families.to_dict() == {"dots": 2.0}
  validation.validate(config)


@pytest.mark.parametrize(
  ("recipe", "given", "expected"),
  [
    ("frequency", "={'tokens': 20}", {"tokens": 20}),  # of a function of one's own
    ("empo", ".low=0.1", {"low": 0.1, "high": math.inf}),
    ("empo", "={'low': 0.1}", {"low": 0.1}),
  ],
)
def test_options_of_a_reward_function_can_be_given(recipe, given, expected):
  arguments = [f"{TINY}:{recipe}", "--workdir=unused", f"--config.rewards.options{given}"]
  assert arguments_lib.parse(["sejax", *arguments]).rewards.options.to_dict() == expected


def test_an_option_that_the_recipe_has_not_is_named():
  arguments = [f"{TINY}:empo", "--workdir=unused", "--config.rewards.options.lo=0.1"]
  with pytest.raises(ValueError, match=r"--config\.rewards\.options\.lo=0\.1 is no option in"):
    arguments_lib.parse(["sejax", *arguments])


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_modes_flags_and_statuses_without_importing_jax(flag):
  code = f"import sys; from sejax import main; print(main.main(['sejax', '{flag}']))"
  code += "; print({'jax', 'sejax.config'} & {*sys.modules})"
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stderr == ""
  assert done.stdout.endswith("\n0\nset()\n")
  assert run(flag).stdout == done.stdout.removesuffix("0\nset()\n")
  words = [
    *flags.MODES,
    *(f"--{holder.name} " for holder in vars(flags).values() if is_flag(holder)),
  ]
  assert len(words) > 20
  assert [word for word in words if word not in done.stdout] == []
  assert max(map(len, done.stdout.splitlines())) <= 100


def is_flag(value):
  return isinstance(value, absl_flags.FlagHolder)


@pytest.mark.parametrize("mode", flags.MODES)
def test_the_examples_of_the_help_are_taken(mode, monkeypatch):
  monkeypatch.chdir(ROOT)
  config = arguments_lib.parse(["sejax", *shlex.split(flags.MODES[mode].example)])
  assert flags.MODE.value == mode
  if config is not None:
    validation.validate(config, reads_data=False)


@pytest.mark.long
def test_the_command_finds_what_is_in_the_current_directory(tmp_path):
  """As `python -m` does: reward functions of one's own."""
  (tmp_path / "mine.py").write_text("print('found mine')")
  code = "import sys; sys.path[:1] = []; from sejax import main; sys.argv = ['sejax', '--help']"
  code += "\ntry:\n  main.command()\nfinally:\n  import mine"
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=tmp_path,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.endswith("found mine\n")
