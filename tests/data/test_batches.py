"""Batches: each row is what the record alone gives, and shapes are few."""

import dataclasses

import numpy as np
import pytest

from sejax.data.batches import Buckets, Collator, Sizes
from sejax.data.pipeline import Options, Pipeline
from sejax.data.prepare import Dropped
from sejax.models import qwen2_5_vl as qwen
from sejax.models.qwen2_5_vl.processor import Processor
from sejax.sampling import record_hashes
from sejax.text import prompts
from tests.data.problems import CONFIG, Problems, preparer

BUCKETS = Buckets(prompt=(64, 128, 256, 384, 512, 768), patch=(32, 64, 128))


@pytest.fixture(scope="module")
def examples(directory):
  make = preparer(Problems(6), directory)
  return [make(index) for index in (2, 0, 1, 5)]  # 2, 0, 1 and 2 images


@pytest.fixture(scope="module")
def collator(directory) -> Collator:
  return Collator(CONFIG, "problems", 6, BUCKETS, Processor.load(directory).pad_id)


def test_rows_equal_their_single_runs(examples, collator):
  batch = collator(examples)
  assert batch.record_ids == ("problem-2", "problem-0", "problem-1", "problem-5", "", "")
  np.testing.assert_array_equal(batch.index, [2, 0, 1, 5, -1, -1])
  np.testing.assert_array_equal(batch.real, [True] * 4 + [False] * 2)
  np.testing.assert_array_equal(batch.records, record_hashes("problems", batch.record_ids))
  assert [len(pictures) for pictures in batch.pictures] == [2, 0, 1, 2, 0, 0]
  for row, example in enumerate(examples):
    for prompt, ids in ((batch.actor, example.actor), (batch.judge, example.judge)):
      assert prompt.lengths[row] == len(ids)
      np.testing.assert_array_equal(prompt.ids[row, : len(ids)], ids)
      assert (prompt.ids[row, len(ids) :] == collator.pad_id).all()
      alone = qwen.prompt_positions(CONFIG, ids[None], np.array([len(ids)]), [example.grids])
      np.testing.assert_array_equal(prompt.positions[:, row, : len(ids)], alone[:, 0])
    used = len(example.patches)
    np.testing.assert_array_equal(batch.images.patches[row, :used], example.patches)
    assert (batch.images.image[row] >= 0).sum() == used
    assert batch.images.image[row].max() == len(example.grids) - 1
  assert batch.actor.lengths.tolist()[4:] == [1, 1]


def test_judge_reads_what_the_prompts_say(directory, examples):
  processor = Processor.load(directory)
  example, question = examples[2], examples[2].question
  ids = [*example.judge, *processor.continuation(example.judge_tail, "<think>It</think>")]
  said = processor.decode(ids)
  assert prompts.judge_system() in said
  assert prompts.judge_query(question, "<think>It</think>") in said
  assert prompts.ACTOR_INSTRUCTION not in said
  # The image comes before the question, and both roles see the same one.
  pads = np.flatnonzero(example.judge == processor.image_pad_id)
  assert len(pads) == (example.actor == processor.image_pad_id).sum() == len(example.patches) // 4
  assert "Problem:" in processor.decode(example.judge[pads[-1] + 1 :])


def test_batch_without_images(directory, collator):
  make = preparer(Problems(6), directory)
  assert collator([make(0), make(3)]).images is None


def test_no_answer_in_a_batch(examples, collator):
  assert not [
    name for name in (*collator(examples)._fields, *examples[0]._fields) if "gold" in name
  ]


@pytest.mark.parametrize(
  ("needed", "chosen"),
  [
    (Sizes(1, 1, 0), Sizes(64, 64, 0)),
    (Sizes(64, 65, 32), Sizes(64, 128, 32)),
    (Sizes(65, 768, 33), Sizes(128, 768, 64)),
  ],
)
def test_smallest_bucket_that_holds(needed, chosen):
  assert BUCKETS.choose(needed) == chosen


def test_too_large_for_every_bucket(examples, collator):
  with pytest.raises(ValueError, match="129 does not fit the largest patch bucket, 128"):
    BUCKETS.choose(Sizes(1, 1, 129))
  small = dataclasses.replace(collator, rows=2)
  with pytest.raises(ValueError, match="4 examples do not fit a batch of 2 rows"):
    small(examples)


def test_processes_agree_on_the_largest(examples, collator, monkeypatch):
  monkeypatch.setattr("sejax.parallel.hosts.largest", lambda *own: (200, own[1], 100))
  batch = collator(examples[:1])
  assert batch.actor.ids.shape == (6, 256)
  assert batch.images.patches.shape[:2] == (6, 128)


def test_few_shapes(directory, collator):
  stream = Pipeline(preparer(Problems(40), directory), Options(4))
  collate = dataclasses.replace(collator, rows=4)
  batches = [collate(next(stream)) for _ in range(30)]
  shapes = {(b.actor.ids.shape, b.judge.ids.shape, b.images.patches.shape) for b in batches}
  assert len(shapes) <= 8


@pytest.mark.parametrize(
  ("question", "kind", "message"),
  [
    ("<image> and <image>", "unusable prompt", "says <image> 2 times for 1 images"),
    ("half \ud800", "unusable prompt", "surrogates not allowed"),
  ],
)
def test_prompts_that_cannot_be_made(directory, question, kind, message):
  class Odd(Problems):
    def __getitem__(self, index):
      return dataclasses.replace(super().__getitem__(1), question=question)

  dropped = preparer(Odd(1), directory)(0)
  assert isinstance(dropped, Dropped)
  assert (dropped.id, dropped.kind) == ("problem-1", kind)
  assert message in dropped.message
