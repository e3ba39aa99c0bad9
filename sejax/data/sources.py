"""The sources by name, and the one that a configuration asks for."""

import pathlib
from collections.abc import Callable

import ml_collections

from sejax.data.records import Source
from sejax.errors import quoted


def open_source(data: ml_collections.ConfigDict) -> Source:
  """Opens the source that the configuration's section `data` describes.

  Args:
    data: `source`, a name of `SOURCES`; and what it needs of `path`, `split`, `name` and
      `image_folder`.

  Raises:
    ValueError: the source is unknown, or cannot be opened as described.
  """
  check(data)
  return SOURCES[data.source](data)


def check(data: ml_collections.ConfigDict) -> None:
  """Refuses a section `data` that names no source; touches no file.

  Raises:
    ValueError: naming the field, its value and what would work.
  """
  if data.source not in SOURCES:
    raise ValueError(f"source={quoted(data.source)} must be one of {', '.join(sorted(SOURCES))}")
  if data.source != "figures" and not data.path:
    raise ValueError(
      f"path={quoted(data.path)} must be a file or directory for source={quoted(data.source)}"
    )


# Each kind is imported when it is asked for: a run pays for its own alone.


def _figures(data: ml_collections.ConfigDict) -> Source:
  from sejax.data import figures

  return figures.source(data.split, **data.figures)


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
