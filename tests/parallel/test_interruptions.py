"""The main job, interrupted: killed, stopped, and without space on the disk; nothing is lost.

`experiments/interruptions` makes many more interruptions of the same kinds.
"""

import fcntl
import os
import pty
import random
import resource
import shutil
import signal
import termios
import time

import pytest

from experiments.interruptions import kill

pytestmark = pytest.mark.long


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


def until(condition, process):
  """Waits, while the process runs."""
  while not condition():
    assert process.poll() is None, "the run has ended before it was interrupted"
    time.sleep(0.01)


def own_terminal():
  """Makes standard input a process's terminal, whose end it does not ignore as under `nohup`."""
  signal.signal(signal.SIGHUP, signal.SIG_DFL)
  fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def holds_lock(workdir, process):
  lock = workdir / "lock.json"  # of an earlier process that was killed, perhaps
  return lock.exists() and f'"pid": {process.pid},' in lock.read_text()


def test_stopped_by_ctrl_c_and_by_a_terminal_that_closes(reference, workdir):
  log = workdir.parent / "run.log"

  def said(text):
    return text in log.read_text(errors="replace")

  # While programs are compiled, there is nothing to finish.
  process = kill.start(workdir)
  until(lambda: holds_lock(workdir, process), process)
  process.send_signal(signal.SIGINT)
  assert process.wait() == 130
  assert said("sejax: stopped by Ctrl-C; rerun the same command to resume\n")

  # Twice: at once, and the step is lost, if it was not just over.
  process = kill.start(workdir)
  until(lambda: kill.logged(workdir) >= 1, process)
  process.send_signal(signal.SIGINT)
  until(lambda: said("Ctrl-C again stops at once"), process)
  process.send_signal(signal.SIGINT)
  assert process.wait() in (0, -signal.SIGINT)

  # While one runs, even if it is asleep, no other may use the workdir.
  process = kill.start(workdir)
  until(lambda: holds_lock(workdir, process), process)
  process.send_signal(signal.SIGSTOP)
  assert kill.start(workdir).wait() == 2
  assert said(f"{workdir} is in use by process {process.pid} on ")
  process.send_signal(signal.SIGCONT)

  # Once: the step in progress is finished and saved.
  before = kill.logged(workdir)
  until(lambda: kill.logged(workdir) > before, process)
  process.send_signal(signal.SIGINT)
  assert process.wait() == 0
  done = kill.logged(workdir)
  assert said(f"stopped after step {done} of {kill.STEPS}; rerun the same command to resume\n")
  assert (
    max(int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*")) == done < kill.STEPS
  )

  # A terminal that closes takes its run along, after the step.
  outside, inside = pty.openpty()
  process = kill.start(
    workdir,
    stdin=inside,
    stdout=inside,
    stderr=inside,
    start_new_session=True,
    preexec_fn=own_terminal,
  )
  os.close(inside)
  until(lambda: kill.logged(workdir) > done, process)
  os.close(outside)
  assert process.wait() == 128 + signal.SIGHUP
  assert kill.logged(workdir) > done
  assert not (workdir / "lock.json").exists()

  assert not said("Traceback")
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
