"""Tiny random models of the families without windows, transformers' torch models, and batches."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
import transformers

from sejax import models
from sejax.models import qwen2_vl, qwen3_vl
from sejax.models.transformer.config import TextConfig

IMAGE, VISION_START, VISION_END, VIDEO = 120, 121, 122, 123
TEXT_IDS = 100  # Text tokens are drawn from 2 to below this.
TOKEN_IDS = {
  "image_token_id": IMAGE,
  "vision_start_token_id": VISION_START,
  "vision_end_token_id": VISION_END,
  "video_token_id": VIDEO,
}
TORCH = {
  "qwen2_vl": (transformers.Qwen2VLConfig, transformers.Qwen2VLForConditionalGeneration),
  "qwen3_vl": (transformers.Qwen3VLConfig, transformers.Qwen3VLForConditionalGeneration),
}


def tiny_model(family: str, *, tied: bool) -> models.Model:
  """Four decoder layers, grouped queries, two deepstack levels where there are some."""
  text = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "eos_token_id": 1,
    "bos_token_id": 0,
  }
  if family == "qwen2_vl":
    vision = qwen2_vl.VisionConfig(depth=3, embed_dim=32, hidden_size=64, num_heads=2)
    decoder = TextConfig(**text, mrope_section=(2, 3, 3))
    return qwen2_vl.Qwen2VL(vision, decoder, tie_word_embeddings=tied, **TOKEN_IDS)
  vision = qwen3_vl.VisionConfig(
    depth=5,
    hidden_size=32,
    intermediate_size=48,
    num_heads=2,
    out_hidden_size=64,
    num_position_embeddings=36,
    deepstack_visual_indexes=(1, 3),
  )
  # Heads wider than hidden_size / num_attention_heads; height and width end before time does.
  decoder = qwen3_vl.TextConfig(**text, mrope_section=(6, 3, 3), head_dim=24)
  return qwen3_vl.Qwen3VL(vision, decoder, tie_word_embeddings=tied, **TOKEN_IDS)


def torch_model(model: models.Model, seed: int = 0) -> torch.nn.Module:
  """A random model whose every tensor matters: biases are not zero, norms not one, logits O(1)."""
  config_class, model_class = TORCH[model.model_type]
  config = config_class(**model.to_hf())
  config._attn_implementation = "eager"
  reference = model_class(config).eval()
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, parameter in reference.named_parameters():
      noise = torch.randn(parameter.shape, generator=generator)
      if name.endswith("bias"):
        parameter.copy_(0.1 * noise)
      elif "norm" in name or "ln_q" in name:
        parameter.copy_(1 + 0.1 * noise)
      else:
        parameter.copy_(noise / parameter[0].numel() ** 0.5)
  return reference


@dataclasses.dataclass(frozen=True)
class Batch:
  """Prompts of unequal lengths.

  Attributes:
    ids: tokens of each prompt.
    grids: of each prompt's images.
    patches: random, of each prompt's images.
  """

  ids: list[list[int]]
  grids: list[np.ndarray]
  patches: list[np.ndarray]

  def prompt(self, model: models.Model) -> models.Prompt:
    """Returns the prompts, padded on the right by image tokens, which must mean nothing there."""
    lengths = np.array([len(row) for row in self.ids], np.int32)
    ids = np.full((len(self.ids), lengths.max() + 2), IMAGE, np.int32)
    for row, tokens in enumerate(self.ids):
      ids[row, : len(tokens)] = tokens
    return models.Prompt(ids, lengths, model.prompt_positions(ids, lengths, self.grids))

  def images(self, model: models.Model) -> models.Images | None:
    """Returns the packed images; None where there are none."""
    if not any(map(len, self.patches)):
      return None
    return model.pack_images(self.patches, self.grids, 128)


def make_batch(model: models.Model, rows: Sequence[Sequence[int | tuple[int, int]]]) -> Batch:
  """Draws prompts.

  Args:
    model: says how large patches are.
    rows: for each prompt its parts: numbers of text tokens, and (height, width) of images in
      patches.
  """
  rng = np.random.default_rng(0)
  ids, grids, patches = [], [], []
  for row in rows:
    tokens, sizes = [], []
    for part in row:
      if isinstance(part, int):
        tokens += rng.integers(2, TEXT_IDS, part).tolist()
      else:
        features = part[0] * part[1] // 4
        tokens += [VISION_START, *[IMAGE] * features, VISION_END]
        sizes.append((1, *part))
    ids.append(tokens)
    grids.append(np.array(sizes, np.int32).reshape(-1, 3))
    count = int(grids[-1].prod(axis=1).sum())
    patches.append(rng.standard_normal((count, model.patch_dim)).astype(np.float32))
  return Batch(ids, grids, patches)


def torch_inputs(batch: Batch, row: int, continuation: Sequence[int] = ()) -> dict:
  """Returns what the torch model takes for one prompt and what follows it."""
  ids = torch.tensor([[*batch.ids[row], *continuation]])
  inputs = {"input_ids": ids, "mm_token_type_ids": (ids == IMAGE).int()}
  if len(batch.grids[row]):
    inputs["pixel_values"] = torch.from_numpy(batch.patches[row])
    inputs["image_grid_thw"] = torch.from_numpy(batch.grids[row])
  return inputs
