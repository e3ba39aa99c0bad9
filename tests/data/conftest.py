"""The real vocabulary, for all tests of the pipeline."""

import pathlib

import pytest

from tests.models import qwen_directory


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory) -> pathlib.Path:
  return qwen_directory.write(tmp_path_factory.mktemp("model"))
