"""Loads and saves the weights of a Hugging Face model directory, as safetensors and JSON.

Hugging Face files have one tensor for each layer, with kernels `[out, in]`. The parameter tree has
one array for all layers, with kernels `[..., in, out]`, or `[..., in, 3, out]` where one kernel
makes queries, keys and values. Rotary frequencies in a file are ignored; they are computed from the
configuration.
"""

import contextlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
import tqdm
from flax import traverse_util
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxtyping import Array, DTypeLike

from sejax import storage
from sejax.models.model import Model
from sejax.models.registry import load_config
from sejax.models.tensor_files import (
  INDEX,
  WEIGHTS,
  StoredTensor,
  read_directory,
  read_header,
  sort_metadata,
)
from sejax.models.transformer.params import Params
from sejax.parallel import layouts, processes

# Prefixes of module names in a transformers model -> prefixes in published files. Some checkpoints
# use the former.
_MODULE_PREFIXES = {"model.visual.": "visual.", "model.language_model.": "model."}

# Rows of a tensor that are copied at once. Transposing this many stays within a core's cache and is
# about seven times faster than transposing a whole kernel.
_ROWS_PER_COPY = 256

# Files of a model directory, other than weights and configuration, that `save` copies.
_PROCESSOR_FILES = (
  "added_tokens.json",
  "chat_template.jinja",
  "chat_template.json",
  "generation_config.json",
  "merges.txt",
  "preprocessor_config.json",
  "processor_config.json",
  "special_tokens_map.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "video_preprocessor_config.json",
  "vocab.json",
)

# Written into the header of every weights file, so that `save` recognises its own earlier exports.
_METADATA = {"format": "pt", "writer": "sejax"}

_Bounds = tuple[int, int]  # Start and stop along one axis.


class _Parameter(NamedTuple):
  """An array of the parameter tree and the published tensors that it consists of.

  Attributes:
    path: path in the tree, such as `decoder/layers/q/kernel`.
    shape: shape of the array.
    names: names of its tensors, one for each layer where layers are stacked.
    tensor_shape: shape of each tensor.
    stacked: whether axis 0 runs over layers.
  """

  path: str
  shape: tuple[int, ...]
  names: tuple[str, ...]
  tensor_shape: tuple[int, ...]
  stacked: bool

  @property
  def transposed(self) -> bool:
    """Whether a tensor has the array's first axis last: `[out, in]` for a kernel `[in, out]`."""
    return self.path.endswith("/kernel")

  @property
  def axes(self) -> tuple[int, ...]:
    """Shape of a tensor in the array's axes, of which published files merge some and split others.

    They merge queries, keys and values, and split the inputs of the patch embedding.
    """
    sizes = self.shape[self.stacked :]
    return (*sizes[1:], sizes[0]) if self.transposed else sizes


def load(
  directory: str | os.PathLike,
  mesh: jax.sharding.Mesh | None = None,
  dtype: DTypeLike = jnp.float32,
  *,
  decoding: bool = False,
) -> tuple[Model, Params]:
  """Loads a model directory, as published or as written by `save`.

  Arrays are read shard by shard, and each shard is moved to its device before the next one is read.
  So the host never holds more than one device's shard of one array.

  Args:
    directory: holds `config.json`, nested or flat, and `model.safetensors` or its parts with an
      index. Tensors have their old names (`visual.*`, `model.layers.*`) or their new ones
      (`model.visual.*`, `model.language_model.*`).
    mesh: mesh to shard the arrays over; None places them on the default device.
    dtype: precision of all arrays.
    decoding: shard for decoding instead of training.

  Returns:
    The model and the parameter tree.

  Raises:
    ValueError: a tensor is missing, unknown, truncated, or of the wrong shape or type, or a file is
      unreadable; the message names the tensor and the file.
  """
  if mesh is not None and any(kind != AxisType.Auto for kind in mesh.axis_types):
    raise ValueError(
      f"the mesh has axes of types {mesh.axis_types}; build it with jax.sharding.Mesh(devices,"
      " names), whose axes are Auto"
    )
  directory = storage.Path(directory)
  model = load_config(directory)
  rules = model.decode_layout if decoding else model.layout
  parameters = _parameters(model)
  tensors = _by_short_name(read_directory(directory))
  _check_tensors(directory, model, parameters, tensors)
  arrays = {}
  silent = jax.process_index() > 0
  for parameter in tqdm.tqdm(parameters, "weights", delay=5, leave=False, disable=silent):
    views = [tensors[_short_name(name)].view() for name in parameter.names]
    sharding = mesh and layouts.sharding(mesh, parameter.path, parameter.shape, rules)
    arrays[parameter.path] = _load_array(parameter, views, np.dtype(dtype), sharding)
  return model, traverse_util.unflatten_dict(arrays, sep="/")


