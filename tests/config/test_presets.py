"""Configuration files: sizes behind the colon, and that problems fit the limits."""

import importlib
import json

import PIL.Image
import pytest

from configs import pictures_qwen2_5_vl_3b_lora
from sejax import models
from sejax.config import parts, validation
from sejax.data import sources
from sejax.data.prepare import Dropped
from tests.models import qwen_directory

SIZES = {
  "geometry3k_qwen2_vl": ("2b", "7b", "72b"),
  "geometry3k_qwen3_vl": ("2b", "4b", "8b", "32b"),
  "figures_qwen3_vl_lora": ("2b", "4b"),
}
FILES = [(name, size) for name, sizes in SIZES.items() for size in sizes]


@pytest.mark.parametrize(("name", "size"), FILES)
def test_sizes_and_recipes(name, size):
  get_config = importlib.import_module(f"configs.{name}").get_config
  config = get_config(size)
  validation.validate(config, reads_data=False)
  model = models.released(config.model.path)
  assert f"-{size}-" in config.model.path.lower()
  assert model.text.num_key_value_heads % config.mesh.tensor == 0
  assert config.data.min_pixels is None
  assert config.data.max_pixels is None
  assert all(bucket % model.patch_multiple == 0 for bucket in config.data.patch_buckets)
  assert config.judge.use
  assert not get_config(f"{size},majority").judge.use
  assert get_config(f"{size},").to_dict() == config.to_dict()


@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_is_none(name):
  get_config = importlib.import_module(f"configs.{name}").get_config
  assert get_config().model.path in [get_config(size).model.path for size in SIZES[name]]
  sizes = ", ".join(SIZES[name])
  with pytest.raises(ValueError, match=f"^there is no size 'majority'; choose {sizes}, optionally"):
    get_config("majority")
  with pytest.raises(ValueError, match=r"^there is no recipe 'most'"):
    get_config(f"{SIZES[name][0]},most")


def prepared(config, family, directory):
  """Returns what becomes of the first records with the family's real vocabulary and limits."""
  config.model.path = str(qwen_directory.write(directory / "model", family))
  source = sources.open_source(config.data)
  preparer = parts.preparer(config, source)
  return [preparer(index) for index in range(min(8, len(source)))]


@pytest.mark.long
@pytest.mark.parametrize(
  ("name", "family"),
  [("figures_qwen2_5_vl_3b_lora", "qwen2_5_vl"), ("figures_qwen3_vl_lora", "qwen3_vl")],
)
def test_adapters_can_be_trained_on_all_built_in_figures(name, family, tmp_path):
  config = importlib.import_module(f"configs.{name}").get_config()
  examples = prepared(config, family, tmp_path)
  assert [example for example in examples if isinstance(example, Dropped)] == []
  assert {len(example.patches) for example in examples} == {256}
  assert max(len(example.judge) for example in examples) <= config.data.prompt_buckets[-1]


@pytest.mark.long
@pytest.mark.parametrize("size", [(4032, 3024), (800, 600), (60, 1000), (20, 20)])
def test_adapters_can_be_trained_on_pictures_of_any_size(size, tmp_path):
  PIL.Image.new("RGB", size, "white").save(tmp_path / "photo.png")
  question = "What does the sign beside the door say, and in which of the rooms is it? " * 6
  lines = [{"question": text, "image": "photo.png"} for text in ("What is x?", question)]
  (tmp_path / "problems.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  config = pictures_qwen2_5_vl_3b_lora.get_config()
  config.data.path = str(tmp_path / "problems.jsonl")
  validation.validate(config)
  examples = prepared(config, "qwen2_5_vl", tmp_path)
  assert [example for example in examples if isinstance(example, Dropped)] == []
  assert max(len(example.patches) for example in examples) <= config.data.patch_buckets[-1]
