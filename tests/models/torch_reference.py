"""transformers' torch models as reference: tiny random models, and the same inputs for both.

torch is a dependency of the tests only.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from sejax import models
from sejax.models import qwen2_5_vl as qwen
from sejax.models import qwen2_vl, qwen3_vl
from sejax.models.transformer.config import TextConfig

# Configuration and model of transformers by `model_type`.
CLASSES: dict[str, tuple[Any, Any]] = {
  "qwen2_vl": (transformers.Qwen2VLConfig, transformers.Qwen2VLForConditionalGeneration),
  "qwen2_5_vl": (transformers.Qwen2_5_VLConfig, transformers.Qwen2_5_VLForConditionalGeneration),
  "qwen3_vl": (transformers.Qwen3VLConfig, transformers.Qwen3VLForConditionalGeneration),
}

IMAGE, VISION_START, VISION_END, VIDEO = 120, 121, 122, 123
TEXT_IDS = 100  # Text tokens are drawn below this.


# Threads do not speed up a tiny model, and waiting for each other slows it down.
torch.set_num_threads(1)


def tiny_config(**changes) -> qwen.Qwen25VL:
  """Returns a tiny model with both kinds of vision blocks, grouped queries and 4x4 windows."""
  config = qwen.Qwen25VL(
    vision=qwen.VisionConfig(
      depth=4,
      hidden_size=32,
      intermediate_size=48,
      num_heads=2,
      out_hidden_size=64,
      fullatt_block_indexes=(1, 3),
      window_size=56,
    ),
    text=TextConfig(
      vocab_size=128,
      hidden_size=64,
      intermediate_size=96,
      num_hidden_layers=3,
      num_attention_heads=4,
      num_key_value_heads=2,
      mrope_section=(2, 3, 3),
      eos_token_id=1,
      bos_token_id=0,
    ),
    **_TOKEN_IDS,
  )
  return dataclasses.replace(config, **changes)


_TOKEN_IDS = {
  "image_token_id": IMAGE,
  "video_token_id": VIDEO,
  "vision_start_token_id": VISION_START,
  "vision_end_token_id": VISION_END,
}


def tiny_family(model_type: str, **changes) -> models.Model:
  """Returns a tiny model of any family, with at least four layers in the new ones."""
  if model_type == "qwen2_5_vl":
    return tiny_config(**changes)
  text = dataclasses.asdict(tiny_config().text) | {"num_hidden_layers": 4}
  if model_type == "qwen2_vl":
    model = qwen2_vl.Qwen2VL(
      vision=qwen2_vl.VisionConfig(depth=3, embed_dim=32, hidden_size=64, num_heads=2),
      text=TextConfig(**text),
      **_TOKEN_IDS,
    )
  else:
    # Heads are wider than hidden_size / num_attention_heads, and the rotary frequencies of height
    # and width end before those of time.
    text |= {"head_dim": 24, "mrope_section": (6, 3, 3)}
    model = qwen3_vl.Qwen3VL(
      vision=qwen3_vl.VisionConfig(
        depth=5,
        hidden_size=32,
        intermediate_size=48,
        num_heads=2,
        out_hidden_size=64,
        num_position_embeddings=36,
        deepstack_visual_indexes=(1, 3),
      ),
      text=qwen3_vl.TextConfig(**text),
      **_TOKEN_IDS,
    )
  return dataclasses.replace(model, **changes)


def real_vocabulary_config() -> qwen.Qwen25VL:
  """Returns the tiny model with Qwen's vocabulary and its special token ids."""
  tiny = tiny_config()
  return qwen.Qwen25VL(tiny.vision, dataclasses.replace(tiny.text, vocab_size=151_936))


def torch_model(config: models.Model, seed: int = 0, raw: dict | None = None):
  """Returns a random torch model in which every tensor matters.

  Biases are not zero, norms are not one, and logits are of order one.

  Args:
    seed: seed of the weights.
    raw: contents of a `config.json` for transformers; None is what `config` exports.
  """
  config_class, model_class = CLASSES[config.model_type]
  hf_config = config_class(**(raw or config.to_hf()))
  hf_config._attn_implementation = "eager"
  with torch.device("cpu"):
    model = model_class(hf_config).eval()
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      noise = torch.randn(parameter.shape, generator=generator)
      if name.endswith("bias"):
        parameter.copy_(0.1 * noise)
      elif "norm" in name or "ln_q" in name:
        parameter.copy_(1 + 0.1 * noise)
      else:
        fan_in = parameter[0].numel()
        parameter.copy_(noise / fan_in**0.5)
  return model