def save(
  params: Params,
  model: Model,
  directory: str | os.PathLike,
  source: str | os.PathLike | None = None,
  max_file_bytes: int = 5_000_000_000,
) -> None:
  """Saves a model directory that transformers can load.

  The directory appears whole or not at all: files are written to a temporary one that is renamed at
  the end. In a bucket, `config.json` is removed first and written last, so that a directory without
  it is an interrupted export, which the next one replaces. Every process must call this function;
  process 0 writes.

  Args:
    params: parameter tree; each tensor is saved in the precision of its array.
    directory: directory to write. It may exist if it is empty or an earlier export, also an
      interrupted one, which is replaced.
    source: model directory from which tokenizer, chat template, processor and generation settings
      are copied; None leaves them out.
    max_file_bytes: maximum size of a weights file. Larger weights are split into several files with
      an index. The host holds one file at a time.

  Raises:
    ValueError: the tree does not match the configuration, or the directory holds files that this
      function did not write.
  """
  directory = storage.absolute(directory)
  _check_directory(directory)
  processes.wait_for_all(600)  # Process 0 removes what is in the directory.
  arrays = traverse_util.flatten_dict(params, sep="/")
  parameters = _parameters(model)
  _check_arrays(parameters, arrays)

  if jax.process_index() > 0:  # Takes part in gathering the shards; process 0 writes.
    _write_weights(None, parameters, arrays, max_file_bytes)
    return
  dtype = jnp.result_type(*arrays.values()).name
  with _new_directory(directory) as (local, finish_file):
    _write_weights(local, parameters, arrays, max_file_bytes, finish_file)
    for name in _PROCESSOR_FILES if source else ():
      if (file := storage.Path(source) / name).exists():
        file.copy(local / name)
        finish_file(local / name)
    # Without the version, transformers 5.19 warns of a tokenizer that needs no mending.
    written_by = {
      "dtype": dtype,
      "transformers_version": importlib.metadata.version("transformers"),
    }
    _write_json(local / "config.json", {**model.to_hf(), **written_by})
    finish_file(local / "config.json")


@contextlib.contextmanager
def _new_directory(
  directory: storage.Path,
) -> Iterator[tuple[storage.Path, Callable[[storage.Path], None]]]:
  """Lends a local folder whose files make up a new model directory.

  Yields:
    The folder, and what to call with each of its files as it is complete, the configuration last.
    It moves files to a bucket, so that only one has to fit on the disk.
  """
  if storage.is_remote(directory):
    with tempfile.TemporaryDirectory() as folder:
      if directory.exists():
        (directory / "config.json").unlink(missing_ok=True)
        directory.rmtree()
      yield (
        storage.Path(folder),
        lambda file: storage.upload(file, directory / file.name),
      )
    return
  partial = directory.with_name(f".{directory.name}.partial")
  partial.rmtree(missing_ok=True)
  partial.mkdir(parents=True)
  try:
    yield partial, lambda file: None
    _replace_directory(directory, partial)
  finally:
    partial.rmtree(missing_ok=True)


def _parameters(model: Model) -> list[_Parameter]:
  """Lists the arrays of the parameter tree with the tensors that they consist of."""
  parameters = []
  for path, shape in traverse_util.flatten_dict(model.shapes(), sep="/").items():
    module, leaf = path.rsplit("/", 1)
    name = f"{model.tensor_names[module]}.{'bias' if leaf == 'bias' else 'weight'}"
    stacked = "{}" in name
    parameters.append(
      _Parameter(
        path=path,
        shape=shape,
        names=tuple(name.format(i) for i in range(shape[0])) if stacked else (name,),
        tensor_shape=model.tensor_shape(path, shape[stacked:]),
        stacked=stacked,
      )
    )
  return parameters


def _short_name(name: str) -> str:
  """Returns the name of a tensor without the prefix that only some published files write."""
  for long, short in _MODULE_PREFIXES.items():
    if name.startswith(long):
      return short + name.removeprefix(long)
  return name


