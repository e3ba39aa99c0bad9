"""Failed exports leave an earlier model directory unchanged."""

import functools
import resource

import jax
import jax.numpy as jnp
import pytest

from configs import tiny
from sejax import models
from sejax.learner import export


@pytest.fixture(scope="module")
def params():
  return models.load(tiny.get_config().model.path)[1]


@pytest.fixture(scope="module")
def write():
  path = tiny.get_config().model.path
  model = models.load_config(path)
  return functools.partial(export.export, model=model, source=path, dtype="bfloat16")


@pytest.fixture
def short_files():
  """Limits the size of files, so that writing fails as on a full disk."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)

  def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))

  yield limit
  resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_model_that_was_there(params, write, short_files, tmp_path):
  directory = tmp_path / "model"
  write(params, directory=directory)
  before = (directory / "model.safetensors").read_bytes()
  short_files(1_000_000)
  with pytest.raises(ValueError, match=r"cannot be written to .*/model \(.*os error 27.*\); make"):
    write(jax.tree.map(jnp.zeros_like, params), directory=directory)
  assert (directory / "model.safetensors").read_bytes() == before
  assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_cannot_be_made_is_named(params, write, tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(ValueError, match=r"cannot be written to .*/file/model .*Not a directory"):
    write(params, directory=tmp_path / "file" / "model")
