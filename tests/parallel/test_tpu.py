"""Flags for the TPU's compiler: ours beside those of the user, whose word counts."""

import os

import pytest

from sejax.parallel import tpu

OURS = "--xla_jf_spmd_threshold_for_windowed_einsum_mib=1000000"


@pytest.mark.parametrize(
  ("given", "expected"),
  [
    (None, OURS),
    ("--xla_a=1 --xla_b=2", f"--xla_a=1 --xla_b=2 {OURS}"),
    ("--xla_jf_spmd_threshold_for_windowed_einsum_mib=0",) * 2,
    (OURS, OURS),
  ],
)
def test_flags_that_are_set_stay(given, expected, monkeypatch):
  monkeypatch.delenv("LIBTPU_INIT_ARGS", raising=False)
  if given is not None:
    monkeypatch.setenv("LIBTPU_INIT_ARGS", given)
  tpu.set_flags()
  tpu.set_flags()
  assert os.environ["LIBTPU_INIT_ARGS"] == expected
