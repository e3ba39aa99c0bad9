"""What is set before a backend starts: ours beside what the user has set, which counts."""

import os

import pytest

from sejax.parallel import environment

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
  environment.prepare()
  environment.prepare()
  assert os.environ["LIBTPU_INIT_ARGS"] == expected


@pytest.mark.parametrize(("given", "expected"), [(None, ".93"), (".5", ".5")])
def test_the_share_of_a_gpu_that_is_set_stays(given, expected, monkeypatch):
  monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
  if given is not None:
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", given)
  environment.prepare()
  assert os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] == expected
