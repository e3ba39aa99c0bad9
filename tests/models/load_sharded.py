"""Loads a directory over eight devices and measures host memory; a script of test_weights."""

import collections
import pathlib
import sys
import time
import tracemalloc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh

from sejax.models import weights
from sejax.models.qwen2_5_vl import Qwen25VL, VisionConfig
from sejax.models.transformer.config import TextConfig
from sejax.parallel import layouts

mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "tensor"))


def large_model() -> Qwen25VL:
  """Returns a model with arrays of megabytes, beside which Python's own objects do not matter."""
  vision = VisionConfig(
    depth=2,
    hidden_size=64,
    intermediate_size=128,
    num_heads=4,
    out_hidden_size=256,
    fullatt_block_indexes=(1,),
    window_size=56,
  )
  text = TextConfig(
    vocab_size=4096,
    hidden_size=256,
    intermediate_size=1024,
    num_hidden_layers=4,
    num_attention_heads=8,
    num_key_value_heads=4,
    mrope_section=(4, 6, 6),
  )
  return Qwen25VL(vision, text, image_token_id=4000)


def wait_until_freed(blocks: list[weakref.ref]) -> None:
  """Waits until JAX's threads have released all blocks; fails if the loader still holds one."""
  deadline = time.monotonic() + 5
  while any(block() is not None for block in blocks):
    assert time.monotonic() < deadline, "an earlier shard is still on the host"
    jax.device_put(0.0).block_until_ready()
    time.sleep(0.001)


def main(directory: pathlib.Path) -> None:
  reads, blocks = collections.defaultdict(list), []
  read = weights._read_block

  def counted(parameter, tensors, dtype, bounds):
    wait_until_freed(blocks)
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    block = read(parameter, tensors, dtype, bounds)
    _, peak = tracemalloc.get_traced_memory()
    reads[parameter.path].append((block.nbytes, peak - before))
    # JAX on CPU adopts an aligned block as the device's array instead of copying it.
    if block.ctypes.data % 64:
      blocks.append(weakref.ref(block))
    return block

  weights._read_block = counted
  tracemalloc.start()
  config, params = weights.load(directory, mesh, dtype=jnp.bfloat16)
  tracemalloc.stop()
  weights._read_block = read

  for path, array in traverse_util.flatten_dict(params, sep="/").items():
    assert array.sharding == layouts.sharding(mesh, path, array.shape, config.layout), path
    shard = array.addressable_shards[0].data.nbytes
    parts = {str(s.index) for s in array.addressable_shards}
    assert [size for size, _ in reads[path]] == [shard] * len(parts), path
    # 32 kB for memory views and other Python objects beside the shard.
    assert all(peak <= shard + 32_768 for _, peak in reads[path]), (path, reads[path])

  _, whole = weights.load(directory, dtype=jnp.bfloat16)
  jax.tree.map(np.testing.assert_array_equal, params, whole)

  weights.save(params, config, directory)
  jax.tree.map(np.testing.assert_array_equal, weights.load(directory, dtype=jnp.bfloat16)[1], whole)


if __name__ == "__main__":
  assert len(jax.devices()) == 8
  target = pathlib.Path(sys.argv[1]).with_name("large")
  config, rng = large_model(), np.random.default_rng(0)
  params = jax.tree.map(
    lambda shape: rng.standard_normal(shape, np.float32),
    config.shapes(),
    is_leaf=lambda node: isinstance(node, tuple),
  )
  weights.save(params, config, target, max_file_bytes=4_000_000)
  main(target)
