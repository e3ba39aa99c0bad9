"""Fixtures of the models' tests: tiny random models, made once per session."""

import dataclasses
from typing import Any

import pytest

from sejax import models
from sejax.models import qwen2_5_vl as qwen
from tests.models import torch_reference


@dataclasses.dataclass(frozen=True)
class Pair:
  """A torch model of transformers and the same weights as a parameter tree."""

  config: qwen.Qwen25VL
  torch_model: Any
  params: models.Params


def _make(config: qwen.Qwen25VL) -> Pair:
  model = torch_reference.torch_model(config)
  params = torch_reference.to_params(dict(model.named_parameters()), config)
  return Pair(config, model, params)


@pytest.fixture(scope="session")
def tiny() -> Pair:
  """A model with an untied head, as in the sizes from 7B."""
  return _make(torch_reference.tiny_config())


@pytest.fixture(scope="session")
def tied() -> Pair:
  """A model whose head is tied to the embedding, as in 3B."""
  return _make(torch_reference.tiny_config(tie_word_embeddings=True))
