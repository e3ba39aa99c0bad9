"""Data sets as the Hugging Face hub stores them: parquet files with the images inside."""

import bisect
import collections
import itertools
import re
import threading
from collections.abc import Collection, Sequence
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from sejax import storage
from sejax.data import columns
from sejax.data.records import BadRecord, Record
from sejax.errors import quoted, shortened

# Limit on cached row groups, in bytes of Arrow memory. The published training sets fit completely;
# shuffled access to a larger set reads one row group per record.
CACHE_BYTES = 256 * 2**20

# train.parquet, train-00000-of-00002.parquet, train-00000-of-00002-0123abcd.parquet
_SHARD = re.compile(r"(?P<split>.*?)(-(?P<shard>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]+)?)?\.parquet")

# 0000.parquet, in a folder named after the split
_NUMBERED = re.compile(r"(\d{4,})\.parquet")
_NO_SUBSET = ("data", "default")


class ParquetSource:
  """Source of the records in parquet files; reads and caches whole row groups.

  A record's id is `<prefix>/<row>`, where rows are counted across all files in order. It therefore
  does not depend on how rows are spread over files and row groups.
  """

  def __init__(
    self, files: Sequence[storage.Path], *, name: str, prefix: str, folder: storage.Path
  ):
    """Reads the metadata of the files, but no rows.

    Args:
      files: in the order in which rows are counted.
      name: name of the data set.
      prefix: first part of the record ids.
      folder: base of relative image paths.

    Raises:
      ValueError: a file is not a parquet file or lacks the text or the image column.
    """
    self.name = name
    self._prefix, self._folder = prefix, folder
    self._row_groups: list[tuple[storage.Path, int]] = []  # file, and index of the row group in it
    self._starts = [0]  # index of each row group's first row, and the total number of rows
    for path in files:
      metadata = _check_columns(path)
      for number in range(metadata.num_row_groups):
        self._row_groups.append((path, number))
        self._starts.append(self._starts[-1] + metadata.row_group(number).num_rows)
    self._reset_cache()

  @classmethod
  def open(
    cls, path: storage.Path, *, split: str, name: str = "", folder: storage.Path | None = None
  ) -> Self:
    """Opens a single file, or one split of a directory as downloaded from the hub.

    Args:
      path: a file, or a directory that `split_files` understands.
      split: the split to read from a directory, as `subset/split` if the directory has several
        subsets; ignored for a file.
      name: name of the data set; by default the directory's name or the file's stem.
      folder: base of relative image paths; by default the directory, or the file's folder.

    Raises:
      ValueError: there is no such file, split or column, or a shard is missing.
    """
    if path.is_file():
      shard = _SHARD.fullmatch(path.name)
      is_only_shard = shard is not None and shard["count"] in (None, "00001")
      prefix = shard["split"] if is_only_shard else path.stem
      return cls([path], name=name or path.stem, prefix=prefix, folder=folder or path.parent)
    files = split_files(path)
    split = _resolve_split(path, split, files)
    _check_shards(path, split, files[split])
    name = name or storage.absolute(path).name
    return cls(files[split], name=name, prefix=split, folder=folder or path)

  def __len__(self) -> int:
    return self._starts[-1]

  def __repr__(self) -> str:
    return f"ParquetSource(name={self.name!r}, split={self._prefix!r}, records={len(self)})"

  def __getitem__(self, index: int) -> Record:
    record_id, row = self._row(index)
    return columns.read_record(record_id, row, self._folder)

  def gold(self, index: int) -> str | None:
    """Returns the gold answer of a record, or None if it has none; see `columns.read_gold`."""
    return columns.read_gold(*self._row(index))

  def __getstate__(self) -> dict[str, Any]:
    return {k: v for k, v in self.__dict__.items() if k not in ("_lock", "_cache")}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)
    self._reset_cache()

  def _reset_cache(self) -> None:
    """Empties the cache, which is neither pickled nor shared between processes."""
    self._lock = threading.Lock()
    self._cache: collections.OrderedDict[int, pa.Table] = collections.OrderedDict()

  def _row(self, index: int) -> tuple[str, dict[str, Any]]:
    """Returns a record's id and its row."""
    if not 0 <= index < len(self):
      raise IndexError(f"{self!r} has no record {index}")
    record_id = f"{self._prefix}/{index}"
    group = bisect.bisect_right(self._starts, index) - 1
    row = index - self._starts[group]
    try:
      with self._lock:  # one thread at a time, so that no evicted row group is still in use
        table = self._table(group)
        return record_id, {name: table[name][row].as_py() for name in table.column_names}
    except (pa.ArrowException, OSError) as error:
      raise BadRecord("unreadable row group", shortened(error), record_id) from None

  def _table(self, group: int) -> pa.Table:
    """Returns a row group from the cache, reading it and evicting the least recently used."""
    if group not in self._cache:
      path, number = self._row_groups[group]
      with pq.ParquetFile(path) as file:
        self._cache[group] = file.read_row_group(
          number, columns.record_columns(file.schema_arrow.names), use_threads=False
        )
    self._cache.move_to_end(group)
    while len(self._cache) > 1 and self._cached_bytes() > CACHE_BYTES:
      self._cache.popitem(last=False)
    return self._cache[group]

  def _cached_bytes(self) -> int:
    return sum(table.nbytes for table in self._cache.values())


