"""Opens the data source that `config.data` describes: figures, jsonl, parquet or tfds."""

from collections.abc import Callable

import ml_collections

from sejax import storage
from sejax.data.records import Source
from sejax.errors import OptionError, quoted


def open_source(data: ml_collections.ConfigDict) -> Source:
  """Opens the source that a section `config.data` describes.

  Args:
    data: `source` is a key of `SOURCES`; `path`, `split`, `name` and `image_folder` are used where
      the source needs them.

  Raises:
    ValueError: the source is unknown or cannot be opened.
  """
  check(data)
  return SOURCES[data.source](data)


def check(data: ml_collections.ConfigDict) -> None:
  """Validates `data.source` and `data.path` without opening files.

  Raises:
    OptionError: the source is unknown, or needs a path and has none.
  """
  if data.source not in SOURCES:
    raise OptionError("data.source", data.source, f"one of {', '.join(sorted(SOURCES))}")
  if data.source != "figures" and not data.path:
    wanted = f"a file or directory for source={quoted(data.source)}"
    raise OptionError("data.path", data.path, wanted)


# Each source is imported only when it is used, because some imports (tfds) take seconds.


def _figures(data: ml_collections.ConfigDict) -> Source:
  from sejax.data import figures

  return figures.source(data.split, **data.figures)


def _parquet(data: ml_collections.ConfigDict) -> Source:
  from sejax.data import parquet

  return parquet.ParquetSource.open(
    storage.Path(data.path), split=data.split, name=data.name, folder=_folder(data)
  )


def _jsonl(data: ml_collections.ConfigDict) -> Source:
  from sejax.data import jsonl

  return jsonl.JsonlSource(storage.Path(data.path), name=data.name, folder=_folder(data))


def _tfds(data: ml_collections.ConfigDict) -> Source:
  from sejax.data import tfds

  return tfds.TfdsSource(data.path, data.name, data.split)


def _folder(data: ml_collections.ConfigDict) -> storage.Path | None:
  return storage.Path(data.image_folder) if data.image_folder else None


SOURCES: dict[str, Callable[[ml_collections.ConfigDict], Source]] = {
  "figures": _figures,
  "jsonl": _jsonl,
  "parquet": _parquet,
  "tfds": _tfds,
}
