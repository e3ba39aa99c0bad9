"""Layouts: which axes split which dimension, and what happens where they do not fit."""

import pytest
from flax import traverse_util
from jax.sharding import AbstractMesh, PartitionSpec

from sejax.models.qwen2_5_vl import Qwen25VL
from sejax.models.transformer.layout import TRAINING
from sejax.parallel import layouts

MESH = AbstractMesh((2, 4, 2), ("data", "fsdp", "tensor"))


@pytest.mark.parametrize(
  ("path", "shape", "spec"),
  [
    ("decoder/embed/embedding", (64, 16), ("tensor", "fsdp")),
    ("decoder/layers/q/kernel", (3, 16, 16), (None, "fsdp", "tensor")),
    ("decoder/layers/o/kernel", (3, 16, 16), (None, "tensor", "fsdp")),
    ("decoder/layers/k/bias", (3, 16), (None, "tensor")),
    ("decoder/layers/input_norm/scale", (3, 16), ()),
    ("vision/blocks/down/kernel", (3, 16, 16), (None, "tensor", "fsdp")),
    ("vision/blocks/qkv/kernel", (3, 16, 3, 16), (None, "fsdp", None, "tensor")),
    ("vision/blocks/qkv/bias", (3, 3, 16), (None, None, "tensor")),
    ("vision/merger/fc1/kernel", (16, 16), ("fsdp", "tensor")),
    ("lm_head/kernel", (16, 64), ("fsdp", "tensor")),
    ("decoder/layers/q/kernel", (3, 6, 5), (None, None, None)),  # 4 and 2 divide neither
  ],
)
def test_specs(path, shape, spec):
  assert layouts.sharding(MESH, path, shape, TRAINING).spec == PartitionSpec(*spec)


def test_axes_that_the_mesh_lacks_are_left_out():
  mesh = AbstractMesh((2,), ("fsdp",))
  spec = layouts.sharding(mesh, "decoder/layers/q/kernel", (3, 16, 16), TRAINING).spec
  assert spec == PartitionSpec(None, "fsdp", None)


def test_every_large_array_of_the_7b_is_split():
  """Eight chips share all kernels and embeddings; only norms and biases of the residual stay."""
  tree = traverse_util.flatten_dict(Qwen25VL.released("7b").shapes(), sep="/")
  for path, shape in tree.items():
    if path.endswith(("kernel", "embedding")):
      spec = layouts.sharding(MESH, path, shape, TRAINING).spec
      assert {"fsdp", "tensor"} <= set(spec), path
