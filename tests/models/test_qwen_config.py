"""Configurations: both published forms, invalid files, and the sizes of released models."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
import torch
import transformers

from sejax import models
from sejax.models import qwen2_5_vl as qwen
from tests.models import torch_reference

# Bytes in bf16, that is twice the number of parameters. 7B and 32B: `metadata.total_size` in
# `model.safetensors.index.json` of Qwen/Qwen2.5-VL-<size>-Instruct. 3B and 72B: transformers' model
# of the released configuration, as in the second test; the hub reports 3.75B and 73.4B parameters.
PUBLISHED_BYTES = {
  "3b": 7_509_245_952,
  "7b": 16_584_333_312,
  "32b": 66_905_436_672,
  "72b": 146_821_554_688,
}

# `config.json` of Qwen/Qwen2.5-VL-3B-Instruct, in the flat form.
FLAT_3B = {
  "architectures": ["Qwen2_5_VLForConditionalGeneration"],
  "attention_dropout": 0.0,
  "bos_token_id": 151643,
  "eos_token_id": 151645,
  "vision_start_token_id": 151652,
  "vision_end_token_id": 151653,
  "vision_token_id": 151654,
  "image_token_id": 151655,
  "video_token_id": 151656,
  "hidden_act": "silu",
  "hidden_size": 2048,
  "initializer_range": 0.02,
  "intermediate_size": 11008,
  "max_position_embeddings": 128000,
  "max_window_layers": 70,
  "model_type": "qwen2_5_vl",
  "num_attention_heads": 16,
  "num_hidden_layers": 36,
  "num_key_value_heads": 2,
  "rms_norm_eps": 1e-06,
  "rope_theta": 1000000.0,
  "sliding_window": 32768,
  "tie_word_embeddings": True,
  "torch_dtype": "bfloat16",
  "use_cache": True,
  "use_sliding_window": False,
  "vision_config": {
    "depth": 32,
    "hidden_act": "silu",
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "in_chans": 3,
    "out_hidden_size": 2048,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "spatial_patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
    "temporal_patch_size": 2,
  },
  "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
  "vocab_size": 151936,
}


def count(params: models.Params) -> int:
  return sum(math.prod(x.shape) for x in jax.tree.leaves(params))


def change(config: qwen.Qwen25VL, part: str | None, changes: dict) -> qwen.Qwen25VL:
  if part is None:
    return dataclasses.replace(config, **changes)
  changed = dataclasses.replace(getattr(config, part), **changes)
  return dataclasses.replace(config, **{part: changed})


@pytest.mark.parametrize("size", PUBLISHED_BYTES)
def test_released_sizes(size):
  config = qwen.Qwen25VL.released(size)
  shapes = jax.eval_shape(lambda key: config.init(key, jnp.bfloat16), jax.random.key(0))
  assert sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes)) == PUBLISHED_BYTES[size]


@pytest.mark.parametrize("size", PUBLISHED_BYTES)
def test_released_sizes_are_those_of_transformers(size):
  config = qwen.Qwen25VL.released(size)
  with torch.device("meta"):
    model = transformers.Qwen2_5_VLForConditionalGeneration(
      transformers.Qwen2_5_VLConfig(**config.to_hf())
    )
  shapes = jax.eval_shape(lambda key: config.init(key), jax.random.key(0))
  parts = {
    "vision": model.model.visual,
    "decoder": model.model.language_model,
  }
  for name, module in parts.items():
    assert count(shapes[name]) == sum(p.numel() for p in module.parameters())
  assert count(shapes) == sum(p.numel() for p in model.parameters())


def test_flat_form():
  assert qwen.Qwen25VL.from_hf(FLAT_3B) == qwen.Qwen25VL.released("3b")


@pytest.mark.parametrize("raw", [FLAT_3B, torch_reference.tiny_config().to_hf()])
def test_reads_what_transformers_writes_and_back(raw):
  written = transformers.Qwen2_5_VLConfig(**raw).to_dict()
  config = qwen.Qwen25VL.from_hf(written)
  assert config == qwen.Qwen25VL.from_hf(raw)
  again = transformers.Qwen2_5_VLConfig(**config.to_hf()).to_dict()
  for part in ("text_config", "vision_config"):
    ours = {f.name for f in dataclasses.fields(getattr(config, part.removesuffix("_config")))}
    for field in ours & set(written[part]):
      assert again[part][field] == written[part][field], field
  rope = written["text_config"]["rope_parameters"]
  rope.pop("type", None)  # The older name of `rope_type`, which transformers keeps beside it.
  assert again["text_config"]["rope_parameters"] == rope


@pytest.mark.long
def test_init():
  config = torch_reference.tiny_config()
  draw = jax.jit(config.init, static_argnums=1)
  params = draw(jax.random.key(3), jnp.bfloat16)
  assert jax.tree.map(lambda x: x.shape, params) == config.shapes()
  assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves(params))
  gate = params["decoder"]["layers"]["gate"]["kernel"].astype(jnp.float32)
  assert abs(gate.std() - 0.02) < 1e-3  # 18,432 draws: a standard error of 1e-4.
  assert (gate[0] != gate[1]).any()
  assert not params["decoder"]["layers"]["q"]["bias"].any()
  assert (params["decoder"]["final_norm"]["scale"] == 1).all()


@pytest.mark.parametrize(
  ("part", "changes", "message"),
  [
    ("vision", {"fullatt_block_indexes": (1, "3")}, r"indexes is \(1, '3'\); it must be a list"),
    ("vision", {"window_size": 60}, r"window_size is 60.*multiple of .*= 28"),
    ("vision", {"num_heads": 3}, r"vision_config.hidden_size is 32.*num_heads = 3"),
    ("vision", {"hidden_size": 12, "num_heads": 2}, r"head size 6 .*multiple of 4"),
    ("vision", {"depth": 0}, r"vision_config.depth is 0"),
    ("vision", {"out_hidden_size": 48}, r"out_hidden_size is 48.*hidden_size of 64"),
    ("text", {"mrope_section": (4, 4, 4)}, r"mrope_section is \[4, 4, 4\].*head size of 16"),
    ("text", {"num_attention_heads": 6}, r"text_config.hidden_size is 64.*= 6"),
    ("text", {"num_key_value_heads": 3}, r"num_attention_heads is 4.*num_key_value_heads = 3"),
    (None, {"image_token_id": 128}, r"image_token_id is 128.*vocab_size = 128"),
    (None, {"remat": "some"}, r"remat is 'some'"),
    (None, {"query_chunk": 0}, r"query_chunk is 0"),
  ],
)
def test_refuses_what_cannot_work(part, changes, message):
  with pytest.raises(ValueError, match=message):
    change(torch_reference.tiny_config(), part, changes)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"use_sliding_window": True}, r"use_sliding_window"),
    ({"hidden_act": "gelu"}, r"text_config.hidden_act is 'gelu'"),
    ({"rope_scaling": {"type": "yarn", "factor": 4}}, r"rope type is 'yarn'"),
    ({"vision_config": {}}, r"vision_config.hidden_size is missing"),
    ({"hidden_size": "2048"}, r"text_config.hidden_size is '2048'; it must be a positive number"),
    ({"num_hidden_layers": 36.0}, r"text_config.num_hidden_layers is 36.0"),
    ({"rms_norm_eps": None}, r"text_config.rms_norm_eps is None"),
    ({"rope_scaling": {"type": "mrope", "mrope_section": 24}}, r"mrope_section is 24; it must be"),
    (
      {"rope_scaling": {"type": "mrope", "mrope_section": [-16, 40, 40]}},
      r"mrope_section is \[-16, 40, 40\]",
    ),
    ({"tie_word_embeddings": "false"}, r"tie_word_embeddings is 'false'"),
  ],
)
def test_refuses_unsupported_files(changes, message):
  with pytest.raises(ValueError, match=message):
    qwen.Qwen25VL.from_hf({**FLAT_3B, **changes})


def test_missing_fields_have_the_defaults_of_transformers():
  """A flat file whose vision section holds only values that differ from the defaults."""
  released = qwen.Qwen25VL.released("32b").to_hf()
  text = {k: v for k, v in released["text_config"].items() if k != "rope_parameters"}
  flat = {
    **text,
    "model_type": "qwen2_5_vl",
    "rope_theta": 1_000_000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vision_config": {
      "hidden_size": 1280,
      "in_chans": 3,
      "intermediate_size": 3456,
      "out_hidden_size": 5120,
      "spatial_patch_size": 14,
      "tokens_per_second": 2,
    },
  }
  assert qwen.Qwen25VL.from_hf(flat) == qwen.Qwen25VL.released("32b")
  del flat["rms_norm_eps"], flat["max_position_embeddings"]
  text = qwen.Qwen25VL.from_hf(flat).text
  theirs = transformers.Qwen2_5_VLConfig(**flat).text_config
  assert text.rms_norm_eps == theirs.rms_norm_eps
  assert text.max_position_embeddings == theirs.max_position_embeddings


def test_lists_become_tuples():
  vision = dataclasses.replace(
    torch_reference.tiny_config().vision, fullatt_block_indexes=[3, 1, 1]
  )
  assert vision.fullatt_block_indexes == (1, 3)
  assert hash(vision) == hash(torch_reference.tiny_config().vision)


def test_full_attention_indices_beyond_the_depth_are_dropped_as_in_transformers():
  raw = torch_reference.tiny_config().to_hf()
  for indexes, meant in (([7, 15, 23, 31], ()), ([9, -1, 3, 0, 3], (0, 3))):
    raw["vision_config"]["fullatt_block_indexes"] = indexes
    assert qwen.Qwen25VL.from_hf(raw).vision.fullatt_block_indexes == meant
  del raw["vision_config"]["fullatt_block_indexes"]  # The default, (7, 15, 23, 31).
  assert qwen.Qwen25VL.from_hf(raw).vision.fullatt_block_indexes == ()


def test_unknown_release():
  with pytest.raises(ValueError, match=r"'8b'.*3b.*72b"):
    qwen.Qwen25VL.released("8b")
