"""Startup checks: a configuration that does not fit its models is refused before weights load."""

import json
import pathlib
import shutil
import types

import numpy as np
import pytest

from configs import tiny
from sejax import assets
from sejax import config as config_lib
from sejax import setup as setup_lib
from sejax.config import modes
from sejax.models import qwen2_5_vl as qwen
from sejax.models import weights
from sejax.monitoring.timing import Clock
from sejax.rollout import checks

JUDGE = "judge.path"


class ReachedWeightsError(Exception):
  """All checks have passed, and the first weights are about to be read."""


@pytest.fixture
def begin(tmp_path, monkeypatch):
  """Starts a run or another mode up to its weights, with edited copies of the bundled model."""

  def stop(*_):
    raise ReachedWeightsError

  monkeypatch.setattr(weights, "_load_array", stop)
  monkeypatch.chdir(tmp_path)

  def call(files=None, judge=None, mode=None, **changes):
    config = tiny.get_config()
    for name, edits in (("model", files), ("judge", judge)):
      if edits is not None:
        config[name].path = str(spoil(tmp_path / name, edits))
    config.update_from_flattened_dict(changes)
    if mode:
      return mode(config)
    return setup_lib.set_up(config, tmp_path, Clock())

  return call


def spoil(directory, edits):
  """Copies the bundled model and sets fields of its JSON files, named as `file/key/key`."""
  shutil.copytree(assets.TINY_VLM, directory)
  for field, value in edits.items():
    file, *path = field.split("/")
    raw = json.loads((directory / f"{file}.json").read_text())
    place = raw
    for name in path[:-1]:
      place = place[int(name) if isinstance(place, list) else name]
    place[path[-1]] = value
    (directory / f"{file}.json").write_text(json.dumps(raw))
  return directory


def refused(begin, message, *arguments, **changes):
  with pytest.raises(ValueError, match=message) as raised:
    begin(*arguments, **changes)
  assert len(str(raised.value)) <= 300
  assert "\n" not in str(raised.value)


def test_the_tiny_run_itself_is_not_refused(begin):
  for judge in (None, {}):
    with pytest.raises(ReachedWeightsError):
      begin({}, judge)
    shutil.rmtree("model")


WINDOW = "vision_config/window_size"  # 28 pixels: a window of 4x4 patches of 7x7 pixels


