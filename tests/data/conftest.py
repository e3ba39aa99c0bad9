"""A model directory with the real vocabulary, made once."""

import pathlib

import pytest

from tests.models import qwen_directory


@pytest.fixture(scope="session")
def directory(tmp_path_factory) -> pathlib.Path:
  return qwen_directory.write(tmp_path_factory.mktemp("model") / "qwen")
