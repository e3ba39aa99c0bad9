"""Configurations of Qwen2-VL and Qwen3-VL: published forms, sizes, and what is refused."""

import copy
import dataclasses

import jax
import pytest
import torch

from sejax import models
from tests.models import torch_reference

# `config.json` of Qwen/Qwen2-VL-7B-Instruct, in the flat form.
QWEN2_7B = {
  "architectures": ["Qwen2VLForConditionalGeneration"],
  "attention_dropout": 0.0,
  "bos_token_id": 151643,
  "eos_token_id": 151645,
  "vision_start_token_id": 151652,
  "vision_end_token_id": 151653,
  "vision_token_id": 151654,
  "image_token_id": 151655,
  "video_token_id": 151656,
  "hidden_act": "silu",
  "hidden_size": 3584,
  "initializer_range": 0.02,
  "intermediate_size": 18944,
  "max_position_embeddings": 32768,
  "max_window_layers": 28,
  "model_type": "qwen2_vl",
  "num_attention_heads": 28,
  "num_hidden_layers": 28,
  "num_key_value_heads": 4,
  "rms_norm_eps": 1e-06,
  "rope_theta": 1000000.0,
  "sliding_window": 32768,
  "tie_word_embeddings": False,
  "torch_dtype": "bfloat16",
  "use_cache": True,
  "use_sliding_window": False,
  "vision_config": {
    "depth": 32,
    "embed_dim": 1280,
    "mlp_ratio": 4,
    "num_heads": 16,
    "in_chans": 3,
    "hidden_size": 3584,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "temporal_patch_size": 2,
  },
  "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
  "vocab_size": 152064,
}

# `config.json` of Qwen/Qwen3-VL-4B-Instruct.
QWEN3_4B = {
  "architectures": ["Qwen3VLForConditionalGeneration"],
  "image_token_id": 151655,
  "model_type": "qwen3_vl",
  "text_config": {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "dtype": "bfloat16",
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2560,
    "initializer_range": 0.02,
    "intermediate_size": 9728,
    "max_position_embeddings": 262144,
    "model_type": "qwen3_vl_text",
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
      "mrope_interleaved": True,
      "mrope_section": [24, 20, 20],
      "rope_type": "default",
    },
    "rope_theta": 5000000,
    "tie_word_embeddings": True,
    "use_cache": True,
    "vocab_size": 151936,
  },
  "tie_word_embeddings": True,
  "video_token_id": 151656,
  "vision_config": {
    "deepstack_visual_indexes": [5, 11, 17],
    "depth": 24,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_size": 1024,
    "in_channels": 3,
    "initializer_range": 0.02,
    "intermediate_size": 4096,
    "model_type": "qwen3_vl",
    "num_heads": 16,
    "num_position_embeddings": 2304,
    "out_hidden_size": 2560,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
  },
  "vision_end_token_id": 151653,
  "vision_start_token_id": 151652,
}

# Of transformers' models. The hub says 2.21B, 8.29B, 73.4B, 2.13B, 4.44B, 8.77B and 33.4B.
PARAMETERS = {
  ("qwen2_vl", "2b"): 2_208_985_600,
  ("qwen2_vl", "7b"): 8_291_375_616,
  ("qwen2_vl", "72b"): 73_405_560_320,
  ("qwen3_vl", "2b"): 2_127_532_032,
  ("qwen3_vl", "4b"): 4_437_815_808,
  ("qwen3_vl", "8b"): 8_767_123_696,
  ("qwen3_vl", "32b"): 33_357_390_064,
}


@pytest.mark.long
@pytest.mark.parametrize(("model_type", "size"), PARAMETERS)
def test_released_sizes_have_as_many_parameters_as_in_transformers(model_type, size):
  model = models.FAMILIES[model_type].released(size)
  config_class, model_class = torch_reference.CLASSES[model_type]
  with torch.device("meta"):
    reference = model_class(config_class(**model.to_hf()))
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  parts = {"vision": reference.model.visual, "decoder": reference.model.language_model}
  for part, module in parts.items():
    assert count(shapes[part]) == sum(p.numel() for p in module.parameters())
  assert count(shapes) == sum(p.numel() for p in reference.parameters())
  assert count(shapes) == PARAMETERS[model_type, size]
  assert models.released(model.released_names[size]) == model


def count(shapes: models.Params) -> int:
  return sum(x.size for x in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
  ("raw", "size"), [(QWEN2_7B, "7b"), (QWEN3_4B, "4b")], ids=["qwen2_vl", "qwen3_vl"]
)
def test_published_files_are_the_released_sizes(raw, size):
  family = models.FAMILIES[raw["model_type"]]
  assert family.from_hf(raw) == family.released(size)


