"""Families are found by the `model_type` of a model directory."""

import json

import pytest

from configs import tiny
from sejax import models


def test_the_bundled_model_is_of_a_family():
  model = models.load_config(tiny.get_config().model.path)
  assert type(model) is models.FAMILIES["qwen2_5_vl"]
  assert model.title == "Qwen2.5-VL"


@pytest.mark.parametrize("found", ["llava", None, 7])
def test_an_unknown_family_is_told_the_known_ones(found, tmp_path):
  (tmp_path / "config.json").write_text(json.dumps({"model_type": found}))
  with pytest.raises(ValueError, match="model_type is") as error:
    models.load_config(tmp_path)
  assert str(error.value).startswith(f"{tmp_path / 'config.json'}: model_type is {found!r}; ")
  for name, family in models.FAMILIES.items():
    assert f"{name} ({next(iter(family.released_names.values()))})" in str(error.value)


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-VL-7B-Instruct", "qwen2.5-vl-7b-instruct"])
def test_a_released_model_is_known_by_its_name(name):
  model = models.released(name)
  assert (model.title, model.width, model.text.num_hidden_layers) == ("Qwen2.5-VL", 3584, 28)
  assert models.released("Qwen/Qwen2.5-VL-8B-Instruct") is None
  assert models.released("") is None
