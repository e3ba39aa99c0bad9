"""Chips by the names that jax has for devices."""

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
