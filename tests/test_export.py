"""Exports that cannot be written cost nothing."""

import pathlib
import resource
import types

import jax
import jax.numpy as jnp
import pytest

from configs import tiny
from sejax import export
from sejax.models import qwen2_5_vl as qwen


@pytest.fixture(scope="module")
def model():
  config = tiny.get_config()
  model, params = qwen.load(config.model.path)
  run = types.SimpleNamespace(adapters=None, models=types.SimpleNamespace(config=model))
  return run, params, config


@pytest.fixture
def short_files():
  """Files end after so many bytes, as on a full disk."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)

  def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

  yield limit
  resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_model_that_was_there(model, short_files, tmp_path):
  run, params, config = model
  directory = tmp_path / "model"
  export.save(run, params, directory, config)
  before = (directory / "model.safetensors").read_bytes()
  short_files(1_000_000)
  with pytest.raises(ValueError, match=r"cannot be written to .*/model \(.*os error 27.*\); make"):
    export.save(run, jax.tree.map(jnp.zeros_like, params), directory, config)
  assert (directory / "model.safetensors").read_bytes() == before
  assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_cannot_be_made_is_named(model, tmp_path):
  run, params, config = model
  (tmp_path / "file").touch()
  with pytest.raises(ValueError, match=r"cannot be written to .*/file/model .*Not a directory"):
    export.save(run, params, pathlib.Path(tmp_path / "file" / "model"), config)
