"""The Qwen2.5-VL model family (arXiv:2502.13923)."""

from sejax.models.qwen2_5_vl.config import VisionConfig
from sejax.models.qwen2_5_vl.images import Images, pack_images
from sejax.models.qwen2_5_vl.model import Qwen25VL

__all__ = ["Images", "Qwen25VL", "VisionConfig", "pack_images"]
