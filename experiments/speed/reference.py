"""A decoder to measure, and transformers' model on torch with its weights."""

import dataclasses
import tempfile

import torch
import transformers

from sejax import models
from sejax.models import qwen2_5_vl, qwen2_vl, qwen3_vl
from sejax.models.transformer.config import TextConfig


def make_config(layers: int, vocab_size: int, family: str = "qwen2_5_vl") -> models.Model:
  """A decoder, 512 wide; the vision tower is as small as it can be and is not run.

  Args:
    layers: of the decoder.
    vocab_size: rows of the embedding; the last four are the vision tokens.
    family: its `model_type`.
  """
  image, video, start, end = range(vocab_size - 4, vocab_size)
  text = TextConfig(
    vocab_size=vocab_size,
    hidden_size=512,
    intermediate_size=1536,
    num_hidden_layers=layers,
    num_attention_heads=8,
    num_key_value_heads=2,
    mrope_section=(8, 12, 12),
    bos_token_id=0,
    eos_token_id=1,
  )
  ids = {
    "image_token_id": image,
    "video_token_id": video,
    "vision_start_token_id": start,
    "vision_end_token_id": end,
  }
  sizes = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
  match family:
    case "qwen2_vl":
      vision = qwen2_vl.VisionConfig(depth=1, embed_dim=16, hidden_size=512, num_heads=2)
      return qwen2_vl.Qwen2VL(vision, text, tie_word_embeddings=True, **ids)
    case "qwen2_5_vl":
      vision = qwen2_5_vl.VisionConfig(**sizes, out_hidden_size=512, fullatt_block_indexes=(0,))
      return qwen2_5_vl.Qwen25VL(vision, text, tie_word_embeddings=True, **ids)
    case "qwen3_vl":
      vision = qwen3_vl.VisionConfig(
        **sizes, out_hidden_size=512, num_position_embeddings=16, deepstack_visual_indexes=(0,)
      )
      text = qwen3_vl.TextConfig(**dataclasses.asdict(text), head_dim=64)
      return qwen3_vl.Qwen3VL(vision, text, tie_word_embeddings=True, **ids)
  raise ValueError(f"no tiny model of the family {family}; choose from {list(models.FAMILIES)}")


def torch_model(config: models.Model, params: models.Params) -> torch.nn.Module:
  """Returns transformers' model with the same weights."""
  with tempfile.TemporaryDirectory() as directory:
    models.save(params, config, directory)
    model, said = transformers.AutoModelForImageTextToText.from_pretrained(
      directory, output_loading_info=True
    )
  if any(said.values()):
    raise ValueError(f"weights do not match: {said}")
  return model.eval()
