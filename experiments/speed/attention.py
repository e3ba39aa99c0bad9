"""What fused kernels are worth in attention: cuDNN's and Pallas's against XLA's, values and times.

    python experiments/speed/attention.py [--size=small]

One layer with random queries, keys and values in bf16, through the functions that the model itself
calls. With `--size=3b` it has the released 3B's heads, and prompts of 1,024 tokens with 8
trajectories of up to 2,048. Ends with one JSON line, which has for each of

- `prefill`: causal attention within 8 prompts, by `xla` (`chunked_attention`) and `cudnn`;
- `update`: attention in a packed row of one group and its gradient (`packed_attention`), by both;
- `decode`: one token of 64 rows (`paged_attention` of sejax, `xla`), against two kernels that jax
  has for GPUs: `pallas_paged`, on pages of which the rows of a group share those of their prompt,
  and `pallas_contiguous`, with a copy of the prompt's keys in front of each row's own,

the figures of each kernel, null where it cannot run:

- `ms`: the best time of one call. Short ones are repeated within one program, each on the output of
  the one before; in decoding that leaves out what such a kernel takes to lay out keys anew.
- `error`: largest difference of the output from attention in fp32, over the largest output;
  `gradient_error`: likewise for gradients, the worst of queries, keys and values.

On a CPU, Pallas kernels are interpreted, which shows their values and no speed, and cuDNN has none.
A kernel that fails is named in `failed` with its error, the others are measured, and the exit
status is 1.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app
from jax.experimental.pallas.ops.gpu import decode_attention as pallas_contiguous
from jax.experimental.pallas.ops.gpu import paged_attention as pallas_paged
from jaxtyping import Array, Float, Int
from sizes import REPEATS, chosen
from stopwatch import best_seconds

from sejax import models
from sejax.errors import one_line
from sejax.models import qwen2_5_vl as qwen
from sejax.models.transformer import (
  attention,
  cudnn_attention,
  packed_attention,
  packing,
  paged_attention,
)

_HIGHEST = jax.lax.Precision.HIGHEST


class Size(NamedTuple):
  """Shapes of a layer's attention.

  Attributes:
    model: its heads are used.
    prompts: of the prefill and of the decode step.
    members: trajectories of a prompt.
    prompt: tokens of a prompt, whole pages.
    response: tokens of a trajectory at most, in the update.
    block: tokens of a block of the packed row.
    pages: full pages of a row in decoding.
    page: tokens of a page.
    recent: tokens of a decode run at most; half of them are there.
    splits: parts that a Pallas kernel cuts the keys of a row into.
    loops: calls of a kernel in one program.
  """

  model: models.Model
  prompts: int
  members: int
  prompt: int
  response: int
  block: int
  pages: int
  page: int
  recent: int
  splits: int
  loops: int


class Kernels(NamedTuple):
  """Kernels that compute the same.

  Attributes:
    inputs: arrays that each of them takes.
    reference: the same in fp32.
    by_name: None for one that cannot run here.
    loops: calls in one program; each takes the output of the one before as its queries.
  """

  inputs: tuple[Array, ...]
  reference: Callable[..., Any]
  by_name: dict[str, Callable[..., Any] | None]
  loops: int


def with_heads(query_heads: int, key_heads: int) -> models.Model:
  """Returns the 3B with other numbers of heads, of the same size."""
  model = qwen.Qwen25VL.released("3b")
  text = dataclasses.replace(
    model.text,
    hidden_size=query_heads * model.text.head_size,
    num_attention_heads=query_heads,
    num_key_value_heads=key_heads,
  )
  vision = dataclasses.replace(model.vision, out_hidden_size=text.hidden_size)
  return dataclasses.replace(model, text=text, vision=vision)


SIZES = {
  "3b": Size(qwen.Qwen25VL.released("3b"), 8, 8, 1024, 2048, 128, 15, 64, 32, 16, 20),
  "small": Size(with_heads(4, 2), 2, 4, 128, 128, 64, 7, 16, 16, 4, 2),
  "dry": Size(with_heads(4, 2), 2, 2, 32, 32, 16, 1, 16, 4, 2, 2),
}


def causal(
  queries: Float[Array, "R S N H"], keys: Float[Array, "R S K H"], values: Float[Array, "R S K H"]
) -> Float[Array, "R S N H"]:
  """Computes causal attention in fp32, with all scores of a row at once."""

  @jax.checkpoint
  def attend_row(row):
    queries, keys, values = (x.astype(jnp.float32) for x in row)
    grouped = queries.reshape(len(queries), keys.shape[1], -1, queries.shape[-1])
    scores = jnp.einsum("tkrh,skh->krts", grouped, keys, precision=_HIGHEST)
    visible = jnp.tri(len(queries), dtype=bool)
    scores = jnp.where(visible, scores * queries.shape[-1] ** -0.5, -jnp.inf)
    out = jnp.einsum("krts,skh->tkrh", jax.nn.softmax(scores), values, precision=_HIGHEST)
    return out.reshape(queries.shape)

  return jax.lax.map(attend_row, (queries, keys, values))


def draw(seed: int, *shapes: tuple[int, ...]) -> list[Float[Array, "..."]]:
  """Draws arrays in bf16."""
  rng = np.random.default_rng(seed)
  return [jnp.asarray(rng.standard_normal(shape, np.float32), jnp.bfloat16) for shape in shapes]


def implementations(size: Size) -> dict[str, models.Model | None]:
  """Returns the model that computes attention by XLA, and by cuDNN where the device has it."""
  fused = cudnn_attention.available(jax.devices()[0])
  return {
    "xla": dataclasses.replace(size.model, fused_attention=False),
    "cudnn": dataclasses.replace(size.model, fused_attention=True) if fused else None,
  }


def prefill(size: Size) -> Kernels:
  """Returns the kernels for the prompts of a prefill."""
  text = size.model.text
  shape = (size.prompts, size.prompt)
  kv_shape = (*shape, text.num_key_value_heads, text.head_size)
  inputs = draw(0, (*shape, text.num_attention_heads, text.head_size), kv_shape, kv_shape)

  def attend(model, queries, keys, values):
    keys, values = (attention.group_keys(x, 1) for x in (keys, values))
    key_set = attention.KeySet(keys, values, attention.Causal())
    return attention.attend(model, queries[:, None], [key_set])[:, 0]

  return Kernels(tuple(inputs), causal, _bind(attend, size), size.loops)


def update(size: Size) -> Kernels:
  """Returns the kernels for a packed row, with their gradients."""
  text = size.model.text
  lengths = np.random.default_rng(0).integers(size.response // 2, size.response + 1, size.members)
  layout = pack_group(size.prompt, lengths, size.block)
  tokens = layout.sequence.shape[1]
  shape = (1, tokens, text.num_attention_heads, text.head_size)
  kv_shape = (1, tokens, text.num_key_value_heads, text.head_size)
  inputs = draw(1, shape, kv_shape, kv_shape, shape)

  def attend(model, queries, keys, values):
    return packed_attention.attend(
      model,
      queries,
      keys,
      values,
      packing=layout,
      prompt_size=size.prompt,
      continuation_size=size.response,
      block=size.block,
    )

  def attend_rows(queries, keys, values):
    kinds = (queries, keys, values)
    prompts = [packing.unpack_prompts(layout, x, size.prompt) for x in kinds]
    own = [packing.unpack_continuations(layout, x, size.response)[0] for x in kinds]
    copies = [
      jnp.broadcast_to(x, (len(y), *x.shape[1:])) for x, y in zip(prompts, own, strict=True)
    ]
    rows = [jnp.concatenate(x, axis=1) for x in zip(copies, own, strict=True)]
    out = causal(*rows)
    return packing.pack(layout, out[:1, : size.prompt], out[None, :, size.prompt :])

  def with_gradient(attend):
    """Returns the output, and the gradients of its product with the last input."""

    def product(queries, keys, values, weights):
      out = attend(queries, keys, values).astype(jnp.float32)
      out = jnp.where((layout.sequence >= 0)[..., None, None], out, 0)
      return jnp.vdot(out, weights.astype(jnp.float32)), out

    def step(*inputs):
      gradients, out = jax.grad(product, (0, 1, 2), has_aux=True)(*inputs)
      return out, gradients

    return step

  by_name = {name: kernel and with_gradient(kernel) for name, kernel in _bind(attend, size).items()}
  return Kernels(tuple(inputs), with_gradient(attend_rows), by_name, loops=1)


def pack_group(prompt: int, lengths: Int[np.ndarray, " G"], block: int) -> packing.Packing:
  """Returns a row of one group, a prompt and trajectories of these lengths."""
  lengths = np.array([prompt, *lengths])
  sequence = np.repeat(np.arange(len(lengths)), lengths)
  offset = np.concatenate([np.arange(length) for length in lengths])
  padding = (0, -len(sequence) % block)
  starts = np.cumsum(lengths) - lengths
  arrays = (
    np.pad(sequence, padding, constant_values=-1)[None],
    np.pad(offset, padding)[None],
    starts[None, None],
    lengths[None, None],
  )
  return packing.Packing(*(jnp.asarray(x, jnp.int32) for x in arrays))


def decode(size: Size) -> Kernels:
  """Returns the kernels for one token of each row."""
  text, rows = size.model.text, size.prompts * size.members
  recent = size.recent // 2
  tokens = size.pages * size.page + recent + 1
  width = -(-tokens // size.page)  # pages of a row where recent and new tokens have them too
  prompt_shape = (size.prompts, text.num_key_value_heads, size.prompt, text.head_size)
  own_shape = (rows, text.num_key_value_heads, width * size.page, text.head_size)
  queries, *kinds = draw(
    2,
    (rows, text.num_attention_heads, text.head_size),
    prompt_shape,
    prompt_shape,
    own_shape,
    own_shape,
  )
  table = models.BatchTable(
    prompt=np.arange(rows) // size.members,
    member=np.arange(rows) % size.members,
    row_of_member=np.arange(rows).reshape(size.prompts, size.members),
    lengths=np.full(rows, size.pages * size.page),
    row_of_page=np.repeat(np.arange(rows), size.pages),
    tokens_in_page=np.full(rows * size.pages, size.page),
  )
  table = jax.tree.map(lambda x: jnp.asarray(x, jnp.int32), table)
  prompt_lengths = jnp.full(size.prompts, size.prompt, jnp.int32)
  lengths = jnp.full(rows, size.prompt + tokens, jnp.int32)
  interpret = jax.default_backend() == "cpu"

  def in_pages(x):  # [R,K,T,H] -> [RJ,K,S,H]
    paged = x.reshape(len(x), x.shape[1], -1, size.page, x.shape[-1])
    return jnp.moveaxis(paged, 2, 1).reshape(-1, *x.shape[1:2], size.page, x.shape[-1])

  def layer_keys(prompt_keys, prompt_values, own_keys, own_values):
    cached = size.pages * size.page
    cut = [
      (
        in_pages(x[:, :, :cached]),
        jnp.pad(
          x[:, :, cached : cached + recent], [(0, 0), (0, 0), (0, size.recent - recent), (0, 0)]
        ),
        x[:, :, cached + recent],
      )
      for x in (own_keys, own_values)
    ]
    pairs = [x for kinds in zip(*cut, strict=True) for x in kinds]
    return paged_attention.LayerKeys(prompt_keys, prompt_values, *pairs)

  def by_row(prompt, own):  # [R,T,K,H], each row with a copy of its prompt
    rows = jnp.concatenate([jnp.repeat(prompt, size.members, axis=0), own], axis=2)
    return jnp.moveaxis(rows, 2, 1)

  # Laid out before the clock starts, as a cache made for the kernel would be.
  prompt_keys, prompt_values, own_keys, own_values = kinds
  layer = layer_keys(*kinds)
  contiguous = by_row(prompt_keys, own_keys), by_row(prompt_values, own_values)
  by_head = [
    jnp.moveaxis(jnp.concatenate([in_pages(prompt), in_pages(own)]), 1, 0)
    for prompt, own in ((prompt_keys, own_keys), (prompt_values, own_values))
  ]
  prompt_width = size.prompt // size.page
  prompt_pages = np.arange(size.prompts * prompt_width).reshape(size.prompts, -1)
  own_pages = prompt_pages.size + np.arange(rows * width).reshape(rows, -1)
  pages = np.concatenate([np.repeat(prompt_pages, size.members, axis=0), own_pages], axis=1)
  pages = jnp.asarray(pages, jnp.int32)

  def reference(queries, layer, contiguous, by_head):
    del layer, by_head
    keys, values = (x[:, : size.prompt + tokens] for x in contiguous)
    wide = jnp.zeros((*keys.shape[:2], *queries.shape[1:]), queries.dtype)
    return causal(wide.at[:, -1].set(queries), keys, values)[:, -1]

  def xla(queries, layer, contiguous, by_head):
    del contiguous, by_head
    count = jnp.int32(recent)
    return paged_attention.attend(queries, layer, table, prompt_lengths, count, shards=1)

  def paged(queries, layer, contiguous, by_head):
    del layer, contiguous
    scaled = queries * queries.shape[-1] ** -0.5  # The kernel does not scale.
    return pallas_paged.paged_attention(
      scaled, *by_head, pages, lengths, k_splits=size.splits, interpret=interpret
    )

  def with_copies(queries, layer, contiguous, by_head):
    del layer, by_head
    out = pallas_contiguous.gqa(
      queries,
      *contiguous,
      kv_seq_len=lengths,
      block_k=size.page,
      k_splits=size.splits,
      interpret=interpret,
    )
    return out.astype(queries.dtype)

  return Kernels(
    inputs=(queries, layer, contiguous, by_head),
    reference=reference,
    by_name={"xla": xla, "pallas_paged": paged, "pallas_contiguous": with_copies},
    loops=size.loops,
  )


def _bind(attend: Callable[..., Any], size: Size) -> dict[str, Callable[..., Any] | None]:
  """Returns a function of a model and arrays by the implementation that the model has."""
  return {
    name: model and functools.partial(attend, model)
    for name, model in implementations(size).items()
  }


def difference(found: Array, wanted: Array) -> float:
  """Returns the largest difference, over the largest value that is wanted."""
  found, wanted = (np.asarray(x, np.float32) for x in (found, wanted))
  return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def measure(kernels: Kernels, kernel: Callable[..., Any], wanted: Any) -> dict[str, float]:
  """Returns the time of a kernel, and how far its values are from the reference's.

  Args:
    wanted: what the reference returns.
  """
  once = step = jax.jit(kernel)
  found, result = once(*kernels.inputs), {}
  if isinstance(found, tuple):
    (found, gradients), (wanted, wanted_gradients) = found, wanted
    result["gradient_error"] = max(map(difference, gradients, wanted_gradients))
  result["error"] = difference(found, wanted)

  if kernels.loops > 1:

    def repeated(first, *rest):
      return jax.lax.fori_loop(0, kernels.loops, lambda _, x: kernel(x, *rest), first)

    step = jax.jit(repeated)
  run = {"kernel": lambda: jax.block_until_ready(step(*kernels.inputs))}
  seconds = best_seconds(run, REPEATS.value)["kernel"] / kernels.loops
  return {"ms": 1e3 * seconds} | result


def main(_: list[str]) -> int:
  """Measures everything and prints it; returns the exit status."""
  size = chosen(SIZES)
  device = jax.devices()[0].device_kind
  text = size.model.text
  print(f"{device}; {text.num_attention_heads} heads, {text.num_key_value_heads} of keys, bf16")
  if implementations(size)["cudnn"] is None:
    print("cuDNN's kernel needs an NVIDIA GPU from Ampere on; its figures are null")
  result, failed = {"device": device}, {}
  for make in (prefill, update, decode):
    kernels, part = make(size), make.__name__
    wanted = jax.jit(kernels.reference)(*kernels.inputs)
    result[part] = dict.fromkeys(kernels.by_name)
    for name, kernel in kernels.by_name.items():
      if kernel is None:
        continue
      try:
        found = measure(kernels, kernel, wanted)
      except Exception as error:  # Compilers and kernels raise many kinds; the others go on.
        failed[f"{part} {name}"] = f"{type(error).__name__}: {one_line(error)}"
        continue
      result[part][name] = {key: float(f"{value:.3g}") for key, value in found.items()}
      print(
        f"{part:<9}{name:<19}" + "  ".join(f"{k} {v:.3g}" for k, v in found.items()), flush=True
      )
  if failed:
    result["failed"] = failed
  print(json.dumps(result))
  return 1 if failed else 0


if __name__ == "__main__":
  app.run(main)
