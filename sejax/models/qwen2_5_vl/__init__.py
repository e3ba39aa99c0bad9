"""Qwen2.5-VL (arXiv 2502.13923) as pure functions over a plain parameter tree."""

from sejax.models.qwen2_5_vl.config import Config, TextConfig, VisionConfig
from sejax.models.qwen2_5_vl.params import Params, init, shapes

__all__ = ["Config", "Params", "TextConfig", "VisionConfig", "init", "shapes"]
