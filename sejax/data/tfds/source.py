"""Reads a data set that `sejax.data.tfds` has built."""

import os

from sejax.data.records import Record
from sejax.data.tfds.builders import BUILDERS
from sejax.errors import OptionError


class TfdsSource:
  """Source of the records in one split of a built data set."""

  def __init__(self, data_dir: str | os.PathLike, name: str, split: str):
    """Opens a split.

    Args:
      data_dir: directory of all built data sets.
      name: one of `BUILDERS`.
      split: a split, or a part of one in the notation of tfds, such as `train[:90%]`.

    Raises:
      OptionError: there is no such data set.
      ValueError: there is no such split.
    """
    if name not in BUILDERS:
      raise OptionError("data.name", name, f"one of {', '.join(sorted(BUILDERS))}")
    self.name = name
    builder = BUILDERS[name](data_dir=data_dir)
    if not builder.info.splits:
      raise ValueError(
        f"{name} is not built in {data_dir}; run python -m sejax.data.tfds --name={name}"
        f" --source=DOWNLOADED --data_dir={data_dir}"
      )
    self._split = split
    self._examples = builder.as_data_source(split=split)

  def __len__(self) -> int:
    return len(self._examples)

  def __repr__(self) -> str:
    return f"TfdsSource(name={self.name!r}, split={self._split!r}, records={len(self)})"

  def __getitem__(self, index: int) -> Record:
    example = self._example(index)
    return Record(
      example["id"].decode(), example["question"].decode(), tuple(map(bytes, example["images"]))
    )

  def gold(self, index: int) -> str | None:
    """Returns the gold answer of a record, or None if it has none."""
    return self._example(index)["answer"].decode() or None

  def _example(self, index: int) -> dict:
    if not 0 <= index < len(self):
      raise IndexError(f"{self!r} has no record {index}")
    return self._examples[index]
