"""How many rows a role decodes at once, and how large its KV cache may be, by device memory."""

import dataclasses
from collections.abc import Callable, Iterable

import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import DTypeLike

from sejax import models
from sejax.parallel import layouts
from sejax.parallel.programs import ProgramCall, bytes_per_device
from sejax.sampling import Options
from sejax.sampling.request import READ_TOKENS

# Share of memory that is left free: allocators lose some to fragments.
_SPARE = 0.08
# A batch is made smaller until its KV cache holds this share of the tokens that its rows may have.
# Most rows end long before their limits; if too many do not, some are evicted for a while.
_LEAST_SHARE = 0.25


def of_role(
  options: Options,
  calls: Callable[[Options], Iterable[ProgramCall]],
  model: models.Model,
  mesh: Mesh,
  *,
  rows: int,
  memory: int,
  learning: float = 0,
) -> Options:
  """Returns options with `max_concurrent_rows` and `cache_tokens` that fit the memory.

  Args:
    options: of the role; what they give is kept.
    calls: the role's calls with some options, `decode, a token` among them.
    model: with the options of the mesh's devices.
    rows: sequences of a step, over all devices.
    memory: bytes that programs can use on each device.
    learning: bytes that updates need while the role decodes, see `of_gradient`.
  """
  if options.cache_tokens is not None:
    return options
  shards = layouts.row_shards(mesh)
  least = shards if options.max_concurrent_rows is None else options.max_concurrent_rows
  concurrent = min(options.max_concurrent_rows or rows, rows)
  while True:
    chosen = dataclasses.replace(options, max_concurrent_rows=concurrent, cache_tokens=1)
    found = calls(chosen)
    decode = next(call for call in found if call.name.endswith("decode, a token"))
    tokens, longest = _cache_tokens(decode, chosen, model, mesh, memory, learning)
    if tokens >= _LEAST_SHARE * longest * (concurrent // shards) or concurrent <= least:
      break
    concurrent = max(concurrent // 2, least)
  most = longest * (concurrent // shards)
  return dataclasses.replace(
    options,
    max_concurrent_rows=None if concurrent == rows else concurrent,
    cache_tokens=max(min(tokens, most), longest),
  )


def of_gradient(call: ProgramCall, model: models.Model, mesh: Mesh, dtype: DTypeLike) -> float:
  """Estimates the bytes that a micro-batch's gradient needs on each device beside its arguments.

  Args:
    call: of `Updater.add_gradient`.
  """
  _, params, frozen, micro, _ = call.args
  size, text, tensor = jnp.dtype(dtype).itemsize, model.text, mesh.shape.get("tensor", 1)
  tokens = micro.packing.sequence.shape[-1]
  # Weights as they are computed with, and their gradient; the output layer, gathered, likewise.
  weights = 2 * bytes_per_device(params) * size / 4
  if frozen is None:
    weights += 2 * size * text.hidden_size * model.vocab_size / tensor
  # What each layer keeps for its backward pass, and what the pass of one needs.
  kept = size * tokens * text.num_hidden_layers * text.hidden_size
  layer = size * tokens * (8 * text.hidden_size + 4 * text.intermediate_size / tensor)
  logits = 12 * min(tokens, model.logits_chunk) * model.vocab_size / tensor
  return weights + kept + max(layer, logits)


def _cache_tokens(
  decode: ProgramCall,
  options: Options,
  model: models.Model,
  mesh: Mesh,
  memory: int,
  learning: float,
) -> tuple[int, int]:
  """Returns the tokens of a row shard that the KV cache has room for, and those of one sequence.

  Args:
    decode: with a KV cache for one sequence.
  """
  _, _, _, pages, _, batch = decode.args
  shards, tensor = layouts.row_shards(mesh), mesh.shape.get("tensor", 1)
  cache, rows = bytes_per_device(pages), len(batch.sequence) // shards
  longest = len(batch.table.row_of_page) // shards * options.page_size
  token = cache / longest
  # New keys and values of a decode run, which are there twice while the loop runs; and logits, of
  # which filters make a few copies.
  decoding = rows * (2 * options.decode_steps * token + 12 * model.vocab_size / tensor)
  size = _itemsize(pages)
  text = model.text
  reading = READ_TOKENS * size * (8 * text.hidden_size + 3 * text.intermediate_size / tensor)
  working = max(decoding, reading, learning)
  free = (1 - _SPARE) * memory - (decode.alive_bytes - cache) - working
  # While pages move, an array of keys or values is there twice: of all layers, or of one.
  moving = 1 + 0.5 / (text.num_hidden_layers if model.layered_cache else 1)
  return max(int(free / (token * moving)), 0), longest


def _itemsize(pages: models.Pages) -> int:
  keys = pages.keys[0] if isinstance(pages.keys, tuple) else pages.keys
  return keys.dtype.itemsize
