"""The tiny random model that the tests of this folder compare against, made once."""

import dataclasses
from typing import Any

import pytest

from sejax import models
from sejax.models import qwen2_5_vl as qwen
from tests.models import torch_reference


@dataclasses.dataclass(frozen=True)
class Pair:
  """transformers' torch model and the same weights as sejax's tree."""

  config: qwen.Qwen25VL
  torch_model: Any
  params: models.Params


def _make(config: qwen.Qwen25VL) -> Pair:
  model = torch_reference.torch_model(config)
  params = torch_reference.to_params(dict(model.named_parameters()), config)
  return Pair(config, model, params)


@pytest.fixture(scope="session")
def tiny() -> Pair:
  """Untied head, as in 7B and above."""
  return _make(torch_reference.tiny_config())


@pytest.fixture(scope="session")
def tied() -> Pair:
  """Head tied to the embedding, as in 3B."""
  return _make(torch_reference.tiny_config(tie_word_embeddings=True))
