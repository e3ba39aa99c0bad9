"""Patches equal those of transformers' image processor bit for bit."""

import json

import numpy as np
import PIL.Image
import pytest

from sejax.data import images
from sejax.models.processor import Processor
from tests import real_data
from tests.models import qwen_directory

pytestmark = pytest.mark.long


@pytest.fixture(scope="module", params=["published", "other"])
def processor(request, tmp_path_factory):
  """Processors with the published mean and standard deviation, and with others."""
  directory = qwen_directory.write(tmp_path_factory.mktemp("model"))
  if request.param == "other":
    settings = qwen_directory.PREPROCESSOR | {
      "image_mean": [0.5, 0.1, 0.9],
      "image_std": [0.3, 0.25, 0.7],
      "patch_size": 7,
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(settings))
  return Processor.load(directory, max_pixels=262_144)


def check(processor: Processor, images: list[PIL.Image.Image]) -> None:
  found = processor.images(images)
  expected = processor.image_processor.preprocess(images, return_tensors="np")
  np.testing.assert_array_equal(found.grids, expected["image_grid_thw"])
  np.testing.assert_array_equal(
    found.patches.view(np.uint32), np.asarray(expected["pixel_values"], np.float32).view(np.uint32)
  )


def test_pictures_of_many_sizes(processor):
  rng = np.random.default_rng(0)
  sizes = [
    (56, 56),
    (1, 1),
    (26, 28),
    (300, 200),
    (31, 639),
    (1000, 700),
    *rng.integers(8, 400, (9, 2)),
  ]
  for width, height in sizes:
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    check(processor, [PIL.Image.fromarray(pixels)])


def test_several_pictures_of_one_prompt(processor):
  check(processor, [PIL.Image.new("RGB", size, "olive") for size in ((64, 64), (128, 60))])


@real_data.needed
def test_every_real_picture(tmp_path):
  # Small, so that transformers takes a few milliseconds for each.
  processor = Processor.load(qwen_directory.write(tmp_path), max_pixels=50_176)
  files = real_data.image_files()
  assert len(files) > 1000
  for file in files:
    check(processor, [images.decode(file.read_bytes())])
