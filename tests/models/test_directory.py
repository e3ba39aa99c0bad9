"""A directory loaded by sejax and by transformers: equal logits for the same images and text."""

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import torch
import transformers

from sejax import models
from sejax.models import qwen2_5_vl as qwen
from sejax.models import weights
from sejax.models.processor import Processor
from tests.models import qwen_directory, torch_reference

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  """A tiny random model behind the real vocabulary, exported beside a published processor."""
  config = torch_reference.real_vocabulary_config()
  params = torch_reference.to_params(torch_reference.torch_model(config).state_dict(), config)
  path = tmp_path_factory.mktemp("directory")
  weights.save(params, config, path / "export", source=qwen_directory.write(path / "source"))
  return path / "export"


def test_logits_equal_transformers(directory):
  pixels = np.random.default_rng(0).integers(0, 256, (140, 252, 3), dtype=np.uint8)
  images = [PIL.Image.fromarray(pixels), PIL.Image.new("RGB", (60, 90), "red")]
  parts = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Find x."}]
  messages = [{"role": "user", "content": parts}]

  processor = Processor.load(directory)
  config, params = weights.load(directory, dtype=jnp.float32)
  patches, grids = processor.images(images)
  ids = processor.prompt(messages, grids).ids[None]
  lengths = np.array([ids.shape[1]], np.int32)
  positions = config.prompt_positions(ids, lengths, [grids])
  size = -(-len(patches) // config.vision.window_patches) * config.vision.window_patches
  features = config.encode(params, qwen.pack_images(config.vision, [patches], [grids], size))
  _, logits = config.prefill(params, models.Prompt(ids, lengths, positions), features)

  reference = qwen_directory.reference(directory)
  rendered = reference.apply_chat_template(messages, add_generation_prompt=True)
  inputs = reference(text=[rendered], images=images, return_tensors="pt")
  model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(directory).eval()
  with torch.no_grad():
    expected = model(**inputs).logits[:, -1].numpy()
  assert processor.image_pad_id == config.image_token_id
  np.testing.assert_allclose(logits, expected, atol=2e-5, rtol=0)
