"""The sources by name, and the one that a configuration asks for."""

import importlib
import pathlib
from collections.abc import Callable

import ml_collections

from sejax.data.records import Source


def open_source(data: ml_collections.ConfigDict) -> Source:
  """Opens the source that the configuration's section `data` describes.

  Args:
    data: `source`, a name of `SOURCES`; `path`, `split`, `name`, `image_folder`.

  Raises:
    ValueError: the source is unknown, or cannot be opened as described.
  """
  if data.source not in SOURCES:
    raise ValueError(f"config.data.source={data.source!r} must be one of {', '.join(SOURCES)}")
  if data.source != "figures" and not data.path:
    raise ValueError(f"config.data.path is empty; source {data.source!r} needs a file or directory")
  return SOURCES[data.source](data)


# Each kind is imported when it is asked for: a run pays for its own alone.


def _figures(data: ml_collections.ConfigDict) -> Source:
  return importlib.import_module("sejax.data.figures").source(data)


def _parquet(data: ml_collections.ConfigDict) -> Source:
  from sejax.data import parquet

  return parquet.ParquetSource.open(
    pathlib.Path(data.path), split=data.split, name=data.name, folder=_folder(data)
  )


def _jsonl(data: ml_collections.ConfigDict) -> Source:
  from sejax.data import jsonl

  return jsonl.JsonlSource(pathlib.Path(data.path), name=data.name, folder=_folder(data))


def _tfds(data: ml_collections.ConfigDict) -> Source:
  from sejax.data import tfds

  return tfds.TfdsSource(data.path, data.name, data.split)


def _folder(data: ml_collections.ConfigDict) -> pathlib.Path | None:
  return pathlib.Path(data.image_folder) if data.image_folder else None


SOURCES: dict[str, Callable[[ml_collections.ConfigDict], Source]] = {
  "figures": _figures,
  "jsonl": _jsonl,
  "parquet": _parquet,
  "tfds": _tfds,
}