def _by_short_name(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
  """Returns tensors by their short names.

  Raises:
    ValueError: two tensors have the same one.
  """
  renamed = {}
  for name, tensor in tensors.items():
    name = _short_name(name)
    if other := renamed.get(name):
      raise ValueError(
        f"{other.name} in {other.file} and {tensor.name} in {tensor.file} are the same tensor"
      )
    renamed[name] = tensor
  return renamed


def _check_tensors(
  directory: storage.Path,
  model: Model,
  parameters: list[_Parameter],
  tensors: Mapping[str, StoredTensor],
) -> None:
  """Checks that the tensors of a directory are those of the configuration, of the same shapes."""
  expected = {_short_name(name): p.tensor_shape for p in parameters for name in p.names}
  names = [name for p in parameters for name in p.names]
  if missing := [name for name in names if _short_name(name) not in tensors]:
    raise ValueError(
      f"tensor {missing[0]} is missing from the weights in {directory}"
      + (f", and so are {len(missing) - 1} others" if len(missing) > 1 else "")
    )
  for name, tensor in tensors.items():
    if name in expected and tensor.shape != expected[name]:
      raise ValueError(
        f"tensor {tensor.name} in {tensor.file} has shape {tensor.shape}; config.json asks for"
        f" {expected[name]}"
      )
    if name == "lm_head.weight" and model.tie_word_embeddings:
      _check_tied_head(tensor, tensors["model.embed_tokens.weight"])
    elif name not in expected and not name.endswith(".inv_freq"):
      raise ValueError(
        f"tensor {tensor.name} in {tensor.file} belongs to no {model.title} of this config.json"
      )


def _check_tied_head(head: StoredTensor, embedding: StoredTensor) -> None:
  """Checks that a head in the files equals the embedding that it is tied to."""
  same = head.shape == embedding.shape and head.dtype == embedding.dtype
  if same:
    ours, theirs = head.view(), embedding.view()
    rows = range(0, len(ours), _ROWS_PER_COPY)
    same = all(
      np.array_equal(ours[i : i + _ROWS_PER_COPY], theirs[i : i + _ROWS_PER_COPY]) for i in rows
    )
  if not same:
    raise ValueError(
      f"tensor {head.name} in {head.file} is not the embedding, but config.json has"
      " tie_word_embeddings; set it to false to use this head"
    )


def _load_array(
  parameter: _Parameter,
  tensors: list[np.ndarray],
  dtype: np.dtype,
  sharding: jax.sharding.Sharding | None,
) -> Array:
  """Loads an array of the parameter tree, one shard after the other."""
  shape = parameter.shape
  if sharding is None:
    whole = [(0, size) for size in shape]
    return jax.block_until_ready(jax.device_put(_read_block(parameter, tensors, dtype, whole)))
  devices = {}
  for device, index in sharding.addressable_devices_indices_map(shape).items():
    bounds = tuple(s.indices(size)[:2] for s, size in zip(index, shape, strict=True))
    devices.setdefault(bounds, []).append(device)
  shards = []
  for bounds, holders in devices.items():
    shards += _put_on_devices(_read_block(parameter, tensors, dtype, bounds), holders)
  return jax.make_array_from_single_device_arrays(shape, sharding, shards)


def _put_on_devices(block: np.ndarray, devices: Sequence[jax.Device]) -> list[Array]:
  """Copies a block to devices and waits, so that the host can free it before reading the next."""
  return jax.block_until_ready([jax.device_put(block, device) for device in devices])


def _read_block(
  parameter: _Parameter, tensors: list[np.ndarray], dtype: np.dtype, bounds: Sequence[_Bounds]
) -> np.ndarray:
  """Reads the part of an array between the bounds of each axis."""
  block = np.empty([stop - start for start, stop in bounds], dtype)
  layers = range(*bounds[0]) if parameter.stacked else [0]
  for part, layer in zip(block if parameter.stacked else [block], layers, strict=True):
    tensor, inner = tensors[layer].reshape(parameter.axes), bounds[parameter.stacked :]
    if parameter.transposed:
      part, inner = np.moveaxis(part, 0, -1), (*inner[1:], inner[0])
    _copy(part, tensor, inner)
  return block


def _copy(block: np.ndarray, tensor: np.ndarray, bounds: Sequence[_Bounds]) -> None:
  """Copies the part of a tensor between the bounds of each axis."""
  (start, stop), inner = bounds[0], bounds[1:]
  if len(inner) > 1:
    for part, whole in zip(block, tensor[start:stop], strict=True):
      _copy(part, whole, inner)
    return
  columns = tuple(slice(*bound) for bound in inner)
  for row in range(start, stop, _ROWS_PER_COPY):
    end = min(row + _ROWS_PER_COPY, stop)
    block[row - start : end - start] = tensor[(slice(row, end), *columns)]


def _check_arrays(parameters: list[_Parameter], arrays: Mapping[str, Array]) -> None:
  """Checks that a parameter tree has the arrays and shapes of the configuration."""
  expected = {parameter.path: parameter.shape for parameter in parameters}
  if missing := sorted(expected.keys() - arrays.keys()):
    raise ValueError(f"the parameter tree lacks {missing[0]}")
  if unknown := sorted(arrays.keys() - expected.keys()):
    raise ValueError(f"the parameter tree has {unknown[0]}, which the configuration does not")
  for path, array in arrays.items():
    if array.shape != expected[path]:
      raise ValueError(
        f"{path} has shape {array.shape}; the configuration asks for {expected[path]}"
      )


def _write_weights(
  directory: storage.Path | None,
  parameters: list[_Parameter],
  arrays: Mapping[str, Array],
  max_file_bytes: int,
  finish_file: Callable[[storage.Path], None] = lambda file: None,
) -> None:
  """Writes weights files, then their index; with None only gathers the tensors from all processes.

  Args:
    finish_file: called with each file as it is complete.
  """
  files = _split_into_files(parameters, arrays, max_file_bytes)
  if len(files) == 1:
    names = [WEIGHTS]
  else:
    names = [f"model-{i:05}-of-{len(files):05}.safetensors" for i in range(1, len(files) + 1)]
    weight_map = {p.names[i]: n for n, file in zip(names, files, strict=True) for p, i in file}
    total = sum(array.nbytes for array in arrays.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
  for name, file in zip(names, files, strict=True):
    if directory is None:
      for p, i in file:
        _tensor_to_host(p, arrays[p.path], i)
      continue
    tensors = {p.names[i]: _tensor_to_host(p, arrays[p.path], i) for p, i in file}
    safetensors.numpy.save_file(tensors, directory / name, metadata=_METADATA)
    sort_metadata(directory / name)
    finish_file(directory / name)
  if directory is not None and len(files) > 1:
    _write_json(directory / INDEX, index)
    finish_file(directory / INDEX)


def _split_into_files(
  parameters: list[_Parameter], arrays: Mapping[str, Array], max_file_bytes: int
) -> list[list[tuple[_Parameter, int]]]:
  """Assigns tensors, each given by its array and layer, to files of limited size."""
  files, room = [], 0
  for parameter in parameters:
    size = arrays[parameter.path].nbytes // len(parameter.names)
    for layer in range(len(parameter.names)):
      if size > room or not files:
        files.append([])
        room = max_file_bytes
      files[-1].append((parameter, layer))
      room -= size
  return files


@jax.jit
def _layer(stack: Array, layer: int) -> Array:
  return stack[layer]  # The index is an argument, so that this compiles once for all layers.


def _tensor_to_host(parameter: _Parameter, array: Array, layer: int) -> np.ndarray:
  """Copies a tensor to the host, gathering its shards from all processes."""
  tensor = _layer(array, layer) if parameter.stacked else array
  if not getattr(tensor, "is_fully_addressable", True):
    everywhere = NamedSharding(tensor.sharding.mesh, PartitionSpec())
    tensor = jax.device_put(tensor, everywhere).addressable_data(0)
  tensor = np.asarray(tensor)
  if parameter.transposed:
    tensor = np.moveaxis(tensor, 0, -1)
  # safetensors' save_file ignores strides.
  return np.ascontiguousarray(tensor.reshape(parameter.tensor_shape))


def _check_directory(directory: storage.Path) -> None:
  """Checks that a directory is absent, empty or an earlier export."""
  if directory.exists() and not (directory.is_dir() and _is_export(directory)):
    raise ValueError(f"{directory} exists and is not an earlier export; choose another directory")


def _is_export(directory: storage.Path) -> bool:
  """Whether a directory is empty, an earlier export, or in a bucket what an interrupted one left.

  An interrupted export has no `config.json`, and may have lost its earlier weights already.
  """
  files = list(directory.iterdir())
  weights = [file for file in files if file.suffix == ".safetensors"]
  other = {file.name for file in files if file not in weights}
  if not other <= {*_PROCESSOR_FILES, "config.json", INDEX}:
    return False
  if not weights:
    return not files or (storage.is_remote(directory) and "config.json" not in other)
  return all(read_header(file)[1].get("writer") == _METADATA["writer"] for file in weights)


def _replace_directory(directory: storage.Path, new: storage.Path) -> None:
  """Moves the directory `new` to `directory`, replacing an earlier export."""
  if not directory.exists():
    new.rename(directory)
    return
  old = directory.with_name(f".{directory.name}.old")
  old.rmtree(missing_ok=True)
  directory.rename(old)
  new.rename(directory)
  old.rmtree()


def _write_json(file: storage.Path, content: Mapping[str, Any]) -> None:
  file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
