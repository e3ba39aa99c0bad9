"""Old names of fields and modules: accepted in saved configurations, explained elsewhere."""

import json

import pytest

from configs import tiny
from sejax import config as config_lib
from sejax import main
from sejax.config import renames, validation

TINY = "--config=configs/tiny.py"


def test_every_new_name_is_a_fields_and_no_old_one_is():
  known = config_lib.flatten(config_lib.default())
  assert set(renames.FIELDS.values()) <= known.keys()
  assert known.keys().isdisjoint(renames.FIELDS)


@pytest.mark.parametrize("old", sorted(renames.FIELDS))
def test_an_old_flag_is_told_its_new_name(old, tmp_path, capsys):
  assert main.main(["sejax", TINY, f"--workdir={tmp_path}", f"--config.{old}=1"]) == 2
  said = capsys.readouterr().err
  unit = ", which counts trajectories: multiply by group_size" if "sampling" in old else ""
  unit = "" if old == "sampling.run" else unit
  assert said == f"sejax: --config.{old} is now config.{renames.FIELDS[old]}{unit}\n"


@pytest.mark.parametrize(
  ("given", "meant"),
  [
    ("jugde.max_tokens", "judge.max_tokens"),
    ("aktor.max_tokens", "actor.max_tokens"),
    ("jugde.path", "judge.path"),
    ("judge.temprature", "judge.temperature"),
    ("trian.steps", "train.steps"),
  ],
)
def test_the_field_that_an_unknown_one_is_closest_to(given, meant):
  assert renames.explain(given).endswith(f"; did you mean config.{meant}?")


def test_a_configuration_file_may_set_no_other_fields():
  """A configuration file is a program, and a field that it adds would have no effect."""
  for name, said in (
    ("sampling.groups", "config.sampling.groups is now config.actor.max_concurrent_rows"),
    ("train.step", "config.train.step is not a field of the configuration; did you mean"),
    ("thing", "config.thing is not a field of the configuration"),
  ):
    config = tiny.get_config()
    section, _, field = name.rpartition(".")
    (config[section] if section else config)[field] = 4
    with pytest.raises(ValueError, match=said):
      validation.validate(config)


def test_a_file_that_imports_an_old_module_is_told_the_new_one(tmp_path, capsys):
  file = tmp_path / "mine.py"
  file.write_text("from sejax import presets\n\n\ndef get_config():\n  return presets\n")
  assert main.main(["sejax", f"--config={file}", f"--workdir={tmp_path}"]) == 2
  said = capsys.readouterr().err
  assert said.startswith("sejax: ")
  assert said.count("\n") == 1
  assert "; sejax.presets is now sejax.config.presets" in said


def test_a_run_saved_under_old_names_resumes(tmp_path):
  config = tiny.get_config()
  config.optimizer.warmup_steps, config.rewards.function = 3, "sejax.rewards.judge_only"
  config_lib.save(config, tmp_path)
  saved = json.loads((tmp_path / "config.json").read_text())
  flat = config_lib.flatten(saved)
  old = {new: name for name, new in renames.FIELDS.items()}
  before: dict = {}
  for name, value in flat.items():
    *sections, field = old.get(name, name).split(".")
    section = before
    for part in sections:
      section = section.setdefault(part, {})
    section[field] = value
  assert before["optimizer"]["warmup"] == 3
  assert before["train"]["reward_function"] == "sejax.rewards.judge_only"
  (tmp_path / "config.json").write_text(json.dumps(before))
  (tmp_path / "metrics.jsonl").touch()
  config_lib.require_same(config, tmp_path)
  config.optimizer.warmup_steps = 4
  with pytest.raises(ValueError, match=r"a run with config\.optimizer\.warmup_steps=3, not 4"):
    config_lib.require_same(config, tmp_path)


def test_what_counted_prompts_counts_rows():
  for name in ("sampling.groups", "sampling.max_concurrent_prompts"):
    assert renames.upgrade({name: 4, "group_size": 6})["actor.max_concurrent_rows"] == 24
    assert renames.upgrade({name: None, "group_size": 6})["actor.max_concurrent_rows"] is None


def test_a_run_from_before_there_were_objectives_resumes(tmp_path):
  config = tiny.get_config()
  config_lib.save(config, tmp_path)
  saved = json.loads((tmp_path / "config.json").read_text())
  known = ("dual_clip", "kl_coef", "entropy_coef")
  loss = {name: saved["loss"][name] for name in known}
  saved["loss"] = loss | {"clip_low": 0.2, "clip_high": 0.2, "aggregation": "token-mean"}
  (tmp_path / "config.json").write_text(json.dumps(saved))
  (tmp_path / "metrics.jsonl").touch()
  config_lib.require_same(config, tmp_path)
  config.train.micro_batch_size = 8
  config_lib.require_same(config, tmp_path)
  config.loss.objective = "gspo"
  with pytest.raises(ValueError, match=r"a run with config\.loss\.aggregation='token-mean', not"):
    config_lib.require_same(config, tmp_path)


def test_micro_batches_keep_their_size_where_tokens_are_chosen_in_them(tmp_path):
  config = tiny.get_config()
  config.loss.objective = "kl_cov"
  config_lib.save(config, tmp_path)
  (tmp_path / "metrics.jsonl").touch()
  config.train.micro_batch_size = 8
  with pytest.raises(ValueError, match=r"a run with config\.train\.micro_batch_size=16, not 8"):
    config_lib.require_same(config, tmp_path)
  config.train.micro_batch_size = 16
  config.mesh.fsdp = 4  # It decides, too, which groups share a micro-batch.
  with pytest.raises(ValueError, match=r"a run with config\.mesh\.fsdp=\S+, not 4"):
    config_lib.require_same(config, tmp_path)