def split_files(path: storage.Path) -> dict[str, list[storage.Path]]:
  """Finds the parquet files of a downloaded hub repository, sorted by name, for each split.

  A split in the folder of a subset is named `subset/split`. Each of these paths belongs to the
  split `en/train` (the last is the form of the hub's automatic conversions):

      en/train-00000-of-00001.parquet   data/en/train.parquet   en/train/0000.parquet

  The folders `data` and `default` are not subsets.

  Raises:
    ValueError: the directory has no parquet files.
  """
  patterns = [f"{'*/' * depth}*.parquet" for depth in range(4)]
  found = itertools.chain.from_iterable(storage.glob(path, pattern) for pattern in patterns)
  splits = collections.defaultdict(list)
  for file in sorted(filter(storage.Path.is_file, found)):
    *folders, name = file.relative_to(path).parts
    if any(folder.startswith(".") for folder in folders):
      continue
    folders = [folder for folder in folders if folder not in _NO_SUBSET]
    if not (folders and _NUMBERED.fullmatch(name)):  # else the last folder names the split
      folders.append(_SHARD.fullmatch(name)["split"])
    splits["/".join(folders)].append(file)
  if not splits:
    raise ValueError(
      f"{shortened(path)} is neither a parquet file nor a directory with files such as"
      " data/train-00000-of-00001.parquet"
    )
  return dict(splits)


def _resolve_split(path: storage.Path, split: str, splits: Collection[str]) -> str:
  """Returns the full name of a split; the subset may be omitted if only one has the split.

  Raises:
    ValueError: no subset has the split, or several have it.
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


def _check_shards(path: storage.Path, split: str, files: Sequence[storage.Path]) -> None:
  """Raises ValueError if shards of a split are missing, or come from different downloads."""
  numbers = [_NUMBERED.fullmatch(file.name) for file in files]
  if all(numbers) and split.rpartition("/")[2] != files[0].stem:
    indices, counts = [int(number[1]) for number in numbers], {len(files)}
  else:
    shards = [_SHARD.fullmatch(file.name) for file in files]
    counts = {int(shard["count"] or 1) for shard in shards}
    indices = [int(shard["shard"] or 0) for shard in shards]
  if len(counts) > 1 or indices != list(range(max(counts))):
    raise ValueError(
      f"split {quoted(split)} of {shortened(path)} should be complete in files numbered from 0; it"
      f" has {shortened(', '.join(file.name for file in files))}"
    )


def _check_columns(path: storage.Path) -> pq.FileMetaData:
  """Returns the metadata of a file that has all required columns.

  Raises:
    ValueError: it is not a parquet file, or lacks the text or the image column.
  """
  try:
    metadata = pq.read_metadata(path)
    names = metadata.schema.to_arrow_schema().names
  except (pa.ArrowException, OSError) as error:
    raise ValueError(f"{shortened(path)} cannot be read as parquet: {shortened(error)}") from None
  if missing := columns.missing_columns(names):
    listed = shortened(", ".join(names))
    raise ValueError(f"{shortened(path)} has the columns {listed}; it needs {' or '.join(missing)}")
  return metadata
