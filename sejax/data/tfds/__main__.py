"""Builds a training set: `python -m sejax.data.tfds --name=geometry3k --source=DIR --data_dir=DIR`.

`--source` is the directory of the downloaded hub repository, with its files in `data/`. To train on
the result, set `config.data.source = "tfds"`, `config.data.path` to the data directory and
`config.data.name` to the name.
"""

import argparse
import sys
from collections.abc import Sequence

from sejax import storage
from sejax.data.tfds import builders
from sejax.text import terminal


def main(argv: Sequence[str] | None = None) -> int:
  """Builds a data set and prints its splits; returns the exit status."""
  terminal.prepare()
  parser = argparse.ArgumentParser(prog="python -m sejax.data.tfds", description=__doc__)
  parser.add_argument("--name", required=True, choices=sorted(builders.BUILDERS))
  parser.add_argument("--source", required=True, type=storage.Path)
  parser.add_argument("--data_dir", required=True, type=storage.Path)
  parser.add_argument("--any_counts", action="store_true", help="accept other than released sizes")
  parser.add_argument("--on_bad_record", default="stop", choices=builders.ON_BAD_RECORD)
  arguments = parser.parse_args(argv)
  try:
    info = builders.build(**vars(arguments))
  except (ValueError, OSError) as error:
    print(f"sejax: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
  for split in info.splits.values():
    print(f"{info.name} {split.name}: {split.num_examples} records")
  return 0


if __name__ == "__main__":
  sys.exit(main())
