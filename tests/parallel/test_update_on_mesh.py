"""The update on a mesh is that of one device, and its state stays split as it was."""

import os
import pathlib
import subprocess
import sys


def test_eight_devices():
  root = pathlib.Path(__file__).parents[2]
  flags = "--xla_force_host_platform_device_count=8"
  done = subprocess.run(
    [sys.executable, "-m", "tests.parallel.update_on_mesh"],
    cwd=root,
    env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
