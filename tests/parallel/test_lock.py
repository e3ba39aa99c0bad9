"""The lock of a workdir: who is refused, and which locks are left from processes that are gone."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from sejax.parallel import lock

HOLD = """
import pathlib, sys
from sejax.parallel import lock
with lock.Lock(pathlib.Path(sys.argv[1])):
  print("held", flush=True)
  sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
  """Another process that holds the lock of the folder."""
  process = subprocess.Popen(
    [sys.executable, "-c", HOLD, tmp_path],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == "held\n"
  yield process
  process.kill()
  process.communicate()


def take(folder):
  with lock.Lock(folder) as held:
    return held.is_held()


def write(folder, age=0.0, **changes):
  """Leaves a lock of another owner behind."""
  owner = {"host": "elsewhere", "pid": 1, "machine": "elsewhere 7", "token": "t"} | changes
  path = folder / lock.NAME
  path.write_text(json.dumps(owner))
  os.utime(path, (time.time() - age,) * 2)


def test_one_at_a_time(tmp_path):
  with lock.Lock(tmp_path) as held:
    assert held.is_held()
    owner = json.loads((tmp_path / lock.NAME).read_text())
    assert (owner["host"], owner["pid"]) == (socket.gethostname(), os.getpid())
  assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_another_process_is_refused_with_the_first_ones_host_and_pid(tmp_path, holder):
  by = f"is in use by process {holder.pid} on {socket.gethostname()}; "
  with pytest.raises(ValueError, match=by):
    take(tmp_path)
  holder.communicate("")  # lets it end
  assert take(tmp_path)


def test_another_thread_of_the_process_is_refused(tmp_path):
  refused = []

  def again():
    with pytest.raises(ValueError, match=f"in use by process {os.getpid()} "):
      take(tmp_path)
    refused.append(True)

  with lock.Lock(tmp_path) as held:
    thread = threading.Thread(target=again)
    thread.start()
    thread.join()
    assert refused
    assert held.is_held()


def test_a_killed_process_holds_nothing(tmp_path, holder):
  holder.kill()
  while lock._is_alive(holder.pid):  # though nobody has asked for its exit status yet
    time.sleep(0.01)
  assert take(tmp_path)
  assert list(tmp_path.iterdir()) == []


def test_elsewhere_a_lock_that_is_renewed_is_held(tmp_path):
  write(tmp_path, age=100, pid=os.getpid())  # whose pid means nothing here
  renewal = threading.Timer(1.0, os.utime, (tmp_path / lock.NAME,))
  renewal.start()
  with pytest.raises(ValueError, match=f"process {os.getpid()} on elsewhere"):
    take(tmp_path)
  renewal.join()
  assert [path.name for path in tmp_path.iterdir()] == [lock.NAME]


@pytest.mark.long
@pytest.mark.parametrize("age", [178, 300])
def test_elsewhere_a_lock_that_is_not_renewed_is_taken(age, tmp_path):
  write(tmp_path, age, pid=os.getpid())
  assert take(tmp_path)


def test_here_a_living_process_holds_it_however_long_it_slept(tmp_path, holder):
  here = json.loads((tmp_path / lock.NAME).read_text())
  write(tmp_path, age=10_000, **here)
  with pytest.raises(ValueError, match="in use"):
    take(tmp_path)


def test_a_pid_of_an_earlier_start_is_not_this_process(tmp_path):
  """In a container every start may have the same host name and pid."""
  write(tmp_path, **lock.Owner.current()._asdict())
  assert take(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 1}'])
def test_a_torn_lock_goes_stale(content, tmp_path):
  path = tmp_path / lock.NAME
  path.write_text(content)
  with pytest.raises(ValueError, match="in use by another process"):
    take(tmp_path)
  os.utime(path, (time.time() - 60,) * 2)
  assert take(tmp_path)


def test_a_lock_that_is_taken_away_is_missed(tmp_path):
  with lock.Lock(tmp_path) as held:
    held.require_held()
    write(tmp_path)
    with pytest.raises(ValueError, match=r"lock\.json no longer belongs to this process"):
      held.require_held()
  assert json.loads((tmp_path / lock.NAME).read_text())["host"] == "elsewhere"


def test_a_lock_is_renewed_while_it_is_held(tmp_path, monkeypatch):
  monkeypatch.setattr(lock, "_RENEWAL_SECONDS", 0.01)
  with lock.Lock(tmp_path):
    path = tmp_path / lock.NAME
    os.utime(path, (time.time() - 1000,) * 2)
    deadline = time.monotonic() + 30
    while time.time() - path.stat().st_mtime > 500:
      assert time.monotonic() < deadline
      time.sleep(0.01)


def test_of_many_that_find_a_stale_lock_one_gets_it(tmp_path):
  write(tmp_path, age=1000)
  start, done, held = threading.Barrier(8), threading.Barrier(8), []

  def contend():
    mine = lock.Lock(tmp_path)
    start.wait()
    try:
      with mine:
        held.append(mine)
        done.wait()
    except ValueError:
      done.wait()

  threads = [threading.Thread(target=contend) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(held) == 1


def test_storage_that_does_not_answer_for_a_while_ends_nothing(tmp_path, monkeypatch):
  monkeypatch.setattr(lock, "_RENEWAL_SECONDS", 0.01)
  asked = threading.Event()

  def fail(path):
    asked.set()
    raise RuntimeError("503 of a client of buckets")

  with lock.Lock(tmp_path) as held:
    path = tmp_path / lock.NAME
    with monkeypatch.context() as failing:
      failing.setattr(lock.storage, "renew", fail)
      assert asked.wait(30)
    with monkeypatch.context() as failing:
      failing.setattr(lock.Owner, "read", fail)
      held.require_held()
    os.utime(path, (time.time() - 1000,) * 2)
    deadline = time.monotonic() + 30
    while time.time() - path.stat().st_mtime > 500:  # It is renewed again.
      assert time.monotonic() < deadline
      time.sleep(0.01)


@pytest.mark.long
def test_the_wait_for_another_host_is_said(tmp_path, capsys):
  write(tmp_path, age=178)
  assert take(tmp_path)
  said = capsys.readouterr().err
  assert said.startswith(
    f"sejax: {tmp_path} was in use by process 1 on elsewhere 178 s ago; waiting"
  )
  assert said.count("\n") == 1
