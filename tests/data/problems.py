"""A small set of problems with pictures, some of them bad, made by index."""

import dataclasses
import io

import numpy as np
import PIL.Image

from sejax.data.prepare import Preparer
from sejax.data.records import BadRecord, Record
from sejax.models import qwen2_5_vl as qwen

# Only the sizes of patches and windows and the image token matter here.
CONFIG = qwen.Config(
  vision=qwen.VisionConfig(
    depth=2,
    hidden_size=32,
    intermediate_size=48,
    num_heads=2,
    out_hidden_size=64,
    fullatt_block_indexes=(1,),
    window_size=56,
  ),
  text=qwen.TextConfig(
    vocab_size=151936,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=2,
    mrope_section=(2, 3, 3),
    eos_token_id=151645,
    bos_token_id=151643,
  ),
  image_token_id=151655,
  video_token_id=151656,
  vision_start_token_id=151652,
  vision_end_token_id=151653,
)


@dataclasses.dataclass(frozen=True)
class Problems:
  """Record i has i % 3 images; its question grows with i % 5."""

  count: int
  bad: frozenset[int] = frozenset()
  long: frozenset[int] = frozenset()
  name: str = "problems"

  def __len__(self) -> int:
    return self.count

  def __getitem__(self, index: int) -> Record:
    if index in self.bad:
      raise BadRecord("missing image", f"problem-{index}: no image")
    question = "How long is AB? " * (1 + index % 5 + 400 * (index in self.long))
    images = tuple(png(40 + 30 * (index % 4), 60, index + place) for place in range(index % 3))
    return Record(f"problem-{index}", question, images)

  def gold(self, index: int) -> str | None:
    return str(index)


def png(width: int, height: int, seed: int) -> bytes:
  pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
  file = io.BytesIO()
  PIL.Image.fromarray(pixels).save(file, "PNG")
  return file.getvalue()


def preparer(source, directory, **changes) -> Preparer:
  options = {
    "min_pixels": 28 * 28,
    "max_pixels": 112 * 112,
    "prompt_limit": 256,
    "judge_limit": 768,
    "patch_limit": 128,
  }
  return Preparer(source, str(directory), **{**options, **changes})
