"""Cost analysis of compiled programs: loops, slices, convolutions and split collectives."""

import jax
import jax.numpy as jnp
import pytest

from sejax.planning import hlo

# Four layers of a scan over weights that lie split in two and are gathered before they are used, as
# the TPU's compiler writes it: fused slices, products as convolutions, arrays on the chip (S(1)).
SCAN = """
HloModule jit_f, num_partitions=2

%slice_one (p0: bf16[4,128,256], p1: s32[]) -> bf16[1,128,256] {
  %p0 = bf16[4,128,256]{2,1,0:T(8,128)(2,1)} parameter(0)
  %p1 = s32[]{:T(128)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  ROOT %slice = bf16[1,128,256]{2,1,0:T(8,128)(2,1)S(1)} dynamic-slice(%p0, %p1, %zero, %zero)
}

%product (p2: bf16[64,256], p3: bf16[1,256,256]) -> bf16[64,256] {
  %p2 = bf16[64,256]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %p3 = bf16[1,256,256]{2,1,0:T(8,128)(2,1)S(1)} parameter(1)
  %flat = bf16[256,256]{1,0:T(8,128)(2,1)} bitcast(%p3)
  ROOT %conv = bf16[64,256]{1,0:T(8,128)(2,1)S(1)} convolution(%p2, %flat), dim_labels=bf_io->bf
}

%body (b: (s32[], bf16[64,256], bf16[4,128,256])) -> (s32[], bf16[64,256], bf16[4,128,256]) {
  %b = (s32[]{:T(128)}, bf16[64,256]{1,0:S(1)}, bf16[4,128,256]{2,1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%b), index=0
  %x = bf16[64,256]{1,0:S(1)} get-tuple-element(%b), index=1
  %w = bf16[4,128,256]{2,1,0} get-tuple-element(%b), index=2
  %one = s32[]{:T(128)} constant(STEP)
  %next = s32[]{:T(128)} add(%i, %one)
  %mine = bf16[1,128,256]{2,1,0:S(1)} fusion(%w, %i), kind=kLoop, calls=%slice_one
  %all = bf16[1,256,256]{2,1,0:S(1)} all-gather(%mine), channel_id=3, dimensions={1}
  %y = bf16[64,256]{1,0:S(1)} fusion(%x, %all), kind=kOutput, calls=%product
  ROOT %t = (s32[]{:T(128)}, bf16[64,256]{1,0:S(1)}, bf16[4,128,256]{2,1,0}) tuple(%next, %y, %w)
}

%test (c: (s32[], bf16[64,256], bf16[4,128,256])) -> pred[] {
  %c = (s32[]{:T(128)}, bf16[64,256]{1,0:S(1)}, bf16[4,128,256]{2,1,0}) parameter(0)
  %four = s32[]{:T(128)} constant(4)
  %j = s32[]{:T(128)} get-tuple-element(%c), index=0
  ROOT %less = pred[]{:T(512)} compare(%j, %four), direction=LT
}

ENTRY %main (param.0: bf16[4,128,256], param.1: bf16[64,256]) -> bf16[64,256] {
  %param.0 = bf16[4,128,256]{2,1,0} parameter(0)
  %param.1 = bf16[64,256]{1,0} parameter(1)
  %near = bf16[64,256]{1,0:S(1)} copy(%param.1)
  %start = s32[]{:T(128)} constant(0)
  %in = (s32[], bf16[64,256]{1,0:S(1)}, bf16[4,128,256]{2,1,0}) tuple(%start, %near, %param.0)
  %loop = (s32[], bf16[64,256]{1,0:S(1)}, bf16[4,128,256]) while(%in), condition=%test, body=%body
  %last = bf16[64,256]{1,0:S(1)} get-tuple-element(%loop), index=1
  ROOT %out = bf16[64,256]{1,0} copy(%last)
}
"""


@pytest.mark.parametrize(("step", "rounds"), [(1, 4), (2, 2)])
def test_a_scan_over_gathered_weights(step, rounds):
  found = hlo.cost(SCAN.replace("STEP", str(step)))
  assert found.flops == rounds * 2 * 64 * 256 * 256
  # A layer's own half of the weights is read; all else but input and output stays on the chip, and
  # so do the counters, of 4 bytes each, but for their additions.
  layers = rounds * (128 * 256 * 2)
  assert found.bytes == pytest.approx(layers + 2 * 64 * 256 * 2, abs=rounds * 16)
  assert found.collectives == {"all-gather": rounds}
  assert found.collective_bytes == {"all-gather": rounds * 256 * 256 * 2}
  assert found.largest == 256 * 256 * 2


