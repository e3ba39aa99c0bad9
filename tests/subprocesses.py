"""Modules of the tests that run in processes of their own, on devices that the host stands for."""

import os
import pathlib
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]


def environment(devices: int) -> dict[str, str]:
  """Returns that of a process with so many devices."""
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
  changes = {
    "XLA_FLAGS": flags.strip(),
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": str(ROOT),
    # Threads enough for all devices to wait for each other in several collectives.
    "NPROC": "32",
  }
  return os.environ | changes


def start(module: str, devices: int, *arguments: object) -> subprocess.Popen:
  """Starts a module on so many devices."""
  return subprocess.Popen(
    [sys.executable, "-m", module, *map(str, arguments)],
    cwd=ROOT,
    env=environment(devices),
    stderr=subprocess.PIPE,
    text=True,
  )


def wait(*processes: subprocess.Popen, timeout: float = 500) -> None:
  """Waits for all to end well, each at most so many seconds."""
  errors = [process.communicate(timeout=timeout)[1] for process in processes]
  for process, error in zip(processes, errors, strict=True):
    assert process.returncode == 0, error[-3000:]


def free_address() -> str:
  """Returns where a coordinator may listen."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return f"127.0.0.1:{free.getsockname()[1]}"
