"""The main job, interrupted: killed twice, and without space on the disk; nothing is lost.

`experiments/interruptions` makes many more interruptions of the same kinds.
"""

import random
import resource
import shutil
import signal
import time

import pytest

from experiments.interruptions import kill


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
  """A run left in peace."""
  workdir = tmp_path_factory.mktemp("interruptions") / "reference"
  kill.finish(workdir)
  return workdir


@pytest.fixture
def workdir(reference, tmp_path):
  """A new one, with the programs that the reference has compiled."""
  cache = "compilation_cache"
  shutil.copytree(reference / cache, tmp_path / "run" / cache)
  return tmp_path / "run"


def test_killed_between_and_while_saving(reference, workdir):
  def in_the_loop():
    if kill.logged(workdir) < 2:
      return False
    time.sleep(random.uniform(0, 1))
    return True

  assert kill.interrupt(workdir, signal.SIGKILL, in_the_loop)
  assert kill.interrupt(workdir, signal.SIGKILL, kill.while_saving(workdir))
  kill.finish(workdir)
  assert kill.results(workdir) == kill.results(reference)


def test_a_full_disk_costs_the_steps_since_the_last_checkpoint(reference, workdir):
  def no_space():
    # Files end after a few pages, as on a full disk; logs still fit.
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

  assert kill.interrupt(workdir, signal.SIGTERM, lambda: kill.logged(workdir) >= 1)
  assert kill.start(workdir, preexec_fn=no_space).wait() == 2
  # Among what the library that saves logs of it.
  lines = (workdir.parent / "run.log").read_text().splitlines()
  assert [line[:43] for line in lines if line.startswith("sejax: ")] == [
    "sejax: a checkpoint could not be written to"
  ]
  kill.finish(workdir)
  assert kill.results(workdir) == kill.results(reference)
