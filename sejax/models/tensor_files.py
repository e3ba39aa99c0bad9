"""Reads safetensors files as memory-mapped arrays, so that a shard of a tensor can be read alone.

A file holds the length of its JSON header in eight bytes, the header, and the bytes of the tensors
(https://huggingface.co/docs/safetensors). A tensor is returned as a view of the mapped file, so the
only memory that is allocated is the shard that a caller copies from it.

Why not `safe_open(...).get_slice` of the safetensors package: it returns copies, which have to be
transposed and cast afterwards. Measured on eight shards of each weight matrix of a 7B model's layer
(50 MB): slices of 256 rows took the same time but up to 2.4 MB beside the shard, where views take
4 kB; slices of 16 kB took 25 kB beside it, and twice the time.
"""

import json
import posixpath
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from sejax import storage
from sejax.errors import quoted

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"

_DTYPES = {"F32": np.float32, "BF16": jnp.bfloat16, "F16": np.float16}


class StoredTensor(NamedTuple):
  """Location, type and shape of a tensor in a safetensors file.

  Attributes:
    file: path of the file.
    name: the tensor's name in the file.
    dtype: safetensors' name of the element type, such as `BF16`.
    shape: shape in the file.
    start: offset of the tensor's first byte in the file.
  """

  file: storage.Path
  name: str
  dtype: str
  shape: tuple[int, ...]
  start: int

  @property
  def nbytes(self) -> int:
    """Size of the tensor in its file, in bytes."""
    return int(np.prod(self.shape)) * np.dtype(_DTYPES[self.dtype]).itemsize

  def view(self) -> Shaped[np.ndarray, "..."]:
    """Returns a read-only memory map of the elements; the file is read as they are accessed."""
    return np.memmap(self.file, _DTYPES[self.dtype], "r", self.start, self.shape)


def read_directory(directory: storage.Path) -> dict[str, StoredTensor]:
  """Lists the tensors of a model directory, by name.

  The directory holds a single weights file, or several files and an index.

  Raises:
    ValueError: weights are missing, a file is damaged or no safetensors file, a tensor does not
      hold floats, or two files hold the same tensor. The message names the file and the tensor.
  """
  file_of = _files_by_tensor(directory)
  tensors = {}
  for file in sorted({*file_of.values()} or {directory / WEIGHTS}):
    for name, tensor in read_header(file)[0].items():
      if name in tensors:
        raise ValueError(f"tensor {name} is both in {tensors[name].file} and in {file}")
      tensors[name] = tensor
  for name, file in file_of.items():
    if name not in tensors or tensors[name].file != file:
      raise ValueError(f"tensor {name} is missing from {file}, where {INDEX} puts it")
  return tensors


def read_header(file: storage.Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
  """Reads the header of a safetensors file.

  Returns:
    The tensors of the file by name, and its metadata.

  Raises:
    ValueError: the file is damaged or no safetensors file, or a tensor does not hold floats.
  """
  size = file.stat().length
  with file.open("rb") as stream:
    data_start = 8 + int.from_bytes(stream.read(8), "little")
    if not 8 < data_start <= size:
      raise ValueError(f"{file} has no whole safetensors header in its {size} bytes")
    header = parse_json(stream.read(data_start - 8), file)
  metadata = header.pop("__metadata__", {})
  tensors = {
    name: _parse_tensor(file, name, data_start, size, entry) for name, entry in header.items()
  }
  end, before = data_start, "the header"
  for tensor in sorted(tensors.values(), key=lambda tensor: tensor.start):
    if tensor.start != end:
      raise ValueError(f"tensor {tensor.name} in {file} does not begin where {before} ends")
    end, before = tensor.start + tensor.nbytes, f"tensor {tensor.name}"
  if end != size:
    raise ValueError(f"{file} has {size} bytes, but its last tensor ends at byte {end}")
  return tensors, metadata


def sort_metadata(file: storage.Path) -> None:
  """Sorts the metadata of a safetensors file in place, so that equal contents give equal bytes.

  The safetensors package writes metadata in random order.
  """
  with open(file, "r+b") as stream:
    size = int.from_bytes(stream.read(8), "little")
    header = parse_json(stream.read(size), file)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    stream.seek(8)
    stream.write(text.ljust(size))


def parse_json(text: str | bytes, file: storage.Path) -> dict[str, Any]:
  """Parses a JSON object.

  Args:
    file: where the text comes from, for the error.

  Raises:
    ValueError: the text is not a JSON object.
  """
  try:
    parsed = json.loads(text)
  except ValueError as error:
    raise ValueError(f"{file} is not valid JSON: {error}") from error
  if not isinstance(parsed, dict):
    raise ValueError(f"{file} must hold a JSON object, not {type(parsed).__name__}")
  return parsed


def _files_by_tensor(directory: storage.Path) -> dict[str, storage.Path]:
  """Returns the file of each tensor according to the index; empty if there is no index."""
  index = directory / INDEX
  if not index.exists():
    if not (directory / WEIGHTS).exists():
      raise ValueError(f"{directory} has neither {WEIGHTS} nor {INDEX}; download one")
    return {}
  weight_map = parse_json(index.read_bytes(), index).get("weight_map")
  if not isinstance(weight_map, dict) or not all(isinstance(x, str) for x in weight_map.values()):
    raise ValueError(f"{index} must hold a weight_map from tensors to files")
  for name in set(weight_map.values()):
    if posixpath.basename(name) != name:
      raise ValueError(
        f"{index} names {quoted(name)}; weights must be files of the directory itself"
      )
    if not (directory / name).exists():
      raise ValueError(
        f"{index} names {name}, which {directory} does not have; download that file again"
      )
  return {tensor: directory / name for tensor, name in weight_map.items()}


def _parse_tensor(
  file: storage.Path, name: str, data_start: int, size: int, entry: dict[str, Any]
) -> StoredTensor:
  """Checks a header's entry of a tensor.

  Args:
    data_start: offset of the first tensor's first byte in the file.
    size: size of the file in bytes.
    entry: the tensor's entry in the header.
  """
  try:
    dtype, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(f"{file} has no type, shape or offsets for tensor {name}") from error
  if not isinstance(dtype, str) or not all(type(n) is int for n in (*shape, start, stop)):
    raise ValueError(
      f"{file} has type {quoted(dtype)}, shape {shape} or offsets amiss for tensor {name}"
    )
  if dtype not in _DTYPES:
    raise ValueError(f"tensor {name} in {file} has type {dtype}; it must be one of {[*_DTYPES]}")
  if start < 0 or stop - start != np.dtype(_DTYPES[dtype]).itemsize * int(np.prod(shape)):
    raise ValueError(
      f"tensor {name} in {file} has type {dtype} and shape {shape}, but bytes {start} to {stop}"
    )
  if data_start + stop > size:
    raise ValueError(
      f"{file} is truncated: it has {size} bytes, and tensor {name} ends at byte"
      f" {data_start + stop}; download it again"
    )
  return StoredTensor(file=file, name=name, dtype=dtype, shape=shape, start=data_start + start)