def test_a_collective_beside_several_operations_is_one():
  """It is split into several fusions, which name it with the same channel."""
  begun = "  %all = bf16[1,256,256]{2,1,0:S(1)} all-gather(%mine), channel_id=3, dimensions={1}\n"
  assert begun in SCAN
  found = hlo.cost(
    SCAN.replace(begun, begun.replace("%all", "%begun") + begun).replace("STEP", "1")
  )
  assert found.collectives == {"all-gather": 4}


@pytest.mark.parametrize(
  ("attributes", "lhs", "kernel", "out", "summed"),
  [
    ("dim_labels=bf_io->bf", (8, 32), (32, 16), (8, 16), 32),
    # Two pieces of the summed axis, one in the window.
    ("window={size=2}, dim_labels=b0f_0io->bf0", (8, 2, 16), (2, 16, 4), (8, 4, 1), 32),
    # A batch of four as a dilated window, and as one that slides over a single element.
    (
      "window={size=4 stride=3 lhs_dilate=4}, dim_labels=0bf_0oi->0bf",
      (4, 8, 32),
      (4, 16, 32),
      (4, 8, 16),
      32,
    ),
    (
      "window={size=4 pad=3_3 rhs_reversal=1}, dim_labels=fb0_0oi->0fb",
      (32, 8, 1),
      (4, 16, 32),
      (4, 8, 16),
      32,
    ),
  ],
)
def test_convolutions_that_are_products(attributes, lhs, kernel, out, summed):
  def shape(sizes):
    return f"f32[{','.join(map(str, sizes))}]"

  text = f"""
ENTRY %main (a: f32[1], b: f32[1]) -> f32[1] {{
  %a = {shape(lhs)} parameter(0)
  %b = {shape(kernel)} parameter(1)
  ROOT %c = {shape(out)} convolution(%a, %b), {attributes}
}}
"""
  count = 1
  for size in out:
    count *= size
  assert hlo.cost(text).flops == 2 * count * summed


def test_a_program_of_this_machine():
  def scan(weights, x):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

  shapes = (jax.ShapeDtypeStruct((5, 64, 64), jnp.float32), jax.ShapeDtypeStruct((32, 64), "f4"))
  found = hlo.cost(jax.jit(scan).lower(*shapes).compile().as_text())
  assert found.flops == 5 * 2 * 32 * 64 * 64
  assert found.bytes > 5 * 64 * 64 * 4
  assert not found.collectives


GATHER = """
%rows (p0: f32[50000,64], p1: s32[8,1]) -> f32[8,64] {
  %p0 = f32[50000,64]{1,0} parameter(0)
  %p1 = s32[8,1]{1,0} parameter(1)
  ROOT %taken = f32[8,64]{1,0} gather(%p0, %p1), offset_dims={1}, slice_sizes={1,64}
}

ENTRY %main (table: f32[50000,64], ids: s32[8,1]) -> f32[8,64] {
  %table = f32[50000,64]{1,0} parameter(0)
  %ids = s32[8,1]{1,0} parameter(1)
  ROOT %out = f32[8,64]{1,0} TAKE
}
"""


@pytest.mark.parametrize(
  "take",
  [
    "gather(%table, %ids), offset_dims={1}, slice_sizes={1,64}",
    "fusion(%table, %ids), kind=kLoop, calls=%rows",
  ],
)
def test_of_a_table_the_gathered_rows_are_read(take):
  assert hlo.cost(GATHER.replace("TAKE", take)).bytes == 2 * 8 * 64 * 4 + 8 * 4


SCATTER = """
ENTRY %main (table: f32[50000,64], ids: s32[8,1], new: f32[8,64]) -> f32[50000,64] {
  %table = f32[50000,64]{1,0} parameter(0)
  %ids = s32[8,1]{1,0} parameter(1)
  %new = f32[8,64]{1,0} parameter(2)
  ROOT %out = f32[50000,64]{1,0} scatter(%table, %ids, %new), update_window_dims={1}, to_apply=%set
}
"""


def test_of_a_table_the_scattered_rows_are_written():
  assert hlo.cost(SCATTER).bytes == 2 * 8 * 64 * 4 + 8 * 4


def test_a_loop_that_the_data_ends_runs_as_often_as_said():
  def decode(weights, x):
    prepared = weights @ weights  # once, outside of the loop
    return jax.lax.while_loop(
      lambda c: (c[0] < 9) & (c[1].sum() < 1e9),
      lambda c: (c[0] + 1, jax.lax.fori_loop(0, 3, lambda _, x: jnp.tanh(x @ prepared), c[1])),
      (0, x),
    )

  shapes = (jax.ShapeDtypeStruct((64, 64), jnp.float32), jax.ShapeDtypeStruct((32, 64), "f4"))
  text = jax.jit(decode).lower(*shapes).compile().as_text()
  once, trip = 2 * 64 * 64 * 64, 3 * 2 * 32 * 64 * 64
  assert hlo.cost(text).flops == once + trip
  assert hlo.cost(text, open_trips=9).flops == once + 9 * trip
