"""Records per second from a parquet file to batches, against transformers' processor in a loop.

    SEJAX_DATA=DIR python experiments/speed/data.py

Reads Geometry3K in hub form, with the released run's pixel range, patches of 14 and the real Qwen
vocabulary. The loop decodes a record's images and calls transformers' processor on the Actor's
prompt; the pipeline does that, tokenizes the Judge's prompt as well, and packs batches. Pipelines
are timed from their first batch on, so that starting worker processes does not count. Ends with
one JSON line:

- `loop`, `pipeline`, `pipeline_2_workers`: records per second, the best of several passes;
- `vs_transformers`: the pipeline without workers over the loop;
- `memory_growth`: resident memory after three more epochs over that after the first.
"""

import dataclasses
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator

import numpy as np
from absl import app, flags

from sejax import config as config_lib
from sejax import messages
from sejax.data import images
from sejax.data.batches import Batch, Buckets, Collator
from sejax.data.pipeline import Options, Pipeline
from sejax.data.prepare import Preparer
from sejax.data.sources import open_source
from tests.data.problems import CONFIG
from tests.models import qwen_directory

_DATA = flags.DEFINE_string(
  "data",
  os.path.join(os.environ.get("SEJAX_DATA", ""), "geometry3k", "hub_form"),
  "Geometry3K in hub form.",
)
ROWS = 16
REPEATS = 3


def main(_) -> None:
  """Measures and prints."""
  with tempfile.TemporaryDirectory() as directory:
    path = qwen_directory.write(pathlib.Path(directory))
    config = config_lib.default()
    config.data.source, config.data.path = "parquet", _DATA.value
    config.model.path = str(path)
    preparer = Preparer.of(config, open_source(config.data))
    buckets = Buckets.of(config.data)
    vision = dataclasses.replace(CONFIG.vision, window_size=112)  # as published
    model = dataclasses.replace(CONFIG, vision=vision)
    collate = Collator(model, "geometry3k", ROWS, buckets, preparer.processor.pad_id)

    def batches(workers: int = 0) -> Iterator[Batch]:
      return map(collate, Pipeline(preparer, Options(ROWS, workers=workers)))

    count = len(preparer.source) // ROWS
    print(f"{len(preparer.source)} records, {count} batches of {ROWS}", flush=True)
    loop, plain, helped = 0.0, 0.0, 0.0
    reference = qwen_directory.Reference.of(path)
    reference.image_processor.size = preparer.processor.image_processor.size
    for _ in range(REPEATS):
      loop = max(loop, transformers_loop(reference, preparer))
      plain = max(plain, rate(batches(), count))
      helped = max(helped, rate(batches(workers=2), count))
      print(f"loop {loop:.1f}/s, pipeline {plain:.1f}/s, 2 workers {helped:.1f}/s", flush=True)
    figures = {
      "loop": round(loop, 1),
      "pipeline": round(plain, 1),
      "pipeline_2_workers": round(helped, 1),
      "vs_transformers": round(plain / loop, 2),
      "memory_growth": round(memory_growth(batches(), count), 3),
    }
    print(json.dumps(figures))


def transformers_loop(reference: qwen_directory.Reference, preparer: Preparer) -> float:
  """Returns the records per second of transformers' processor, one after the other."""
  start = time.perf_counter()
  for index in range(len(preparer.source)):
    record = preparer.source[index]
    pictures = [images.decode(data) for data in record.images]
    asked = messages.actor_messages(record.question, len(pictures))
    text = reference.apply_chat_template(asked, add_generation_prompt=True)
    reference(text=[text], images=pictures or None, return_tensors="np")
  return len(preparer.source) / (time.perf_counter() - start)


def rate(batches: Iterator[Batch], count: int) -> float:
  """Returns the records per second of `count` batches after the first."""
  next(batches)
  start = time.perf_counter()
  for _ in range(count):
    next(batches)
  return count * ROWS / (time.perf_counter() - start)


def memory_growth(batches: Iterator[Batch], count: int) -> float:
  """Returns resident memory after epochs 2 to 4, the largest, over that after the first."""
  resident = []
  for _ in range(4):
    for _ in range(count):
      next(batches)
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    resident.append(pages * os.sysconf("SC_PAGE_SIZE"))
  print("resident MiB after each epoch:", np.array(resident) // 2**20)
  return max(resident[1:]) / resident[0]


if __name__ == "__main__":
  app.run(main)
