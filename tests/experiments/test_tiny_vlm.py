"""The bundled model: its files, its logits by transformers, and what its card says of it."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import safetensors
import torch
import transformers

from configs import tiny
from experiments.tiny_vlm import abilities
from sejax import assets, models
from sejax.data import figures
from sejax.models import qwen2_5_vl as qwen
from sejax.models.processor import Processor
from sejax.text import messages, prompts

pytestmark = pytest.mark.long

DIRECTORY = pathlib.Path(assets.TINY_VLM)


def test_the_weights_are_small_and_in_bf16():
  file = DIRECTORY / "model.safetensors"
  assert file.stat().st_size <= 8 * 2**20
  with safetensors.safe_open(file, "numpy") as tensors:
    assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"BF16"}  # noqa: SIM118


def test_vision_blocks_of_both_kinds_and_a_tied_head():
  config, _ = models.load(DIRECTORY)
  assert config.tie_word_embeddings
  assert 0 < len(config.vision.fullatt_block_indexes) < config.vision.depth


@pytest.fixture(scope="module")
def torch_model():
  kind = transformers.Qwen2_5_VLForConditionalGeneration
  return kind.from_pretrained(DIRECTORY, dtype=torch.float32).eval()


@pytest.mark.parametrize("role", ["actor", "judge"])
def test_logits_equal_transformers(torch_model, role):
  config, params = models.load(DIRECTORY, dtype=jnp.float32)
  processor = Processor.load(DIRECTORY)
  source = figures.source("heldout", length=3, families=dict.fromkeys(figures.LEARNABLE, 1.0))
  for problem in map(source.problem, range(3)):
    patches, grids = processor.images([PIL.Image.fromarray(problem.image)])
    if role == "actor":
      asked = messages.actor_messages(problem.question, 1, "")
      ids = np.concatenate(
        [processor.prompt(asked, grids).ids, processor.encode_text(problem.solution)]
      )
    else:
      asked = messages.judge_messages(problem.question, 1, prompts.JUDGE_SYSTEM_SHORT)
      prompt = processor.prompt(asked, grids)
      ids = np.concatenate(
        [prompt.ids, processor.tokenize_candidate(prompt.tail, problem.solution)]
      )
    lengths = np.array([ids.size], np.int32)
    positions = config.prompt_positions(ids[None], lengths, [grids])
    images = qwen.pack_images(config.vision, [patches], [grids], len(patches))
    features = config.encode(params, images)
    _, logits = config.prefill(params, models.Prompt(ids[None], lengths, positions), features)

    tokens = torch.from_numpy(ids[None]).long()
    with torch.no_grad():
      expected = torch_model(
        input_ids=tokens,
        mm_token_type_ids=(tokens == config.image_token_id).int(),
        pixel_values=torch.from_numpy(patches),
        image_grid_thw=torch.from_numpy(grids),
      ).logits[:, -1]
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-4, rtol=0)


@pytest.mark.long
def test_the_card_says_what_is_measured():
  line = next(
    line
    for line in (DIRECTORY / "README.md").read_text(encoding="utf-8").splitlines()
    if line.startswith('{"pass_at_1"')
  )
  card = json.loads(line)
  measured, _ = abilities.measure(tiny.get_config(), 128)
  for name, estimate in measured.items():
    # Four standard errors of both: 128 figures are an eighth of the card's.
    within = 4 * np.hypot(estimate.error, card["errors"][name]) + 0.01
    assert abs(estimate.value - card[name]) < within, (name, estimate, card[name])
