"""What a workdir in a bucket costs: the same run on a disk and in a bucket.

    python -m experiments.speed.buckets [--steps=200]

Trains the tiny model, with small batches so that steps are short, on this machine's disk and in a
bucket that a server on this machine stands for (`tests/buckets.py`), in turns, after a run that
compiles. Steps are timed without the first ten. A real bucket answers more slowly: what counts is
how often it is asked. Ends with one JSON line:

- `overhead`: time of a step in the bucket over that on the disk, less 1.
- `objects`, `megabytes`: that the run left in the bucket, and `of_checkpoints` among them.
- `requests`: that the server was asked in the run; `writes` among them.
"""

import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

import fsspec
from absl import app, flags

from sejax.monitoring import writers
from tests import buckets

_STEPS = flags.DEFINE_integer("steps", 200, "Of each run.", lower_bound=20)

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_CHANGES = {
  "batch_size": 4,
  "mini_batch_size": 2,
  "group_size": 4,
  "train.micro_batch_size": 2,
  "model.unroll": False,
  "eval.num_problems": 0,
  "checkpoint.every": 20,
  "checkpoint.keep": 1000,  # so that what was written is counted
  "log.compilation_cache": False,
}
_SKIPPED = 10  # steps that compile


def run(workdir: str, steps: int, cache: str) -> list[float]:
  """Trains; returns the seconds of each step but the first ones."""
  command = [sys.executable, "-m", "sejax.main", f"--config={_ROOT / 'configs' / 'tiny.py'}"]
  command += [f"--config.{name}={value}" for name, value in _CHANGES.items()]
  command += [f"--config.train.steps={steps}", f"--workdir={workdir}"]
  environment = os.environ | {
    "JAX_COMPILATION_CACHE_DIR": cache,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }
  subprocess.run(command, check=True, cwd=_ROOT, env=environment, capture_output=True)
  lines = writers.read(f"{workdir}/{writers.TIMING}")
  return [line["total_seconds"] for line in lines][_SKIPPED:]


def main(argv: list[str]) -> None:
  """Runs, counts and prints."""
  del argv
  with tempfile.TemporaryDirectory() as folder, buckets.serve(log=f"{folder}/log") as variables:
    os.environ.update(variables)
    cache, disk, bucket = f"{folder}/cache", f"{folder}/run", f"{buckets.make(variables)}/run"
    run(f"{folder}/first", 20, cache)
    on_disk = run(disk, _STEPS.value, cache)
    asked_before = len(pathlib.Path(f"{folder}/log").read_text().splitlines())
    in_bucket = run(bucket, _STEPS.value, cache)
    log = pathlib.Path(f"{folder}/log").read_text().splitlines()[asked_before:]
    found = fsspec.filesystem("gs").find(bucket, detail=True)
  seconds = {"disk": statistics.mean(on_disk), "bucket": statistics.mean(in_bucket)}
  for name, value in seconds.items():
    print(f"{name:>8} {value:7.3f} s a step")
  saved = [x["size"] for name, x in found.items() if "/checkpoints/" in name]
  print(
    json.dumps(
      {
        "steps": _STEPS.value,
        "overhead": round(seconds["bucket"] / seconds["disk"] - 1, 4),
        "objects": len(found),
        "megabytes": round(sum(x["size"] for x in found.values()) / 1e6, 2),
        "of_checkpoints": {"objects": len(saved), "megabytes": round(sum(saved) / 1e6, 2)},
        "requests": len(log),
        "writes": sum(bool(re.search(r"\b(POST|PUT|DELETE)\b", line)) for line in log),
      }
    )
  )


if __name__ == "__main__":
  app.run(main)
