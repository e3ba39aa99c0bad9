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
  monkeypatch.setattr(environment, "_libtpu_version", lambda: "0.0.42.1")
  monkeypatch.delenv("LIBTPU_INIT_ARGS", raising=False)
  if given is not None:
    monkeypatch.setenv("LIBTPU_INIT_ARGS", given)
  environment.prepare()
  environment.prepare()
  assert os.environ["LIBTPU_INIT_ARGS"] == expected


@pytest.mark.parametrize("version", ["", "0.0.41", "0.0.51", "0.1.50"])
def test_a_libtpu_that_may_not_know_a_flag_gets_none(version, monkeypatch):
  monkeypatch.setattr(environment, "_libtpu_version", lambda: version)
  monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_a=1")
  environment.prepare()
  assert os.environ["LIBTPU_INIT_ARGS"] == "--xla_a=1"


@pytest.mark.parametrize(
  ("listed", "expected"),
  [
    ("81559\n81559\n", ".94"),  # H100
    ("15360\n", ".90"),  # T4
    ("[N/A]\n", ".94"),
    ("", ".94"),
  ],
)
def test_a_small_gpu_keeps_enough_for_the_driver(listed, expected, tmp_path, monkeypatch):
  program = tmp_path / "nvidia-smi"
  program.write_text(f"#!/bin/sh\nprintf '{listed}'\n")
  program.chmod(0o755)
  monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
  for name in ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
    monkeypatch.delenv(name, raising=False)
  environment.prepare()
  assert os.environ["XLA_CLIENT_MEM_FRACTION"] == expected


@pytest.mark.parametrize(
  ("given", "expected"),
  [
    ({}, {"XLA_CLIENT_MEM_FRACTION": ".94"}),
    ({"XLA_CLIENT_MEM_FRACTION": ".5"},) * 2,
    ({"XLA_PYTHON_CLIENT_MEM_FRACTION": ".5"},) * 2,  # its older name; jax refuses both
  ],
)
def test_the_share_of_a_gpu_that_is_set_stays(given, expected, monkeypatch):
  for name in ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
    monkeypatch.delenv(name, raising=False)
  for name, value in given.items():
    monkeypatch.setenv(name, value)
  environment.prepare()
  assert {name: value for name, value in os.environ.items() if "MEM_FRACTION" in name} == expected