RAW = {
  "qwen2_vl-published": QWEN2_7B,
  "qwen3_vl-published": QWEN3_4B,
  "qwen2_vl-tiny": torch_reference.tiny_family("qwen2_vl").to_hf(),
  "qwen3_vl-tiny": torch_reference.tiny_family("qwen3_vl").to_hf(),
}


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
def test_reads_what_transformers_writes_and_back(raw):
  family = models.FAMILIES[raw["model_type"]]
  config_class, _ = torch_reference.CLASSES[raw["model_type"]]
  written = config_class(**copy.deepcopy(raw)).to_dict()
  model = family.from_hf(written)
  assert model == family.from_hf(raw)
  again = config_class(**model.to_hf()).to_dict()
  for part in ("text_config", "vision_config"):
    ours = {f.name for f in dataclasses.fields(getattr(model, part.removesuffix("_config")))}
    for field in ours & set(written[part]):
      assert again[part][field] == written[part][field], field
  rope = written["text_config"]["rope_parameters"]
  rope.pop("type", None)  # The older name of `rope_type`, which transformers keeps beside it.
  assert again["text_config"]["rope_parameters"].items() >= rope.items()


@pytest.mark.parametrize(
  ("model_type", "part", "changes", "message"),
  [
    ("qwen2_vl", "vision", {"num_heads": 3}, r"vision_config.embed_dim is 32.*num_heads = 3"),
    ("qwen2_vl", "vision", {"embed_dim": 12}, r"head size 6 .*multiple of 4"),
    ("qwen2_vl", "vision", {"mlp_ratio": 0}, r"vision_config.mlp_ratio is 0"),
    ("qwen2_vl", "vision", {"hidden_size": 48}, r"hidden_size is 48.*hidden_size of 64"),
    ("qwen3_vl", "vision", {"num_heads": 3}, r"vision_config.hidden_size is 32.*num_heads = 3"),
    ("qwen3_vl", "vision", {"hidden_size": 12}, r"head size 6 .*multiple of 4"),
    ("qwen3_vl", "vision", {"out_hidden_size": 48}, r"out_hidden_size is 48.*hidden_size of 64"),
    (
      "qwen3_vl",
      "vision",
      {"num_position_embeddings": 35},
      r"num_position_embeddings is 35; it must be a square",
    ),
    (
      "qwen3_vl",
      "vision",
      {"deepstack_visual_indexes": (1, 5)},
      r"deepstack_visual_indexes is \[1, 5\].*ascending order, from 0 to 4",
    ),
    (
      "qwen3_vl",
      "vision",
      {"deepstack_visual_indexes": (3, 1)},
      r"deepstack_visual_indexes is \[3, 1\].*ascending order",
    ),
    ("qwen3_vl", "text", {"num_hidden_layers": 1}, r"has 2 levels; the decoder has 1 layers"),
    ("qwen3_vl", "text", {"num_key_value_heads": 3}, r"attention_heads is 4.*value_heads = 3"),
    ("qwen3_vl", "text", {"head_dim": 16}, r"mrope_section is \[6, 3, 3\].*head size of 16"),
  ],
)
def test_refuses_what_cannot_work(model_type, part, changes, message):
  model = torch_reference.tiny_family(model_type)
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(model, **{part: dataclasses.replace(getattr(model, part), **changes)})


@pytest.mark.parametrize(
  ("raw", "part", "changes", "message"),
  [
    (QWEN2_7B, None, {"use_sliding_window": True}, r"use_sliding_window"),
    (QWEN2_7B, None, {"hidden_act": "gelu"}, r"text_config.hidden_act is 'gelu'; only 'silu'"),
    (QWEN2_7B, "vision_config", {"hidden_act": "silu"}, r"only 'quick_gelu' is supported"),
    (QWEN2_7B, None, {"vision_config": {}}, r"vision_config.hidden_size is missing"),
    (QWEN3_4B, "vision_config", {"hidden_act": "gelu"}, r"only 'gelu_pytorch_tanh' is supported"),
    (QWEN3_4B, "text_config", {"attention_bias": True}, r"attention_bias is true; only layers"),
    (QWEN3_4B, "text_config", {"rope_scaling": {"rope_type": "yarn"}}, r"rope type is 'yarn'"),
    (QWEN3_4B, "vision_config", {"out_hidden_size": None}, r"out_hidden_size is missing"),
    (QWEN3_4B, None, {"text_config": {}}, r"text_config.vocab_size is missing"),
  ],
)
def test_refuses_unsupported_files(raw, part, changes, message):
  raw = copy.deepcopy(raw)
  (raw[part] if part else raw).update(changes)
  with pytest.raises(ValueError, match=message):
    models.FAMILIES[raw["model_type"]].from_hf(raw)


def test_missing_vision_fields_have_the_defaults_of_transformers():
  for model_type, kept in (("qwen2_vl", "hidden_size"), ("qwen3_vl", "out_hidden_size")):
    raw = copy.deepcopy({"qwen2_vl": QWEN2_7B, "qwen3_vl": QWEN3_4B}[model_type])
    raw["vision_config"] = {kept: raw["vision_config"][kept]}
    vision = models.FAMILIES[model_type].from_hf(raw).vision
    theirs = torch_reference.CLASSES[model_type][0](**copy.deepcopy(raw)).vision_config
    for field in dataclasses.fields(vision):
      value = getattr(theirs, field.name)
      value = tuple(value) if isinstance(value, list) else value
      assert getattr(vision, field.name) == value, field.name


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen3_vl"])
def test_unknown_release(model_type):
  with pytest.raises(ValueError, match=r"of size '3b'; choose from \['2b', "):
    models.FAMILIES[model_type].released("3b")
