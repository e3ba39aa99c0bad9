"""`--mode=compile --warm`: what a run then finds compiled."""

import os
import subprocess
import sys

import pytest

from tests import subprocesses

CHANGES = {
  "batch_size": 4,
  "mini_batch_size": 2,
  "group_size": 4,
  "train.micro_batch_size": 2,
  "train.steps": 1,
  "judge.use": False,  # whose programs are the Actor's
  "model.unroll": False,
  "eval.num_problems": 0,
}
# In whatever batch. Others, as of a decoding batch that has shrunk, are compiled when they occur.
ALWAYS = {
  "compute_update",
  "encode_rows",
  "make_zeros",
  "read_prompts",
  "unstack_layers",
}


def run(workdir, *flags):
  command = [
    sys.executable,
    "-m",
    "sejax.main",
    f"--config={subprocesses.ROOT / 'configs/tiny.py'}",
  ]
  command += [f"--config.{name}={value}" for name, value in CHANGES.items()]
  done = subprocess.run(
    [*command, f"--workdir={workdir}", *flags],
    cwd=subprocesses.ROOT,
    env=_environment(),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


def _environment():
  """Returns one without the tests' own cache, which would be found before the workdir's."""
  environment = subprocesses.environment(1)
  for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"):
    environment.pop(name, None)
  return environment


def programs(workdir):
  """Returns the names of the programs in the cache, with what tells apart those of one name."""
  files = os.listdir(workdir / "compilation_cache")
  return {file.removeprefix("jit_").removesuffix("-cache") for file in files if "-cache" in file}


@pytest.mark.long
def test_a_run_finds_the_programs_of_full_batches(tmp_path):
  printed = run(tmp_path, "--mode=compile", "--warm")
  warm = programs(tmp_path)
  assert printed.endswith(f"programs are in {tmp_path / 'compilation_cache'}\n")
  assert not (tmp_path / "checkpoints").exists()
  run(tmp_path)
  compiled = {name.partition("-")[0] for name in programs(tmp_path) - warm}
  assert {name.partition("-")[0] for name in warm} >= ALWAYS
  assert not ALWAYS & compiled


_COMPILE = """
import pathlib, sys
import jax
from sejax.parallel import programs

programs.keep_programs(pathlib.Path(sys.argv[1]))
jax.jit(lambda x: x + 1)(1.0)
"""


def test_a_copy_of_the_cache_serves_another_workdir(tmp_path):
  for folder in ("one", "two"):
    command = [sys.executable, "-c", _COMPILE, str(tmp_path / folder)]
    subprocess.run(command, cwd=subprocesses.ROOT, env=_environment(), check=True)
  assert programs(tmp_path / "one") == programs(tmp_path / "two") != set()
