"""A lock file that lets only one run write to a workdir at a time.

The file names the host and pid of its owner, which renews the file's modification time, so that the
lock of a dead owner can be recognized as stale. The library filelock does not serve: it either
relies on locks of the file system, which file systems shared by several machines often lack, or on
the mere existence of a file, which stays behind when its owner is killed.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from typing import NamedTuple, Self

import jax
import numpy as np
from absl import logging

from sejax import storage
from sejax.errors import one_line
from sejax.parallel import hosts, processes

NAME = "lock.json"
# The lock of an owner on another host is stale if it has not been renewed for this long.
_STALE_SECONDS = 180.0
_RENEWAL_SECONDS = 20.0
_POLL_SECONDS, _REMOTE_POLL_SECONDS = 0.5, 5.0  # in a bucket every look takes requests
# A lock file without a readable owner is being written; after this long its writer was killed.
_UNREADABLE_SECONDS = 5.0
_tokens_of_this_process: set[str] = set()


class Owner(NamedTuple):
  """The process that holds a lock.

  Attributes:
    host: host name.
    pid: process id.
    machine: identifies the boot and, in a container, the pid namespace in which `pid` is valid.
    token: unique for each `Lock`.
  """

  host: str
  pid: int
  machine: str
  token: str

  @classmethod
  def current(cls) -> Self:
    """Returns this process as an owner, with a new token."""
    return cls(
      host=socket.gethostname(), pid=os.getpid(), machine=_machine(), token=uuid.uuid4().hex
    )

  @classmethod
  def read(cls, path: storage.Path) -> Self | None:
    """Returns the owner in a lock file; None if it is incomplete, as while it is being written.

    Raises:
      FileNotFoundError: nobody holds the lock.
    """
    try:
      return cls(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
      return None


class Lock:
  """The lock of a workdir, a context manager; process 0 holds it for the run.

  All processes of the run must enter together: if the lock is taken, all of them raise.
  """

  def __init__(self, workdir: storage.Path):
    """Does not take the lock yet.

    Args:
      workdir: the folder to lock; created if missing.
    """
    self._workdir = storage.Path(workdir)
    self._path = self._workdir / NAME
    self._owner = Owner.current()
    self._released = threading.Event()

  def __enter__(self) -> Self:
    """Takes the lock.

    Raises:
      ValueError: another process holds it; the message names its host and pid.
    """
    self._workdir.mkdir(parents=True, exist_ok=True)
    refusal = self._take() if jax.process_index() == 0 else ""
    processes.wait_for_all(4 * _STALE_SECONDS)
    refusal = hosts.gather_json(refusal)[0]
    if refusal:
      raise ValueError(refusal)
    if jax.process_index() == 0:
      self._renewal = threading.Thread(target=self._renew, daemon=True, name="lock")
      self._renewal.start()
    return self

  def __exit__(self, *error: object) -> None:
    if jax.process_index() > 0:
      return
    self._released.set()
    self._renewal.join()
    _tokens_of_this_process.discard(self._owner.token)
    if self.is_held():
      self._path.unlink(missing_ok=True)

  def is_held(self) -> bool:
    """Whether the lock is still this process's; a host that was suspended may have lost it."""
    try:
      return Owner.read(self._path) == self._owner
    except FileNotFoundError:
      return False

  def require_held(self) -> None:
    """Checks that process 0 still holds the lock; all processes must call it.

    Raises:
      ValueError: the lock was removed, or another run took it over.
    """
    lost = jax.process_index() == 0 and not self._is_surely_held()
    if hosts.any_process(np.array([lost])).any():
      raise ValueError(
        f"{self._path} no longer belongs to this process: it was removed, or taken over after"
        " minutes without renewal; to go on, give the same command when no other process uses the"
        " workdir"
      )

  def _is_surely_held(self) -> bool:
    """As `is_held`, and true where the storage does not answer: the next step asks again."""
    try:
      return self.is_held()
    except Exception as error:  # Clients of buckets raise errors of any type.
      logging.warning("%s cannot be read: %s", self._path, one_line(error))
      return True

  def _take(self) -> str:
    """Takes the lock; returns an empty string, or the message why it cannot be taken."""
    # Before the file is written, so that no other thread of this process finds it stale.
    _tokens_of_this_process.add(self._owner.token)
    refusal = self._try_until_deadline()
    if refusal:
      _tokens_of_this_process.discard(self._owner.token)
    return refusal

  def _try_until_deadline(self) -> str:
    deadline = time.monotonic() + 2 * _UNREADABLE_SECONDS
    seen: tuple[Owner, float] | None = None  # an owner on another host, and the lock's age
    while time.monotonic() < deadline:
      if self._create(self._path):
        return ""
      with contextlib.suppress(FileNotFoundError):  # The owner released the lock in between.
        owner, age = Owner.read(self._path), storage.age(self._path)
        if self._is_stale(owner, age):
          self._remove_stale()
          continue
        if owner is None or owner.machine == self._owner.machine:
          return self._refusal(owner)
        # If it lives, it renews the lock soon; if not, as after a preemption, the lock goes stale.
        if seen is None:
          print(
            f"sejax: {self._workdir} was in use by process {owner.pid} on {owner.host} {age:.0f} s"
            f" ago; waiting up to {_STALE_SECONDS - age:.0f} s to see whether it still runs",
            file=sys.stderr,
            flush=True,
          )
          deadline += _STALE_SECONDS
        elif owner != seen[0] or age < seen[1]:
          return self._refusal(owner)
        seen = owner, age
        poll = _REMOTE_POLL_SECONDS if storage.is_remote(self._path) else _POLL_SECONDS
        time.sleep(min(poll, max(_STALE_SECONDS - age, _POLL_SECONDS)))
    return self._refusal(None)

  def _create(self, path: storage.Path) -> bool:
    """Creates a file with this owner; returns False if the file exists."""
    return storage.create(path, json.dumps(self._owner._asdict()) + "\n")

  def _remove_stale(self) -> None:
    """Removes a stale lock file.

    A second file admits one process at a time, since another one could otherwise remove the new
    lock that the first has taken in the meantime.
    """
    removal = self._path.with_name(f".{NAME}.stale")
    if not self._create(removal):
      time.sleep(0.02)
      if storage.age(removal) > _UNREADABLE_SECONDS:  # The process that removes was killed.
        removal.unlink()
      return
    try:
      if self._is_stale(Owner.read(self._path), storage.age(self._path)):
        self._path.unlink()
    finally:
      removal.unlink(missing_ok=True)

  def _is_stale(self, owner: Owner | None, age: float) -> bool:
    """Whether the lock file's owner, None if unreadable, is gone.

    Args:
      age: seconds since the file was renewed.
    """
    if owner is None:
      return age > _UNREADABLE_SECONDS
    if owner.machine != self._owner.machine:
      return age > _STALE_SECONDS
    if not _is_alive(owner.pid):
      return True
    # The owner has the pid of this process, but is not it: a restarted container counts pids anew.
    return owner.pid == os.getpid() and owner.token not in _tokens_of_this_process

  def _refusal(self, owner: Owner | None) -> str:
    user = "another process" if owner is None else f"process {owner.pid} on {owner.host}"
    return (
      f"{self._workdir} is in use by {user}; wait for it, stop it, or give another --workdir (if it"
      f" is surely gone, remove {self._path})"
    )

  def _renew(self) -> None:
    while not self._released.wait(_RENEWAL_SECONDS):
      try:
        if self.is_held():
          storage.renew(self._path)
      except Exception as error:  # A server may be unreachable for a while; of any type in buckets.
        logging.warning("%s cannot be renewed: %s", self._path, one_line(error))


def _machine() -> str:
  """Identifies host, boot and pid namespace, within which a pid names one process."""
  parts = [socket.gethostname()]
  with contextlib.suppress(OSError):  # Without /proc only the host name is known.
    parts.append(
      storage.Path("/proc/sys/kernel/random/boot_id").read_bytes().decode("ascii").strip()
    )
    parts.append(os.readlink("/proc/self/ns/pid"))
  return " ".join(parts)


def _is_alive(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except PermissionError:  # The process of another user.
    return True
  try:  # A zombie has ended, but is listed until its parent reads its exit status.
    status = storage.Path(f"/proc/{pid}/stat").read_bytes().decode("ascii", errors="replace")
  except OSError:
    return True
  return status.rpartition(")")[2].split()[0] not in ("Z", "X")
