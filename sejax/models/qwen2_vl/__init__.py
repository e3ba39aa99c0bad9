"""Qwen2-VL (arXiv:2409.12191)."""

from sejax.models.qwen2_vl.config import VisionConfig
from sejax.models.qwen2_vl.model import Qwen2VL

__all__ = ["Qwen2VL", "VisionConfig"]