def to_params(tensors: dict[str, torch.Tensor], config: qwen.Qwen25VL) -> models.Params:
  """Converts weights or gradients of Qwen2.5-VL, named as in transformers, to a parameter tree."""

  def take(name):
    return np.asarray(tensors[name].detach().float().numpy())

  def stack(count, template):
    return np.stack([take(template.format(i)) for i in range(count)])

  def linear(count, template, bias=True):
    kernel = {"kernel": stack(count, template + ".weight").swapaxes(1, 2)}
    return {**kernel, "bias": stack(count, template + ".bias")} if bias else kernel

  def gated(count, prefix, bias):
    return {n: linear(count, f"{prefix}.mlp.{n}_proj", bias) for n in ("gate", "up", "down")}

  def single(name):
    return {"kernel": take(name + ".weight").T, "bias": take(name + ".bias")}

  def qkv(fused):
    """Gives queries, keys and values an axis of their own."""
    return {name: x.reshape(*x.shape[:-1], 3, -1) for name, x in fused.items()}

  depth, layers = config.vision.depth, config.text.num_hidden_layers
  block, layer = "model.visual.blocks.{}", "model.language_model.layers.{}"
  tree = {
    "vision": {
      "patch_embed": {
        "kernel": take("model.visual.patch_embed.proj.weight")
        .reshape(config.vision.hidden_size, -1)
        .T
      },
      "blocks": {
        "norm1": {"scale": stack(depth, f"{block}.norm1.weight")},
        "qkv": qkv(linear(depth, f"{block}.attn.qkv")),
        "proj": linear(depth, f"{block}.attn.proj"),
        "norm2": {"scale": stack(depth, f"{block}.norm2.weight")},
        **gated(depth, block, bias=True),
      },
      "merger": {
        "norm": {"scale": take("model.visual.merger.ln_q.weight")},
        "fc1": single("model.visual.merger.mlp.0"),
        "fc2": single("model.visual.merger.mlp.2"),
      },
    },
    "decoder": {
      "embed": {"embedding": take("model.language_model.embed_tokens.weight")},
      "layers": {
        "input_norm": {"scale": stack(layers, f"{layer}.input_layernorm.weight")},
        **{n: linear(layers, f"{layer}.self_attn.{n}_proj") for n in ("q", "k", "v")},
        "o": linear(layers, f"{layer}.self_attn.o_proj", bias=False),
        "post_norm": {"scale": stack(layers, f"{layer}.post_attention_layernorm.weight")},
        **gated(layers, layer, bias=False),
      },
      "final_norm": {"scale": take("model.language_model.norm.weight")},
    },
  }
  if not config.tie_word_embeddings:
    tree["lm_head"] = {"kernel": take("lm_head.weight").T}
  return jax.tree.map(jnp.asarray, tree)


@dataclasses.dataclass(frozen=True)
class Batch:
  """B prompts of different lengths, each with its own images, without padding."""

  ids: list[np.ndarray]
  grids: list[np.ndarray]
  patches: list[np.ndarray]

  @property
  def lengths(self) -> np.ndarray:
    return np.array([len(row) for row in self.ids], np.int32)

  def prompt(self, config: models.Model, size: int | None = None) -> models.Prompt:
    padded = _pad(self.ids, size or max(self.lengths))
    positions = config.prompt_positions(padded, self.lengths, self.grids)
    return models.Prompt(padded, self.lengths, positions)

  def images(self, config: models.Model, size: int | None = None) -> models.Images:
    multiple = config.patch_multiple
    longest = max(len(row) for row in self.patches)
    size = size or max(1, -(-longest // multiple)) * multiple
    return config.pack_images(self.patches, self.grids, size)

  def torch_inputs(self, continuations: np.ndarray | None = None) -> dict[str, torch.Tensor]:
    """Returns the inputs of transformers' model.

    Args:
      continuations: tokens `[B,G,T]`. There are then B x G rows: each is a copy of the prompt, the
        continuation directly after it, and padding on the right.
    """
    if continuations is None:
      rows, repeats = self.ids, 1
    else:
      repeats = continuations.shape[1]
      rows = [
        np.concatenate([ids, tokens])
        for ids, group in zip(self.ids, continuations, strict=True)
        for tokens in group
      ]
    ids = torch.from_numpy(_pad(rows, max(len(row) for row in rows))).long()
    mask = torch.tensor([[t < len(row) for t in range(ids.shape[1])] for row in rows]).long()
    inputs = {
      "input_ids": ids,
      "attention_mask": mask,
      "mm_token_type_ids": (ids == IMAGE).int() * mask,
    }
    if any(len(grid) for grid in self.grids):
      inputs["pixel_values"] = torch.from_numpy(
        np.concatenate([p for row in self.patches for p in [row] * repeats])
      )
      inputs["image_grid_thw"] = torch.from_numpy(
        np.concatenate([g for row in self.grids for g in [row] * repeats])
      )
    return inputs


def make_batch(config: models.Model, rows: list[list], seed: int = 0) -> Batch:
  """Makes random prompts; a row lists numbers of text tokens and (height, width) in patches."""
  rng = np.random.default_rng(seed)
  merge = config.vision.spatial_merge_size
  ids, grids, patches = [], [], []
  for row in rows:
    tokens, row_grids = [], []
    for part in row:
      if isinstance(part, int):
        tokens += rng.integers(2, TEXT_IDS, part).tolist()
      else:
        height, width = part
        row_grids.append((1, height, width))
        tokens += [VISION_START] + [IMAGE] * (height * width // merge**2) + [VISION_END]
    ids.append(np.array(tokens, np.int32))
    grids.append(np.array(row_grids, np.int64).reshape(-1, 3))
    count = int(grids[-1].prod(axis=1).sum())
    patches.append(rng.standard_normal((count, config.patch_dim)).astype(np.float32))
  return Batch(ids, grids, patches)


def _pad(rows: list[np.ndarray], size: int) -> np.ndarray:
  padded = np.zeros((len(rows), size), np.int32)
  for out, row in zip(padded, rows, strict=True):
    out[: len(row)] = row
  return padded
