"""Configuration files with the size of the model behind the colon."""

import importlib

import pytest

from sejax import models
from sejax.config import validation

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
