"""What the data pipeline is worth: against transformers' processor called in a loop.

    python experiments/speed/data.py --data=DIR

`DIR` is a set in hub form, such as Geometry3K. Both sides decode the same records, bring their
images into the released run's pixel range, cut them into patches and tokenize the Actor's prompt
with Qwen's real vocabulary; the pipeline also tokenizes the Judge's prompt and pads batches of 16.
Each figure is the best of several passes after a warm-up. Ends with one JSON line:

- `vs_transformers`: records/s of the pipeline without workers over those of the loop.
- `vs_transformers_workers`: the same with two worker processes, started before the clock.
- `memory_growth`: resident memory after three further epochs over that after the first.
"""

import argparse
import json
import pathlib
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator

import transformers
from stopwatch import best_seconds

from sejax import config as config_lib
from sejax.config import parts
from sejax.data import batches, images, pipeline, prepare, sources
from sejax.models import qwen2_5_vl as qwen
from sejax.text import messages

sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from tests.models import qwen_directory

BATCH, PASSES = 16, 3


def make_pipeline(config, preparer: prepare.Preparer, workers: int) -> Iterator[batches.Batch]:
  """Returns endless batches, as the train loop reads them."""
  options = pipeline.Options(batch_size=BATCH, seed=config.seed, workers=workers)
  buckets = batches.Buckets.of(config.data)
  model = qwen.Qwen25VL.released("7b")
  collate = batches.Collator(
    model=model,
    dataset=preparer.source.name,
    rows=BATCH,
    buckets=buckets,
    pad_id=preparer.processor.pad_id,
  )
  return map(collate, pipeline.Pipeline(preparer, options))


def by_transformers(processor: transformers.ProcessorMixin, source: sources.Source) -> None:
  """Reads the whole set by transformers' processor, one record after the other."""
  for index in range(len(source)):
    record = source[index]
    decoded = [images.decode(data) for data in record.images]
    turn = messages.actor_messages(record.question, len(decoded))
    text = processor.apply_chat_template(turn, add_generation_prompt=True)
    processor(text=[text], images=decoded, return_tensors="np")


def best(step: Callable[[], None]) -> float:
  """Returns the seconds of the fastest of several passes."""
  return best_seconds({"pass": step}, PASSES)["pass"]


def resident_mib() -> float:
  """Returns the memory that this process holds now."""
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
  return pages * resource.getpagesize() / 2**20


def main() -> None:
  """Measures both sides and prints them."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--data", required=True, help="a set in hub form")
  arguments = parser.parse_args()
  config = config_lib.default()
  config.data.update(source="parquet", path=arguments.data)
  source = sources.open_source(config.data)
  with tempfile.TemporaryDirectory() as name:
    directory = qwen_directory.write(pathlib.Path(name))
    config.model.path = str(directory)
    preparer = parts.preparer(config, source)
    reference = qwen_directory.reference(directory)
    reference.image_processor = preparer.processor.image_processor
    count = len(source) // BATCH * BATCH

    def epoch(stream):
      for _ in range(count // BATCH):
        next(stream)

    seconds = {"transformers": best(lambda: by_transformers(reference, source)) / len(source)}
    stream = make_pipeline(config, preparer, workers=0)
    seconds["pipeline"] = best(lambda: epoch(stream)) / count
    before = resident_mib()
    for _ in range(3):
      epoch(stream)
    growth = resident_mib() / before
    stream = make_pipeline(config, preparer, workers=2)
    seconds["2 workers"] = best(lambda: epoch(stream)) / count
  for side, value in seconds.items():
    print(f"{side:<14}{1 / value:8.1f} records/s")
  result = {
    "vs_transformers": seconds["transformers"] / seconds["pipeline"],
    "vs_transformers_workers": seconds["transformers"] / seconds["2 workers"],
    "memory_growth": growth,
  }
  print(json.dumps({name: round(value, 3) for name, value in result.items()}))


if __name__ == "__main__":
  main()
