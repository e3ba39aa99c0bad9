"""A decoder to measure, and transformers' model on torch with its weights."""

import jax
import numpy as np
import torch
import transformers

from sejax import models
from sejax.models import qwen2_5_vl as qwen
from sejax.models.transformer.config import TextConfig


def make_config(layers: int, vocab_size: int) -> qwen.Qwen25VL:
  """A decoder, 512 wide; the vision tower is as small as it can be and is not run.

  Args:
    layers: of the decoder.
    vocab_size: rows of the embedding; the last four are the vision tokens.
  """
  image, video, start, end = range(vocab_size - 4, vocab_size)
  return qwen.Qwen25VL(
    vision=qwen.VisionConfig(
      depth=1,
      hidden_size=16,
      intermediate_size=16,
      num_heads=2,
      out_hidden_size=512,
      fullatt_block_indexes=(0,),
    ),
    text=TextConfig(
      vocab_size=vocab_size,
      hidden_size=512,
      intermediate_size=1536,
      num_hidden_layers=layers,
      num_attention_heads=8,
      num_key_value_heads=2,
      mrope_section=(8, 12, 12),
      bos_token_id=0,
      eos_token_id=1,
    ),
    tie_word_embeddings=True,
    image_token_id=image,
    video_token_id=video,
    vision_start_token_id=start,
    vision_end_token_id=end,
  )


def torch_model(config: qwen.Qwen25VL, params: models.Params) -> torch.nn.Module:
  """Returns transformers' model with the decoder's weights copied in."""
  model = transformers.Qwen2_5_VLForConditionalGeneration(
    transformers.Qwen2_5_VLConfig(**config.to_hf())
  ).eval()
  decoder = params["decoder"]
  tensors = {
    "model.language_model.embed_tokens.weight": decoder["embed"]["embedding"],
    "model.language_model.norm.weight": decoder["final_norm"]["scale"],
  }
  for i in range(config.text.num_hidden_layers):
    layer = jax.tree.map(lambda x, i=i: x[i], decoder["layers"])
    prefix = f"model.language_model.layers.{i}"
    tensors[f"{prefix}.input_layernorm.weight"] = layer["input_norm"]["scale"]
    tensors[f"{prefix}.post_attention_layernorm.weight"] = layer["post_norm"]["scale"]
    for name in ("q", "k", "v", "o"):
      tensors[f"{prefix}.self_attn.{name}_proj.weight"] = layer[name]["kernel"].T
      if name != "o":
        tensors[f"{prefix}.self_attn.{name}_proj.bias"] = layer[name]["bias"]
    for name in ("gate", "up", "down"):
      tensors[f"{prefix}.mlp.{name}_proj.weight"] = layer[name]["kernel"].T
  state = {name: torch.from_numpy(np.array(x)) for name, x in tensors.items()}
  loaded = model.load_state_dict(state, strict=False)
  left = [n for n in loaded.missing_keys if "visual" not in n and n != "lm_head.weight"]
  if loaded.unexpected_keys or left:
    raise ValueError(f"weights do not match: {loaded.unexpected_keys} unexpected, {left} missing")
  return model
