"""How long devices wait for data when pictures are slow to prepare, before and after.

    python experiments/speed/waiting.py

Large pictures of noise are decoded, reduced and cut into at most 3,072 patches. The consumer stands
for the devices: it takes a batch, then sleeps for a step, which leaves the cores to the host. A
step takes twice as long as preparing a batch, so that nobody need ever wait. Both sides read the
same records. Ends with one JSON line:

- `waiting`: mean seconds that a step after the first waits for its examples, with the pipeline as
  it is: a whole batch is prepared ahead, by as many threads as there are cores.
- `waiting_before`: the same as preparation was before: four examples ahead, by two threads.
- `collate`: seconds to make a batch of the examples, which the train loop does after it waited.
- `prepare`: seconds that a batch takes, collated, where nobody sleeps.
- `step`: seconds of a step.
"""

import itertools
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterator

import grain
import numpy as np
from PIL import Image

from sejax import config as config_lib
from sejax.config import parts
from sejax.data import batches, pipeline, prepare, records
from sejax.models import qwen2_5_vl as qwen

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from tests.models import qwen_directory

WIDTH, HEIGHT = 3000, 2000
FILES = 16  # distinct pictures
MAX_PIXELS = 3072 * 14**2  # Larger ones would give more tokens than a prompt may have.
BATCH, STEPS = 16, 4
THREADS_BEFORE, AHEAD_BEFORE = 2, 4


class Pictures:
  """A source of questions about pictures in a folder, which are read anew each time."""

  name = "pictures"

  def __init__(self, folder: pathlib.Path):
    """Writes the pictures."""
    rng = np.random.default_rng(0)
    self._paths = [folder / f"{number}.png" for number in range(FILES)]
    for path in self._paths:
      pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
      Image.fromarray(pixels).save(path, compress_level=1)

  def __len__(self) -> int:
    return FILES

  def __getitem__(self, index: int) -> records.Record:
    picture = self._paths[index].read_bytes()
    return records.Record(f"pictures/{index}", "What is it?", (picture,))

  def gold(self, index: int) -> str | None:
    """Returns no answer: nothing here reads one."""
    del index


def batches_before(preparer: prepare.Preparer) -> Iterator[list[prepare.Example]]:
  """Yields batches as they were prepared before."""
  stream = grain.MapDataset.range(len(preparer.source)).shuffle(0).repeat().map(preparer)
  options = grain.ReadOptions(num_threads=THREADS_BEFORE, prefetch_buffer_size=AHEAD_BEFORE)
  examples = iter(stream.to_iter_dataset(options))
  while True:
    yield list(itertools.islice(examples, BATCH))


def mean_seconds(
  stream: Iterator[list[prepare.Example]], collate: batches.Collator, step: float
) -> tuple[float, float]:
  """Returns how long a step waits for its examples and collates them, in the mean.

  Args:
    step: seconds that the consumer sleeps after each batch; the first batch is not counted.
  """
  collate(next(stream))
  waited, collated = 0.0, 0.0
  for _ in range(STEPS):
    time.sleep(step)
    start = time.perf_counter()
    examples = next(stream)
    ready = time.perf_counter()
    collate(examples)
    waited += ready - start
    collated += time.perf_counter() - ready
  return waited / STEPS, collated / STEPS


def main() -> None:
  """Measures both sides and prints them."""
  config = config_lib.default()
  config.data.max_pixels = MAX_PIXELS
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    config.model.path = str(qwen_directory.write(folder))
    preparer = parts.preparer(config, Pictures(folder))
    collate = batches.Collator(
      model=qwen.Qwen25VL.released("7b"),
      dataset=preparer.source.name,
      rows=BATCH,
      buckets=batches.Buckets.of(config.data),
      pad_id=preparer.processor.pad_id,
    )

    def batches_now() -> Iterator[list[prepare.Example]]:
      return pipeline.Pipeline(preparer, pipeline.Options(batch_size=BATCH))

    prepare_seconds = sum(mean_seconds(batches_now(), collate, step=0))
    step = 2 * prepare_seconds
    waiting_before, _ = mean_seconds(batches_before(preparer), collate, step)
    waiting, collate_seconds = mean_seconds(batches_now(), collate, step)
    result = {
      "waiting_before": waiting_before,
      "waiting": waiting,
      "collate": collate_seconds,
      "prepare": prepare_seconds,
      "step": step,
    }
  print(json.dumps({key: round(value, 3) for key, value in result.items()}))


if __name__ == "__main__":
  main()