@pytest.mark.parametrize(
  ("files", "changes", "message"),
  [
    # A bucket that is not a multiple of an attention window, or of the patches merged into a token.
    (
      {},
      {"data.patch_buckets": (16, 72, 96)},
      r"patch_buckets=\(16, 72, 96\) has 72; .* multiples of 16 patches: 80 would do",
    ),
    ({}, {"data.patch_buckets": (16, 66)}, r"has 66; .* of 16 patches: 80 would do"),
    ({}, {"data.patch_buckets": (2, 64)}, r"has 2; .* of 16 patches: 16 would do"),
    ({f"config/{WINDOW}": 112}, {}, r"patch_buckets=\(64,\) has 64; .* 256 patches: 256 would do"),
    # Prompt, trajectory and verdict must fit into the context, in their padded lengths.
    (
      {"config/text_config/max_position_embeddings": 100},
      {"data.prompt_limit": 60},
      r"prompt_limit=60 tokens take arrays of 64 .*actor.max_tokens=40 .* context of 100; lower",
    ),
    (
      {},
      {"actor.max_tokens": 990, "train.response_buckets": ()},
      r"arrays of 64 .* config.actor.max_tokens=990 that is more than the model's context of 1024",
    ),
    (
      {},
      {"judge.max_tokens": 920},
      r"the Judge's prompt of 64 tokens, .*max_tokens=40 and config.judge.max_tokens=920 .* 1024",
    ),
    (
      {},
      {"data.prompt_buckets": (64, 930)},
      r"the Judge's prompt of 930 tokens, .* are more than the model's context of 1024",
    ),
    # Pixel limits that no image meets.
    (
      {},
      {"data.min_pixels": 3137, "data.max_pixels": 9999},
      r"min_pixels=3137 .* the 64 patches, or 3136 pixels, at",
    ),
    ({}, {"data.min_pixels": 50, "data.max_pixels": 195}, r"max_pixels=195 .* 14x14 .* least 196"),
    (
      {},
      {"data.min_pixels": 3000, "data.max_pixels": 2000},
      r"min_pixels is 3000 and max_pixels 2000",
    ),
    # Prompts that leave no room for a question.
    (
      {},
      {"data.prompt_limit": 3},
      r"the Actor's prompt has \d+ tokens without .* the 3 of .*_limit=3",
    ),
    (
      {},
      {"actor.instruction": "Say it. " * 40},
      r"Actor's prompt has .* the 64 of .*prompt_limit=64",
    ),
    (
      {},
      {"judge.system": "Judge it. " * 40},
      r"Judge's prompt has .* the 64 of .*_buckets=\(56, 64\)",
    ),
    # Files of different models.
    (
      {"preprocessor_config/patch_size": 14},
      {},
      r"has patch_size=14 and .*vision_config.patch_size=7",
    ),
    ({"preprocessor_config/merge_size": 1}, {}, r"has merge_size=1 and .*spatial_merge_size=2"),
    ({"preprocessor_config/temporal_patch_size": 1}, {}, r"has temporal_patch_size=1 and"),
    (
      {"config/image_token_id": 639},
      {},
      r"<\|image_pad\|> as 638, and config.json image_token_id=639",
    ),
    (
      {"config/text_config/vocab_size": 639},
      {},
      r"tokenizer.json has '<\|video_pad\|>' as 639, and config.json vocab_size=639; ids must",
    ),
    (
      {"generation_config/eos_token_id": [634, 640]},
      {},
      r"ends with a token as 640, .*vocab_size=640",
    ),
    # Here with a single device; meshes of several are tested in tests/parallel.
    ({}, {"mesh.tensor": 2}, r"config.mesh has data=-1, fsdp=1, tensor=2; the sizes must multiply"),
  ],
)
def test_what_cannot_work_is_refused_at_start(begin, files, changes, message):
  refused(begin, message, files, **changes)


@pytest.mark.parametrize(
  "changes",
  [
    {"data.max_pixels": 10**7},  # More than any bucket holds, but images may be smaller.
    {"data.min_pixels": 3136},  # 64 patches, the bucket
    {"data.patch_buckets": (16, 32, 48, 64, 4096)},
    {"actor.max_tokens": 960, "judge.use": False, "train.response_buckets": ()},
    {"judge.max_tokens": 920, "judge.use": False},
  ],
)
def test_what_can_work_is_not(begin, changes):
  with pytest.raises(ReachedWeightsError):
    begin({}, **changes)


VOCABULARY = json.loads((assets.TINY_VLM / "tokenizer.json").read_text())["model"]["vocab"]
FIRST, SECOND = list(VOCABULARY)[300:302]


@pytest.mark.parametrize(
  ("judge", "message"),
  [
    # Other patches.
    (
      {"config/vision_config/patch_size": 14, "preprocessor_config/patch_size": 14},
      r"config.judge.path=.*judge' has vision_config.patch_size=14, and the Actor 7; both read",
    ),
    ({f"config/{WINDOW}": 56}, r"vision_config.window_size=56, and the Actor 28"),
    (
      {"preprocessor_config/image_mean": [0.5, 0.5, 0.5]},
      r"scales pixels otherwise than the Actor",
    ),
    # Other tokens.
    (
      {f"tokenizer/model/vocab/{FIRST}": VOCABULARY[SECOND]}
      | {f"tokenizer/model/vocab/{SECOND}": VOCABULARY[FIRST]},
      rf"another tokenizer than the Actor: .* is {VOCABULARY[SECOND]}, not {VOCABULARY[FIRST]};",
    ),
    (
      {"tokenizer/added_tokens/1/content": "<|begin|>"},
      r"another tokenizer than the Actor: '.*' is",
    ),
    ({"generation_config/eos_token_id": [5]}, r"5 ends its responses, not \[632, 634\]"),
    ({"tokenizer/pre_tokenizer": None}, r"the same chat gives other tokens"),
    (
      {"tokenizer_config/chat_template": "{{ 1 / 0 }}"},
      r"its chat template fails: division by zero",
    ),
    ({"config/image_token_id": 639}, r"judge'.*: tokenizer.json has <\|image_pad\|> as 638"),
  ],
)
def test_a_judge_of_another_kind_is_refused_at_start(begin, judge, message, tmp_path):
  if "tokenizer_config/chat_template" in judge:
    pathlib.Path(spoil(tmp_path / "judge", judge), "chat_template.jinja").unlink()
    refused(begin, message, **{JUDGE: "judge"})
  else:
    refused(begin, message, None, judge)


