"""Models: an interface with one package per model family, LoRA adapters, and model directories."""

import os

# Silences transformers' warning at import that PyTorch is missing, which nothing here needs.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

from sejax.models.model import Features, Images, Model
from sejax.models.registry import FAMILIES, load_config, released
from sejax.models.transformer.generation import select_last
from sejax.models.transformer.logp import LogProbs
from sejax.models.transformer.packing import Packing
from sejax.models.transformer.params import Params, fused_shape
from sejax.models.transformer.state import (
  BatchTable,
  Pages,
  Prefix,
  Prompt,
  Recent,
  unstack_layers,
)
from sejax.models.weights import load, save

__all__ = [
  "FAMILIES",
  "BatchTable",
  "Features",
  "Images",
  "LogProbs",
  "Model",
  "Packing",
  "Pages",
  "Params",
  "Prefix",
  "Prompt",
  "Recent",
  "fused_shape",
  "load",
  "load_config",
  "released",
  "save",
  "select_last",
  "unstack_layers",
]
