"""Sets in the form of the Hugging Face hub: parquet files with images inside."""

import bisect
import collections
import itertools
import pathlib
import re
import threading
from collections.abc import Collection, Sequence
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from sejax.data import columns
from sejax.data.records import BadRecord, Record
from sejax.errors import quoted, shortened

# Row groups that stay in memory, in bytes as Arrow holds them. The published training sets fit in
# whole; shuffled access to a larger one reads a row group per record.
CACHE_BYTES = 256 * 2**20

# train.parquet, train-00000-of-00002.parquet, train-00000-of-00002-0123abcd.parquet
_SHARD = re.compile(r"(?P<split>.*?)(-(?P<shard>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]+)?)?\.parquet")

# 0000.parquet, in a folder that names the split
_NUMBER = re.compile(r"(\d{4,})\.parquet")
_NO_SUBSET = ("data", "default")


class ParquetSource:
  """Records of parquet files; reads a row group at a time.

  A record's id is `<prefix>/<row>`, rows being counted through the files in their order: it does
  not depend on how the rows are spread over files and row groups.
  """

  def __init__(
    self, files: Sequence[pathlib.Path], *, name: str, prefix: str, folder: pathlib.Path
  ):
    """Reads the files' metadata, no rows.

    Args:
      files: the files in order.
      name: the set's name.
      prefix: how record ids begin.
      folder: what image paths in the rows are relative to.

    Raises:
      ValueError: a file is no parquet file or lacks the text or the image column.
    """
    self.name = name
    self._prefix, self._folder = prefix, folder
    self._groups: list[tuple[pathlib.Path, int]] = []  # file, and number within it
    self._starts = [0]  # of each row group's rows, and the end
    for path in files:
      metadata = _check_columns(path)
      for number in range(metadata.num_row_groups):
        self._groups.append((path, number))
        self._starts.append(self._starts[-1] + metadata.row_group(number).num_rows)
    self._forget()

  @classmethod
  def open(
    cls, path: pathlib.Path, *, split: str, name: str = "", folder: pathlib.Path | None = None
  ) -> Self:
    """Opens a file, or a split of a directory in hub form.

    Args:
      path: a file, or a directory in hub form, see `split_files`.
      split: which files of a directory, with its subset before it where there are several; a single
        file is taken as it is.
      name: the set's name; by default that of the file's stem or the directory.
      folder: what image paths are relative to; by default the directory, or that of the file.

    Raises:
      ValueError: there is no such file, split or column, or a shard is missing.
    """
    if path.is_file():
      shard = _SHARD.fullmatch(path.name)
      whole = shard is not None and shard["count"] in (None, "00001")
      prefix = shard["split"] if whole else path.stem
      return cls([path], name=name or path.stem, prefix=prefix, folder=folder or path.parent)
    files = split_files(path)
    split = _choose(path, split, files)
    _check_shards(path, split, files[split])
    name = name or path.resolve().name
    return cls(files[split], name=name, prefix=split, folder=folder or path)

  def __len__(self) -> int:
    return self._starts[-1]

  def __repr__(self) -> str:
    return f"ParquetSource(name={self.name!r}, split={self._prefix!r}, records={len(self)})"

  def __getitem__(self, index: int) -> Record:
    record_id, row = self._row(index)
    return columns.read_record(record_id, row, self._folder)

  def gold(self, index: int) -> str | None:
    """Returns the answer of a record, see `columns.read_gold`; None where there is none."""
    return columns.read_gold(*self._row(index))

  def __getstate__(self) -> dict[str, Any]:
    return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_cache")}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._forget()

  def _forget(self) -> None:
    """Starts with an empty cache: each process has its own, and no file stays open."""
    self._lock = threading.Lock()
    self._cache: collections.OrderedDict[int, pa.Table] = collections.OrderedDict()

  def _row(self, index: int) -> tuple[str, dict[str, Any]]:
    """Returns a record's id and its row."""
    if not 0 <= index < len(self):
      raise IndexError(f"{self!r} has no record {index}")
    record_id = f"{self._prefix}/{index}"
    place = bisect.bisect_right(self._starts, index) - 1
    row = index - self._starts[place]
    try:
      with self._lock:  # one thread at a time, so that no evicted row group is still in use
        table = self._table(place)
        return record_id, {name: table[name][row].as_py() for name in table.column_names}
    except (pa.ArrowException, OSError) as error:
      said = f"record {shortened(record_id)}: {shortened(error)}"
      raise BadRecord("unreadable row group", said) from None

  def _table(self, place: int) -> pa.Table:
    """Returns a row group from the cache, or reads it and lets the longest unused ones go."""
    if place not in self._cache:
      path, number = self._groups[place]
      with pq.ParquetFile(path) as file:
        self._cache[place] = file.read_row_group(
          number, columns.wanted(file.schema_arrow.names), use_threads=False
        )
    self._cache.move_to_end(place)
    while len(self._cache) > 1 and self._cached_bytes() > CACHE_BYTES:
      self._cache.popitem(last=False)
    return self._cache[place]

  def _cached_bytes(self) -> int:
    return sum(table.nbytes for table in self._cache.values())