def test_a_judge_with_another_chat_is_refused(begin, tmp_path):
  spoil(tmp_path / "judge", {})
  template = tmp_path / "judge" / "chat_template.jinja"
  template.write_text(template.read_text().replace("assistant", "user"))
  refused(
    begin, r"another tokenizer than the Actor: the same chat gives other tokens", **{JUDGE: "judge"}
  )


QWEN2 = {
  "config/model_type": "qwen2_vl",
  "config/vision_config/hidden_act": "quick_gelu",
  "config/vision_config/embed_dim": 128,
  "config/vision_config/hidden_size": 192,
}


@pytest.mark.parametrize(
  ("actor", "judge", "message"),
  [
    ({}, QWEN2, r"judge' has vision_config.window_size=None, and the Actor 28; both read"),
    (QWEN2, {}, r"judge' has vision_config.window_size=28, and the Actor None; both read"),
  ],
)
def test_a_judge_of_another_family_is_refused(begin, actor, judge, message):
  refused(begin, message, actor, judge)


def test_a_judge_that_is_larger_is_not_refused(begin):
  """An embedding with more rows than the tokenizer has tokens is allowed, as in released models."""
  with pytest.raises(ReachedWeightsError):
    begin(None, {"config/text_config/vocab_size": 704, "config/text_config/num_hidden_layers": 8})


@pytest.mark.parametrize(
  ("mode", "changes", "message"),
  [
    (modes.responder, {"data.patch_buckets": (16, 72)}, r"has 72; .* of 16 patches: 80 would do"),
    (modes.responder, {"actor.max_tokens": 990}, r"the model's context of 1024"),
    (modes.responder, {"data.min_pixels": 3137, "data.max_pixels": 9999}, r"min_pixels=3137"),
  ],
)
def test_other_modes_refuse_the_same(begin, mode, changes, message):
  refused(begin, message, {}, mode=mode, **changes)


def ask(config):
  return modes.sample(config, [], "How many?", judge=False)


def extract(config):
  config.eval.extractor = config.model.path
  return modes.extractor(config)


@pytest.mark.parametrize(
  ("mode", "field"),
  [
    (None, "model.path"),
    (modes.responder, "model.path"),
    (ask, "model.path"),
    (extract, "eval.extractor"),
  ],
)
def test_all_modes_refuse_files_of_different_models(begin, mode, field):
  message = rf"^config\.{field}='.*model': .*<\|image_pad\|> as 638"
  refused(begin, message, {"config/image_token_id": 639}, mode=mode)


def test_processes_may_not_share_rows():
  def mesh(*processes):
    devices = [types.SimpleNamespace(process_index=process) for process in processes]
    shape = {"data": 2, "fsdp": 1, "tensor": 2}
    return types.SimpleNamespace(devices=np.array(devices).reshape(2, 1, 2), shape=shape)

  checks.check_processes(mesh(0, 0, 0, 0))
  checks.check_processes(mesh(0, 0, 1, 1))
  with pytest.raises(ValueError, match=r"config.mesh.tensor=2 reaches over devices of several"):
    checks.check_processes(mesh(0, 1, 0, 1))


def test_released_models_take_the_default_buckets():
  config = config_lib.default()
  for size in ("3b", "7b", "32b", "72b"):
    model = qwen.Qwen25VL.released(size)
    checks.check_buckets(config.data, config.actor.max_tokens, model)
