"""Compares ids, patches and grids of each family with transformers' processor, on many sizes."""

import io

import numpy as np
import PIL.Image
import pytest

from sejax.data import images
from sejax.models.processor import Processor
from tests.models import qwen_directory, torch_reference

pytestmark = pytest.mark.long

MODES = ("RGB", "L", "P", "RGBA", "LA", "1")
COUNT = 200  # pictures for each family
# Limits in pixels; None is the directory's.
LIMITS = ((None, None), (12_544, 50_176), (None, 70_000))


def draw_pictures() -> list[PIL.Image.Image]:
  """Draws pictures of random modes and sizes, some of them very wide or tall."""
  rng = np.random.default_rng(0)
  pictures = []
  for number in range(COUNT):
    area, ratio = 10 ** rng.uniform(1, 5), 2 ** rng.uniform(-4, 4)
    size = [max(1, round(side)) for side in ((area * ratio) ** 0.5, (area / ratio) ** 0.5)]
    mode = MODES[number % len(MODES)]
    pixels = rng.integers(0, 256, (size[1], size[0], 4 if "A" in mode else 3), np.uint8)
    pictures.append(PIL.Image.fromarray(pixels).convert(mode))
  return pictures


@pytest.fixture(scope="module", params=torch_reference.CLASSES)
def pair(request, tmp_path_factory):
  """A directory of a family, and transformers' processor of it."""
  directory = qwen_directory.write(tmp_path_factory.mktemp(request.param), request.param)
  return directory, qwen_directory.reference(directory, request.param)


def test_pictures_of_random_sizes_and_modes(pair):
  """Each limit takes a third of the pictures, two to a prompt."""
  directory, reference = pair
  pictures = draw_pictures()
  for start, limits in enumerate(LIMITS):
    processor = Processor.load(directory, *limits)
    some = pictures[start :: len(LIMITS)]
    for first, second in zip(some[::2], some[1::2], strict=len(some) % 2 == 0):
      check(processor, reference, [first, second], limits)


def check(processor, reference, pictures, limits):
  files = [io.BytesIO() for _ in pictures]
  for picture, file in zip(pictures, files, strict=True):
    picture.save(file, "PNG")
  found = processor.images([images.decode(file.getvalue()) for file in files])
  image = {"type": "image"}
  question = [image, {"type": "text", "text": "Is it as in "}, image, {"type": "text", "text": "?"}]
  messages = [{"role": "user", "content": question}]
  ids = processor.prompt(messages, found.grids).ids

  rendered = reference.apply_chat_template(messages, add_generation_prompt=True)
  own = reference.image_processor.size
  size = {
    "shortest_edge": limits[0] or own["shortest_edge"],
    "longest_edge": limits[1] or own["longest_edge"],
  }
  expected = reference(text=[rendered], images=pictures, size=size, return_tensors="np")
  np.testing.assert_array_equal(ids, expected["input_ids"][0])
  np.testing.assert_array_equal(found.grids, expected["image_grid_thw"])
  np.testing.assert_array_equal(found.patches, expected["pixel_values"])
  tokens = expected["image_grid_thw"].prod(axis=1).sum() // 4
  assert (ids == processor.image_pad_id).sum() == tokens


def test_banned_ids_come_from_the_tokenizer(pair):
  """The special tokens but those that end a response, and rows of the embedding without a token."""
  directory, reference = pair
  processor = Processor.load(directory)
  tokenizer = reference.tokenizer
  added = tokenizer.added_tokens_decoder
  ends = {"<|im_end|>", "<|endoftext|>"}
  special = {i for i, token in added.items() if token.special and token.content not in ends}
  assert {tokenizer.convert_tokens_to_ids(token) for token in qwen_directory.SPECIAL} >= special
  unused = set(range(max(added) + 1, 151_936))
  assert len(unused) == (267 if "<think>" in tokenizer.get_added_vocab() else 271)
  assert set(processor.banned_ids(151_936).tolist()) == special | unused
