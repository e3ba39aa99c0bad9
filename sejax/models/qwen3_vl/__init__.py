"""Qwen3-VL, dense."""

from sejax.models.qwen3_vl.config import TextConfig, VisionConfig
from sejax.models.qwen3_vl.model import Qwen3VL

__all__ = ["Qwen3VL", "TextConfig", "VisionConfig"]
