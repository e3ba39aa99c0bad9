"""Qwen2.5-VL (arXiv:2502.13923) as pure functions over a plain parameter tree."""

from sejax.models.qwen2_5_vl.config import Config, TextConfig, VisionConfig
from sejax.models.qwen2_5_vl.images import Images, pack_images
from sejax.models.qwen2_5_vl.logp import LogProbs, logp
from sejax.models.qwen2_5_vl.model import (
  Cache,
  Prefix,
  Prompt,
  by_layer,
  empty_cache,
  encode,
  extend,
  forward,
  layers_apart,
  logits,
  prefill,
  select_last,
)
from sejax.models.qwen2_5_vl.params import Params, init, shapes
from sejax.models.qwen2_5_vl.rope import prompt_positions
from sejax.models.qwen2_5_vl.weights import load, load_config, save

__all__ = [
  "Cache",
  "Config",
  "Images",
  "LogProbs",
  "Params",
  "Prefix",
  "Prompt",
  "TextConfig",
  "VisionConfig",
  "by_layer",
  "empty_cache",
  "encode",
  "extend",
  "forward",
  "init",
  "layers_apart",
  "load",
  "load_config",
  "logits",
  "logp",
  "pack_images",
  "prefill",
  "prompt_positions",
  "save",
  "select_last",
  "shapes",
]
