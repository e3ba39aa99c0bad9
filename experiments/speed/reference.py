"""transformers' model on torch with the weights of a sejax decoder: what speed is compared with."""

import jax
import numpy as np
import torch
import transformers

from sejax.models import qwen2_5_vl as qwen


def torch_model(config: qwen.Config, params: qwen.Params) -> torch.nn.Module:
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
