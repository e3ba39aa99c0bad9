"""TPUs and GPUs to compile for; the tests need the extras `tpu` and `cuda`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sejax.models.transformer import cudnn_attention, vision
from sejax.parallel import chips
from sejax.planning import hlo, topologies
from tests.models import torch_reference


@pytest.mark.parametrize(("topology", "count"), [("v5e:1x1", 1), ("v5e:4x4", 16), ("v5p:2x2x2", 8)])
def test_slices_of_every_size_are_known_to_the_compiler(topology, count):
  pytest.importorskip("libtpu", reason="pip install 'sejax[tpu]' brings the TPU's compiler")
  assert len(topologies.devices(topology)) == count


@pytest.fixture
def gpus():
  pytest.importorskip(
    "jax_cuda13_plugin", reason="pip install 'sejax[cuda]' brings the GPU's compiler"
  )
  if jax.config.jax_platforms != "cpu":
    pytest.skip("JAX_PLATFORMS=cpu lets jax load the compiler without a GPU")
  return topologies.devices


@pytest.mark.parametrize("name", chips.GPUS)
def test_gpus_are_what_their_data_sheets_say(gpus, name):
  (device,) = gpus(f"{name}:1")
  assert chips.of_kind(device.device_kind) == chips.GPUS[name]
  assert cudnn_attention.available(device)


def test_fused_attention_is_split_over_rows_and_heads(gpus):
  """Each of eight GPUs computes its own rows and heads, without communication."""
  rows, length, heads, kv_heads, size = 8, 128, 4, 2, 64
  mesh = Mesh(np.array(gpus("h100:8")).reshape(2, 2, 2), ("data", "fsdp", "tensor"))
  rows_axes = ("data", "fsdp")
  config = torch_reference.tiny_config(rows=NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
  assert config.text.num_key_value_heads % 2 == 0

  def loss(queries, keys, values):
    out = cudnn_attention.attend_prompts(config, queries, keys, values)
    return out.astype(jnp.float32).sum()

  arrays = [
    jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec(*spec)))
    for shape, spec in (
      ((rows, 1, length, heads, size), (rows_axes, None, None, "tensor")),
      ((rows, kv_heads, 1, length, size), (rows_axes, "tensor")),
      ((rows, kv_heads, 1, length, size), (rows_axes, "tensor")),
    )
  ]
  grad = jax.grad(loss, argnums=(0, 1, 2))
  cost = hlo.cost(
    jax.jit(grad, out_shardings=tuple(x.sharding for x in arrays))
    .lower(*arrays)
    .compile()
    .as_text()
  )
  # Two products forth and five back, causal: half of each. An eighth of it all.
  assert cost.flops == 7 * rows * heads * length**2 * size / 8
  assert not cost.collectives


@pytest.mark.parametrize("images", [1, 2, cudnn_attention.MAX_SEGMENTS])
def test_attention_within_images_keeps_no_scores_and_communicates_nothing(gpus, images):
  rows, patches, heads, size = 16, 4096, 16, 80
  mesh = Mesh(np.array(gpus("h100:8")).reshape(2, 4, 1), ("data", "fsdp", "tensor"))
  sharding = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
  config = torch_reference.tiny_config(rows=sharding, fused_attention=True)

  def loss(queries, keys, values, lengths):
    out = vision.attend_within_images(config, queries, keys, values, lengths)
    return out.astype(jnp.float32).sum()

  shape = (rows, patches, heads, size)
  arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=sharding) for _ in range(3)]
  lengths = jax.ShapeDtypeStruct((rows, images), jnp.int32, sharding=sharding)
  program = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*arrays, lengths).compile()
  cost = hlo.cost(program.as_text())
  assert not cost.collectives
  scores = rows / 8 * heads * patches**2 * 4  # bytes of fp32
  assert cost.bytes < 3 * scores  # Chunks move eleven times their size.
