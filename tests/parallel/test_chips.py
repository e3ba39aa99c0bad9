"""Chips by the names that jax has for devices."""

import types

import pytest

from sejax.parallel import chips


@pytest.mark.parametrize(
  ("kind", "flops", "bandwidth"),
  [
    ("TPU v5 lite", 197e12, 819e9),
    ("TPU v5", 459e12, 2765e9),
    ("TPU v6 lite", 918e12, 1640e9),
    ("NVIDIA H100 80GB HBM3", 989e12, 3350e9),
    ("NVIDIA H100 PCIe", 756e12, 2039e9),
    ("NVIDIA A100-SXM4-80GB", 312e12, 2039e9),
  ],
)
def test_devices_are_known_by_the_longest_name(kind, flops, bandwidth):
  chip = chips.of_kind(kind)
  assert (chip.flops, chip.bandwidth) == (flops, bandwidth)


def test_others_are_not_guessed():
  assert chips.of_kind("cpu") is None


@pytest.mark.parametrize(
  ("platform", "kind", "capability", "expected"),
  [
    ("gpu", "Tesla T4", "7.5", False),
    ("gpu", "Quadro RTX 8000", "7.5", False),
    ("gpu", "GeForce GTX 1080 Ti", "6.1", False),
    ("cuda", "NVIDIA TITAN V", "7.0", False),
    ("gpu", "NVIDIA A100-SXM4-80GB", "8.0", True),
    ("gpu", "NVIDIA B200", "10.0", True),
    ("gpu", "AMD Instinct MI250X", "gfx90a", True),
    ("tpu", "TPU v5 lite", None, True),
    ("cpu", "cpu", None, False),
  ],
)
def test_who_computes_in_bfloat16(platform, kind, capability, expected):
  device = types.SimpleNamespace(platform=platform, device_kind=kind)
  if capability:
    device.compute_capability = capability
  assert chips.has_bfloat16(device) is expected
