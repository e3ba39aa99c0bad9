"""What tests of several folders share."""

import gc
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

import jax
import pytest

from sejax import storage
from sejax.text.equivalence import Prover
from tests import buckets
from tests.subprocesses import ROOT

# They are begun first, so that no worker of pytest-xdist is left with one while others are done.
_LONGEST_FILES = (
  "tests/test_train.py",
  "tests/parallel/test_step_on_mesh.py",
  "tests/parallel/test_bucket.py",
  "tests/parallel/test_interruptions.py",
  "tests/parallel/test_processes.py",
  "tests/test_recipes.py",
  "tests/planning/test_programs.py",
  "tests/sampling/test_mesh.py",
  "tests/planning/test_compilation.py",
  "tests/test_readme_runs.py",
  "tests/sampling/test_sampler.py",
  "tests/test_overlap.py",
  "tests/models/test_packed.py",
  "tests/models/test_hub.py",
  "tests/experiments/test_tiny_vlm.py",
)


def pytest_configure(config):
  """Makes compiling cheap, in the session's processes and in those that they start.

  Programs of the tests run once on a few numbers, so that compiling them is the cost, and how fast
  they run is none: LLVM does not optimize, and what one process compiles the others load.
  """
  if hasattr(config, "workerinput"):  # It has the environment from the process that started it.
    return
  # A shell lets what it starts with `&` ignore Ctrl-C, and so would runs that tests interrupt.
  if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
  # Where the session is interrupted, a worker may still write.
  cache = tempfile.TemporaryDirectory(prefix="sejax_tests_", ignore_cleanup_errors=True)
  config.add_cleanup(cache.cleanup)
  options = {
    "jax_disable_most_optimizations": True,
    "jax_compilation_cache_dir": cache.name,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    # With these, whose folder is in the cache's, programs are found in the folder's first place
    # only; and they are of GPUs.
    "jax_persistent_cache_enable_xla_caches": "none",
  }
  for name, value in options.items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)
  # XLA reads its flags once, so that another process has to find out which it knows.
  module = [sys.executable, "-m", "tests.xla_options"]
  known = subprocess.run(module, cwd=ROOT, check=True, capture_output=True, text=True)
  os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {known.stdout}".strip()


def pytest_collection_modifyitems(items):
  order = {name: place for place, name in enumerate(_LONGEST_FILES)}
  items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(order)))


@pytest.fixture(scope="module", autouse=True)
def _few_programs():
  """Lets go of compiled programs before there are too many.

  On CPUs each of them takes several of the memory maps that Linux gives a process, and XLA aborts
  when there are no more.
  """
  yield
  limit, maps = pathlib.Path("/proc/sys/vm/max_map_count"), pathlib.Path("/proc/self/maps")
  if not limit.exists():
    return
  if maps.read_bytes().count(b"\n") > int(limit.read_text()) / 3:
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def prover():
  """Grades; its processes are started once, at the first question that needs one."""
  with Prover(workers=2) as shared:
    yield shared


@pytest.fixture(scope="session")
def bucket_server():
  with buckets.serve() as variables:
    yield variables


@pytest.fixture
def bucket(bucket_server, monkeypatch):
  """A new bucket, as a path."""
  for name, value in bucket_server.items():
    monkeypatch.setenv(name, value)
  return storage.Path(buckets.make(bucket_server))