def split_files(path: pathlib.Path) -> dict[str, list[pathlib.Path]]:
  """Returns the parquet files of a directory in hub form by split, in the order of their names.

  A split in a subset's folder is named `subset/split`. These are one split, `en/train`:

      en/train-00000-of-00001.parquet   data/en/train.parquet   en/train/0000.parquet

  the last as the hub's own conversions are. The folders `data` and `default` stand for no subset.

  Raises:
    ValueError: there are none.
  """
  found = itertools.chain.from_iterable(path.glob(f"{'*/' * depth}*.parquet") for depth in range(4))
  splits = collections.defaultdict(list)
  for file in sorted(filter(pathlib.Path.is_file, found)):
    *folders, name = file.relative_to(path).parts
    if any(folder.startswith(".") for folder in folders):
      continue
    folders = [folder for folder in folders if folder not in _NO_SUBSET]
    if not (folders and _NUMBER.fullmatch(name)):  # else the last folder names the split
      folders.append(_SHARD.fullmatch(name)["split"])
    splits["/".join(folders)].append(file)
  if not splits:
    raise ValueError(
      f"{shortened(path)} is neither a parquet file nor a directory with files such as"
      " data/train-00000-of-00001.parquet"
    )
  return dict(splits)


def _choose(path: pathlib.Path, split: str, splits: Collection[str]) -> str:
  """Returns the split of a name, which may be that of its only subset.

  Raises:
    ValueError: there is none, or there are several.
  """
  if split in splits:
    return split
  of_subsets = sorted(name for name in splits if name.rpartition("/")[2] == split)
  if len(of_subsets) == 1:
    return of_subsets[0]
  if of_subsets:
    raise ValueError(
      f"{shortened(path)} has {quoted(split)} in {len(of_subsets)} subsets:"
      f" {shortened(', '.join(of_subsets))}; name one as config.data.split or, for held-out"
      " problems, config.eval.split"
    )
  raise ValueError(
    f"{shortened(path)} has no split {quoted(split)}; it has {shortened(', '.join(sorted(splits)))}"
  )


def _check_shards(path: pathlib.Path, split: str, files: Sequence[pathlib.Path]) -> None:
  """Refuses a split with missing shards, or files of two downloads."""
  numbers = [_NUMBER.fullmatch(file.name) for file in files]
  if all(numbers) and split.rpartition("/")[2] != files[0].stem:
    there, counts = [int(number[1]) for number in numbers], {len(files)}
  else:
    shards = [_SHARD.fullmatch(file.name) for file in files]
    counts = {int(shard["count"] or 1) for shard in shards}
    there = [int(shard["shard"] or 0) for shard in shards]
  if len(counts) > 1 or there != list(range(max(counts))):
    raise ValueError(
      f"split {quoted(split)} of {shortened(path)} should be complete in files numbered from 0; it"
      f" has {shortened(', '.join(file.name for file in files))}"
    )


def _check_columns(path: pathlib.Path) -> pq.FileMetaData:
  """Returns a file's metadata.

  Raises:
    ValueError: it is no parquet file, or has no text or image column.
  """
  try:
    metadata = pq.read_metadata(path)
    names = metadata.schema.to_arrow_schema().names
  except (pa.ArrowException, OSError) as error:
    raise ValueError(f"{shortened(path)} cannot be read as parquet: {shortened(error)}") from None
  if missing := columns.missing(names):
    listed = shortened(", ".join(names))
    raise ValueError(f"{shortened(path)} has the columns {listed}; it needs {' or '.join(missing)}")
  return metadata
