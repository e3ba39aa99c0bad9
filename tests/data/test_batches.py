"""Batches of examples: shapes from short lists, rows that only pad, and images of every number."""

import jax
import numpy as np
import pytest

from sejax.data import batches, prepare
from sejax.sampling import record_hashes
from tests.data.problems import Problems, preparer
from tests.models import torch_reference

BUCKETS = batches.Buckets(prompt=(32, 64, 96, 128, 256, 512), patch=(16, 32, 64))


@pytest.fixture(scope="module")
def model():
  return torch_reference.real_vocabulary_config()


@pytest.fixture
def collate(model):
  return lambda rows: batches.Collator(
    model=model, dataset="problems", rows=rows, buckets=BUCKETS, pad_id=151_643
  )


def test_a_batch_holds_its_examples_in_order_and_then_padding(model_directory, collate):
  prepare_one = preparer(Problems(6), model_directory)
  examples = [prepare_one(index) for index in (5, 1, 0)]
  batch = collate(4)(examples)
  assert batch.record_ids == ("p/5", "p/1", "p/0", "")
  assert batch.questions[0] == "What is 5 + 1?"
  assert batch.index.tolist() == [5, 1, 0, -1]
  assert batch.real.tolist() == [True, True, True, False]
  np.testing.assert_array_equal(
    batch.record_hashes[:3], record_hashes("problems", ["p/5", "p/1", "p/0"])
  )
  assert [len(files) for files in batch.image_files] == [2, 1, 0, 0]
  for role, field in ((batch.actor, "actor"), (batch.judge, "judge")):
    lengths = [len(getattr(example, field)) for example in examples]
    assert role.lengths.tolist() == [*lengths, 1]
    assert role.ids.shape[1] == min(size for size in BUCKETS.prompt if size >= max(lengths))
    for row, example in enumerate(examples):
      np.testing.assert_array_equal(
        role.ids[row, : lengths[row]], getattr(example, field), strict=True
      )


def test_no_field_of_a_batch_holds_the_answer(model_directory, collate):
  class Tell(Problems):
    def gold(self, index):
      return "GOLD"

  batch = collate(1)([preparer(Tell(1), model_directory)(0)])
  assert "GOLD" not in repr(batch)


@pytest.mark.long
def test_rows_with_0_1_and_2_images_are_each_as_if_alone(model_directory, collate, model):
  params = model.init(jax.random.key(0))

  @jax.jit
  def read(params, images, prompt):
    features = model.encode(params, images)
    return model.prefill(params, prompt, features)[0].last_hidden

  examples = [preparer(Problems(6), model_directory)(index) for index in (5, 0, 1)]
  together = collate(3)(examples)
  assert together.packed_images.lengths.shape == (3, 2)
  hidden = np.asarray(read(params, together.packed_images, together.actor))
  for row, example in enumerate(examples):
    alone = collate(1)([example])
    images = alone.packed_images or jax.tree.map(
      lambda x, r=row: x[r : r + 1], together.packed_images
    )
    np.testing.assert_allclose(read(params, images, alone.actor)[0], hidden[row], atol=2e-5)


def test_sizes_are_the_smallest_that_hold_the_longest_row():
  assert BUCKETS.choose(batches.Sizes(32, 33, 16)) == (32, 64, 16)
  assert BUCKETS.choose(batches.Sizes(1, 200, 0)) == (32, 256, 0)
  with pytest.raises(ValueError, match="513 does not fit the largest prompt bucket, 512"):
    BUCKETS.choose(batches.Sizes(513, 1, 0))


def test_text_only_batches_have_no_images(model_directory, collate):
  batch = collate(2)([preparer(Problems(1), model_directory)(0)])
  assert batch.packed_images is None


def test_more_examples_than_rows_are_refused(model_directory, collate):
  example = preparer(Problems(1), model_directory)(0)
  assert isinstance(example, prepare.Example)
  with pytest.raises(ValueError, match="2 examples do not fit a batch of 1 rows"):
    collate(1)([example, example])
